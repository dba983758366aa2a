import json
import re

import pytest

from hf_gradalign.experiment import (
    command_words,
    describe_resumed,
    keep_arguments,
    parse_arguments,
    resume_words,
)
from hf_gradalign.experiment.command_line import RunParser


def test_defaults():
    run = parse_arguments([])
    assert run.model.model_name_or_path is None
    assert run.data.augmentation == "rawboost"
    assert run.training.align_gradients == "none"
    assert run.training.output_dir is None
    assert run.training.greater_is_better is False
    assert run.options == {}


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_options_win_over_the_file(tmp_path, suffix):
    config = tmp_path / f"config.{suffix}"
    content = {"align_gradients": "cagrad", "learning_rate": "1e-4", "num_train_epochs": 3, "class_weights": [0.1, 0.9]}
    config.write_text(json.dumps(content) if suffix == "json" else "\n".join(f"{k}: {v}" for k, v in content.items()))
    run = parse_arguments([str(config), "--num_train_epochs", "5"])
    assert run.training.align_gradients == "cagrad"
    assert run.training.learning_rate == 1e-4
    assert run.training.num_train_epochs == 5
    assert run.model.class_weights == [0.1, 0.9]
    assert parse_arguments(run.options) == run


def test_a_file_starts_from_its_base(tmp_path):
    (tmp_path / "base.yaml").write_text("seed: 5\ncorpus: [a, b]\nclass_weights: [0.1, 0.9]\nwarmup_steps: 0\n")
    config = tmp_path / "config.yaml"
    config.write_text("base: base.yaml\ncorpus: [c]\nclass_weights:\nseed: 6\n")
    options = parse_arguments([str(config), "--seed", "7"]).options
    assert options == {"corpus": ["c"], "seed": 7, "warmup_steps": 0}


@pytest.mark.parametrize(
    ("content", "base", "message"),
    [
        ("base: other.yaml", "seed: 5", "config.yaml: the base configuration file "),
        ("base: base.yaml", "base: config.yaml", "config.yaml, so it cannot have a base itself"),
        ("base: base.yaml", "sed: 5", "base.yaml: sed; did you mean seed"),
    ],
)
def test_mistakes_in_a_base(tmp_path, capsys, content, base, message):
    (tmp_path / "config.yaml").write_text(content)
    (tmp_path / "base.yaml").write_text(base)
    with pytest.raises(SystemExit):
        parse_arguments([str(tmp_path / "config.yaml")])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("value", "method"), [("true", "pcgrad"), ("false", "none"), ("gradvac", "gradvac")])
def test_align_gradients_in_a_file_needs_no_name(tmp_path, value, method):
    config = tmp_path / "config.yaml"
    config.write_text(f"align_gradients: {value}\n")
    assert parse_arguments([str(config)]).training.align_gradients == method


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--align_gradient"], "unknown option --align_gradient; did you mean --align_gradients"),
        (["--frobnicate", "1"], "unknown option --frobnicate; see --help"),
        (["--align_gradients", "pcgard"], "no alignment method 'pcgard'; available: none, pcgrad, gradvac, cagrad"),
        (["--class_weights", "1"], "--class_weights takes two positive numbers"),
        (["--window_seconds", "-1"], "--window_seconds must be a positive number, got -1.0"),
        (["--window_seconds", "nan"], "--window_seconds must be a positive number, got nan"),
        (["options.txt"], "unknown argument options.txt: the only argument without an option is a configuration file "),
        (["--validation_fraction", "2"], "--validation_fraction must be between 0 and 1"),
        (["--views", "clean,clean"], "two views are called clean"),
        (["--views", "clean,codec", "--augmentation", "rawboost"], "use one of them, as in --views clean,codec,aug"),
        (["--on_bad_audio", "ignore"], "invalid choice: 'ignore'"),
        (["missing.yaml"], "the configuration file missing.yaml does not exist"),
    ],
)
def test_mistakes_end_with_a_message(capsys, arguments, message):
    with pytest.raises(SystemExit) as end:
        parse_arguments(arguments)
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_help_has_the_options_of_this_project_first():
    help_text = RunParser().format_help()
    help_text = re.sub(r"^  (--\w+),? .*", r"  \1 ", help_text, flags=re.MULTILINE)  # from Python 3.13, a comma follows
    options = ["--head ", "--corpus ", "--align_gradients ", "--weight_decay "]
    titles = ["\nmodel:", "\ndata and views:", "\nalignment, checkpoints and the run:", "\ntraining (transformers"]
    wanted = [word for pair in zip(titles, options, strict=True) for word in pair]
    places = [help_text.index(f"\n  {word}" if word in options else word) for word in wanted]
    assert places == sorted(places)
    assert help_text.count("\n  --align_gradients ") == 1


def test_choices_are_those_that_can_be_given():
    help_text = RunParser().format_help()
    assert "{cross_entropy,am_softmax,oc_softmax}" in help_text
    assert ",None}" not in help_text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("algin_gradients: pcgrad", "config.yaml: algin_gradients; did you mean align_gradients"),
        ("class_weights: [0.1]", "--class_weights takes two positive numbers"),
        ("on_bad_audio: ignore", "invalid choice: 'ignore'"),
        ("- a list", "must contain a mapping"),
        ("a: [", "not a readable YAML or JSON file"),
    ],
)
def test_mistakes_in_a_file(tmp_path, capsys, content, message):
    config = tmp_path / "config.yaml"
    config.write_text(content)
    with pytest.raises(SystemExit):
        parse_arguments([str(config)])
    assert message in capsys.readouterr().err


def test_words_that_yaml_converts(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(
        "eval_strategy: no\nsave_strategy: no\nload_best_model_at_end: false\naverage_best_checkpoints: 1\n"
        "freeze_feature_encoder: true\nlabel_map: [0=spoof, 1=bonafide]\nalignment_options: {beta: 0.2}\n"
        "align_gradients: gradvac\nrun_name:\n"
    )
    run = parse_arguments([str(config)])
    model, data, training = run.model, run.data, run.training
    assert training.eval_strategy == training.save_strategy == "no"
    assert training.load_best_model_at_end is False
    assert model.freeze_feature_encoder is True
    assert training.alignment_options == {"beta": 0.2}
    assert data.label_map == ["0=spoof", "1=bonafide"]


@pytest.mark.parametrize("value", ["clean,rawboost,codec", "[clean, rawboost, codec]"])
def test_views_in_a_file(tmp_path, value):
    config = tmp_path / "config.yaml"
    config.write_text(f"views: {value}\nview_weights: {{codec: 0.5}}\n")
    run = parse_arguments([str(config)])
    data, training = run.data, run.training
    assert list(data.view_recipes) == ["clean", "rawboost", "codec"]
    assert training.view_weights == {"codec": 0.5}
    assert data.augmentation is None


@pytest.mark.parametrize("words", [["--hub_token", "hf_secret"], ["--hub-token=hf_secret"], ["--hub_token=hf_secret"]])
def test_tokens_are_written_nowhere(tmp_path, words):
    given = parse_arguments([*words, "--seed", "5", "--class_weights", "0.1", "0.9", "--output_dir", "out"]).options
    assert given["hub_token"] == "hf_secret"
    keep_arguments(given, tmp_path)
    assert "hf_secret" not in (tmp_path / "run_arguments.json").read_text()
    expected = "python scripts/run_audio_spoof.py --class_weights 0.1 0.9 --seed 5"
    assert " ".join(command_words(given)) == expected


RECEIVED = {
    "seed": 5,
    "align_gradients": "cagrad",
    "trust_remote_code": True,
    "output_dir": "/somewhere/else",
    "push_to_hub": True,
    "hub_model_id": "stranger/model",
    "hub_private_repo": False,
    "hub_token": "hf_theirs",
    "report_to": ["wandb"],
    "trackio_space_id": "stranger/space",
    "attention_implementation": "stranger/kernel",
    "resume_from_checkpoint": "/somewhere/else",
    "overwrite": True,
    "allow_changes": True,
    "dry_run": True,
}


def receive(folder, content):
    (folder / "run_arguments.json").write_text(content if isinstance(content, str) else json.dumps(content))
    (folder / "checkpoint-3").mkdir()
    return ["--resume_from_checkpoint", str(folder / "checkpoint-3")]


def test_a_received_run_neither_runs_code_nor_publishes(tmp_path):
    resume = receive(tmp_path, RECEIVED)
    given = parse_arguments(resume).options
    assert given == {"align_gradients": "cagrad", "seed": 5, "resume_from_checkpoint": resume[1]}
    text = describe_resumed(given, tmp_path)
    taken, left = text.splitlines()
    assert taken == f"Taken from {tmp_path}/run_arguments.json: --seed 5 --align_gradients cagrad"
    assert left.startswith(
        "Not taken from it: --trust_remote_code True --push_to_hub True --hub_model_id stranger/model"
    )
    assert "hf_theirs" not in text
    # Whoever wants it says so, on the command line or in a file that they name.
    words = ["--push_to_hub", "--hub_model_id", "me/mine", "--attention_implementation", "me/kernel", "--seed", "6"]
    given = parse_arguments([*resume, *words, "--hub_token", "hf_mine"]).options
    assert (given["push_to_hub"], given["hub_model_id"], given["hub_token"]) == (True, "me/mine", "hf_mine")
    assert "trust_remote_code" not in given
    assert describe_resumed(given, tmp_path).splitlines()[0].endswith(": --align_gradients cagrad")
    assert " ".join(resume_words(given, "run/checkpoint-3")[2:]) == (
        "--resume_from_checkpoint run/checkpoint-3 --attention_implementation me/kernel --push_to_hub True "
        "--hub_model_id me/mine"
    )
    config = tmp_path / "config.yaml"
    config.write_text("trust_remote_code: true\nreport_to: tensorboard\n")
    given = parse_arguments([str(config), *resume]).options
    assert (given["trust_remote_code"], given["report_to"], given["seed"]) == (True, "tensorboard", 5)


def test_user_specific_options_are_not_kept(tmp_path):
    words = ["--push_to_hub", "--trust_remote_code", "--report_to", "wandb", "--attention_implementation", "eager"]
    given = parse_arguments([*words, "--run_name", "mine"]).options
    keep_arguments(given, tmp_path)
    kept = json.loads((tmp_path / "run_arguments.json").read_text())
    assert kept == {"attention_implementation": "eager", "run_name": "mine"}
    assert "--push_to_hub" not in command_words(given)
    assert "mine" not in command_words(given)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1]", "run_arguments.json must contain a mapping"),
        ("{", "run_arguments.json: not a readable"),
        ({"sed": 1}, "run_arguments.json: sed; did you mean seed"),
        ({"seed": {"a": 1}}, "argument --seed: invalid int value"),
        ({"seed": "x"}, "argument --seed: invalid int value: 'x'"),
    ],
)
def test_edited_arguments_end_with_a_message(tmp_path, capsys, content, message):
    with pytest.raises(SystemExit) as end:
        parse_arguments(receive(tmp_path, content))
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_a_resumed_run_keeps_its_options(tmp_path):
    run = parse_arguments(["--align_gradients", "cagrad", "--seed", "5", "--logging_first_step", "false"])
    keep_arguments(run.options, tmp_path)
    checkpoint = tmp_path / "checkpoint-3"
    checkpoint.mkdir()
    (checkpoint / "trainer_state.json").write_text("{}")
    training = parse_arguments(["--resume_from_checkpoint", str(tmp_path), "--seed", "6"]).training
    assert training.align_gradients == "cagrad"
    assert training.logging_first_step is False
    assert training.seed == 6
    assert training.resume_from_checkpoint == str(tmp_path)


def test_home_is_expanded(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parse_arguments(["--output_dir", "~/out"]).training.output_dir == str(tmp_path / "out")


@pytest.mark.parametrize("words", [["--corpus", "a", "b:/c"], ["--corpus", "a", "--corpus", "b:/c"]])
def test_several_corpora(words):
    data = parse_arguments([*words, "--corpus_weights", "0.7", "0.3"]).data
    assert data.corpora == data.corpus == ["a", "b:/c"]
    assert data.corpus_weights == [0.7, 0.3]
    command = command_words(parse_arguments(words).options)
    assert " ".join(command) == "python scripts/run_audio_spoof.py --corpus a b:/c"


@pytest.mark.parametrize("name", ["--dataset_name", "--dataset_name_or_path"])
def test_other_names_for_a_single_corpus(name):
    assert parse_arguments([name, "someone/corpus"]).data.corpora == ["someone/corpus"]
    assert parse_arguments([]).data.corpora == [None]


def test_command_line_corpora_replace_a_files(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("corpus: [a, b]\ncorpus_weights: [1, 2]\n")
    assert parse_arguments([str(config)]).data.corpus == ["a", "b"]
    words = [str(config), "--corpus", "c", "--corpus", "d"]
    assert parse_arguments(words).data.corpus == ["c", "d"]
    keep_arguments(parse_arguments(words).options, tmp_path)
    (tmp_path / "checkpoint-3").mkdir()
    (tmp_path / "checkpoint-3" / "trainer_state.json").write_text("{}")
    again = ["--resume_from_checkpoint", str(tmp_path)]
    assert parse_arguments(again).data.corpus == ["c", "d"]
    assert parse_arguments([*again, "--corpus", "e", "--corpus", "f"]).data.corpus == ["e", "f"]
    assert parse_arguments([str(config), *again]).data.corpus == ["a", "b"]
    assert parse_arguments([str(config), *again]).data.corpus_weights == [1, 2]


@pytest.mark.parametrize(("words", "value"), [([], None), (["--check_audio"], True), (["--check_audio", "no"], False)])
def test_whether_audio_is_checked(words, value):
    assert parse_arguments(words).data.check_audio is value


PER_CORPUS = """
corpus: [a, b]
label_map: {a: {0: spoof, -1: bonafide}, b: {0: bonafide}}
label_column_name: {a: key, b: class}
train_split_name: trn
"""


def test_options_of_each_corpus(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(PER_CORPUS)
    data = parse_arguments([str(config)]).data
    assert data.label_map == ["a:0=spoof", "a: -1=bonafide", "b:0=bonafide"]
    assert data.label_column_name == ["a:key", "b:class"]
    assert data.train_split_name == "trn"
    assert data.audio_column_name == "audio"
    assert data.id_column_name is None
    words = ["--corpus", "a", "b", "--label_column_name", "a:key", "b:class", "--id_column_name", "name"]
    run = parse_arguments(words)
    assert (run.data.label_column_name, run.data.id_column_name) == (["a:key", "b:class"], "name")
    assert parse_arguments(command_words(run.options)[2:]).data == run.data


@pytest.mark.parametrize("mapping", ["{-1: spoof, 1: bonafide}", "{'-': spoof, 1: real}"])
def test_a_label_map_as_a_mapping(tmp_path, mapping):
    config = tmp_path / "config.yaml"
    config.write_text(f"label_map: {mapping}")
    data = parse_arguments([str(config)]).data
    assert [word.partition("=")[2] for word in data.label_map] == ["spoof", mapping.rpartition(" ")[2][:-1]]
    assert data.label_map[0].startswith(" -")  # and is no option


IN_A_FILE = """
early_stopping_patience: 3
save_total_limit: 5
learning_rate: 0.5
metric_for_best_model: eer
greater_is_better: true
run_name: mine
label_map: [0=spoof, 1=bonafide]
class_weights: [0.1, 0.9]
corpus: [a, b]
include_for_metrics: [inputs]
alignment_modules: [encoder]
alignment_scope: module
view_weights: {clean: 0.5}
lr_scheduler_kwargs: {num_cycles: 2}
bf16: true
use_cpu: true
ddp_broadcast_buffers: true
logging_first_step: false
check_audio: true
rms_level: 0.3
dataloader_num_workers: 2
dataloader_multiprocessing_context: fork
debug: [underflow_overflow]
align_gradients: true
conflict_record: parquet
include_num_input_tokens_seen: true
"""


@pytest.mark.parametrize(
    ("words", "part", "name", "value"),
    [
        ("--early_stopping_patience none", "training", "early_stopping_patience", None),
        ("--early_stopping_patience=None", "training", "early_stopping_patience", None),
        ("--early-stopping-patience null", "training", "early_stopping_patience", None),
        ("--save_total_limit none", "training", "save_total_limit", None),
        ("--learning_rate none", "training", "learning_rate", None),
        ("--greater_is_better none", "training", "greater_is_better", False),
        ("--run_name none", "training", "run_name", None),
        ("--label_map none", "data", "label_map", None),
        ("--class_weights none", "model", "class_weights", None),
        ("--corpus none", "data", "corpus", None),
        ("--include_for_metrics none", "training", "include_for_metrics", []),
        ("--alignment_modules none", "training", "alignment_modules", None),
        ("--view_weights none", "training", "view_weights", None),
        ("--lr_scheduler_kwargs none", "training", "lr_scheduler_kwargs", None),
        ("--bf16 false", "training", "bf16", False),
        ("--no_bf16", "training", "bf16", False),
        ("--no-bf16", "training", "bf16", False),
        ("--no_ddp_broadcast_buffers", "training", "ddp_broadcast_buffers", False),
        ("--ddp_broadcast_buffers none", "training", "ddp_broadcast_buffers", None),
        ("--logging_first_step", "training", "logging_first_step", True),
        ("--check_audio none", "data", "check_audio", None),
        ("--no_check_audio", "data", "check_audio", False),
        ("--rms_level none", "data", "rms_level", None),
        ("--dataloader_multiprocessing_context none", "training", "dataloader_multiprocessing_context", None),
        ("--debug none", "training", "debug", []),
        ("--align_gradients none", "training", "align_gradients", "none"),
        ("--conflict_record none", "training", "conflict_record", "none"),
        ("--include_num_input_tokens_seen no", "training", "include_num_input_tokens_seen", "no"),
    ],
)
def test_command_line_can_unset_options_of_a_file(tmp_path, words, part, name, value):
    config = tmp_path / "config.yaml"
    config.write_text(IN_A_FILE)
    set_by_file = getattr(getattr(parse_arguments([str(config)]), part), name)
    assert set_by_file != value
    run = parse_arguments([str(config), *words.split()])
    assert getattr(getattr(run, part), name) == value
    # And so in the command that the card shows.
    again = parse_arguments(command_words(run.options)[2:])
    assert getattr(getattr(again, part), name) == value


def test_an_unset_option_is_checked_as_one_that_was_never_set(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("early_stopping_patience: 3\neval_strategy: no\nload_best_model_at_end: no\n")
    words = [str(config), "--average_best_checkpoints", "1"]
    with pytest.raises(SystemExit):
        parse_arguments(words)
    parse_arguments([*words, "--early_stopping_patience", "none"])


def test_empty_values_in_a_file_unset_options(tmp_path):
    keep_arguments(
        parse_arguments(["--early_stopping_patience", "3", "--label_map", "0=spoof", "--seed", "5"]).options, tmp_path
    )
    (tmp_path / "checkpoint-3").mkdir()
    (tmp_path / "checkpoint-3" / "trainer_state.json").write_text("{}")
    config = tmp_path / "config.yaml"
    config.write_text("early_stopping_patience:\nlabel_map: []\nseed:\n")
    again = ["--resume_from_checkpoint", str(tmp_path)]
    assert parse_arguments(again).training.early_stopping_patience == 3
    assert parse_arguments([*again, "--early_stopping_patience", "none"]).training.early_stopping_patience is None
    run = parse_arguments([str(config), *again])
    data, training = run.data, run.training
    assert (training.early_stopping_patience, data.label_map, training.seed) == (None, None, 5)


@pytest.mark.parametrize("name", ["disable_tqdm", "hub_private_repo", "greater_is_better", "ddp_broadcast_buffers"])
def test_a_switch_needs_no_value(name):
    for words, value in (([f"--{name}"], True), ([f"--{name}", "no"], False), ([f"--no_{name}"], False)):
        assert getattr(parse_arguments(words).training, name) is value


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--corpus", "a", "none"], "--corpus none means an empty list and takes no other values"),
        (["--average_best_checkpoints", "none"], "invalid int value: 'none'"),
        (["--early_stopping_patience", "never"], "invalid int value: 'never'"),
        (["--accelerator_config", "missing.json"], "missing.json"),
        (["--no_seed"], "unknown option --no_seed"),
    ],
)
def test_options_that_cannot_be_unset(capsys, words, message):
    with pytest.raises(SystemExit) as end:
        parse_arguments(words)
    assert end.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", ["label_column_name", "id_column_name", "test_split_name"])
def test_where_none_is_a_value(name, tmp_path):
    assert getattr(parse_arguments([f"--{name}", "none"]).data, name) == "none"
    assert getattr(parse_arguments([f"--{name}", "a:none", "b:x"]).data, name) == ["a:none", "b:x"]
    config = tmp_path / "config.yaml"
    config.write_text(f"{name}: null")
    assert getattr(parse_arguments([str(config)]).data, name) == getattr(parse_arguments([]).data, name)


def test_no_progress_is_an_option_as_of_other_commands():
    assert parse_arguments([]).training.disable_tqdm is False
    assert parse_arguments(["--no_progress"]).training.disable_tqdm is True
    assert command_words(parse_arguments(["--no_progress"]).options)[-2:] == ["--disable_tqdm", "True"]


def test_contents_of_a_received_run_are_shown_as_text(tmp_path, capsys):
    (tmp_path / "checkpoint-1").mkdir()
    (tmp_path / "run_arguments.json").write_text(json.dumps({"\x1b[2J\u202e" + "x" * 100_000: 1}))
    with pytest.raises(SystemExit):
        parse_arguments(["--resume_from_checkpoint", str(tmp_path)])
    printed = capsys.readouterr().err
    assert "unknown key in" in printed
    assert "more characters" in printed
    assert len(printed) < 3_000
    assert "\x1b" not in printed
    assert "\u202e" not in printed
