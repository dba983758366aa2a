"""A run is resumed with the data, views, model and options that it was started with."""

import json
import shutil

import numpy as np
import pytest
import soundfile
import torch
from datasets import Dataset, DatasetDict
from tiny_detectors import make_config

from hf_gradalign.experiment import check_resumed, keep_fingerprint, parse_arguments
from hf_gradalign.experiment.corpora import RunCorpora
from hf_gradalign.experiment.preparation import check_views, make_preparation
from hf_gradalign.experiment.run_fingerprint import _compare, _defaults_of
from hf_gradalign.models import load_audio_classifier

WORDS = "--align_gradients --use_cpu --max_steps 4 --per_device_train_batch_size 4 --window_seconds 0.25"


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return load_audio_classifier()


def write_corpus(folder, rate=8000):
    folder.mkdir()
    for index in range(100):
        samples = np.random.default_rng(index).uniform(-0.1, 0.1, 800)
        soundfile.write(folder / f"{index}.wav", samples, rate)
    return folder


@pytest.fixture(scope="module")
def look(model):
    """Check a run on the 100 clips in a folder that resumes from a checkpoint, or begins (None)."""

    def look(words, checkpoint, folder, ids=range(100), change=None):
        rows = {
            "audio": [{"bytes": None, "path": str(folder / f"{index}.wav")} for index in range(100)],
            "label": [index % 2 for index in range(100)],
            "utterance_id": [f"clip_{index}" for index in ids],
        }
        if change:
            change(rows)
        clips = Dataset.from_dict(rows)
        run = parse_arguments(["--output_dir", "out", *WORDS.split(), *words.split()])
        run.settle_defaults()
        splits = DatasetDict({"train": clips, "validation": clips.select(range(10))})
        views = check_views(run)
        preparation = make_preparation(RunCorpora(splits, {}), views, *model, run)
        return check_resumed(preparation, run, checkpoint)

    return look


@pytest.fixture(scope="module")
def started(look, tmp_path_factory):
    """A folder with the clips, and with `run`, the folder of a run on them."""
    folder = tmp_path_factory.mktemp("started")
    (folder / "run").mkdir()
    keep_fingerprint(look("", None, write_corpus(folder / "clips")), folder / "run")
    return folder


@pytest.fixture
def start(look, started, tmp_path):
    """Check a run that resumes from `run/checkpoint-2`, or begins (`checkpoint=None`), in a copy of `started`."""
    shutil.copytree(started, tmp_path, dirs_exist_ok=True)
    last = str(tmp_path / "run" / "checkpoint-2")
    return lambda words="", checkpoint=last, folder=tmp_path / "clips", **more: look(words, checkpoint, folder, **more)


@pytest.mark.parametrize(
    "words",
    [
        "",
        "--logging_steps 3 --save_total_limit 9 --dataloader_num_workers 2 --run_name other --overwrite",
        "--per_device_train_batch_size 2 --gradient_accumulation_steps 2",
        "--eval_steps 3 --save_steps 3 --conflict_record none",
        "--disable_tqdm --per_device_eval_batch_size 3 --log_level error",
    ],
)
def test_options_without_an_effect_may_differ(start, words):
    start(words)


def test_the_same_files_elsewhere_are_the_same(start, tmp_path):
    (tmp_path / "clips").rename(tmp_path / "moved")
    start(folder=tmp_path / "moved")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--seed 7", "--seed: 42 then, 7 now"),
        ("--data_seed 7", "--data_seed: None then, 7 now"),
        ("--align_gradients cagrad", "--align_gradients: pcgrad then, cagrad now"),
        ("--max_steps 8", "--max_steps: 4 then, 8 now"),
        ("--bf16", "--bf16: False then, True now"),
        ("--per_device_train_batch_size 8", "utterances an update: 4 then, 8 now"),
        ("--augmentation rawboost2", "view augmented: rawboost then, rawboost2 now"),
        ("--views clean,codec", "view codec: None then, codec now"),
        ("--window_seconds 0.5", "--window_seconds: 0.25 then, 0.5 now"),
        ("--eval_strategy steps --save_strategy steps", "--eval_strategy: epoch then, steps now"),
    ],
)
def test_options_that_change_the_result_are_refused(start, caplog, words, message):
    with pytest.raises(ValueError, match="the run in") as refused:
        start(words)
    assert f"\n  {message}\n" in str(refused.value)
    assert "--allow_changes" in str(refused.value)
    start(f"{words} --allow_changes")
    assert message in caplog.text


def test_workers_of_a_stream_may_not_differ(start, tmp_path):
    words = "--streaming --eval_strategy steps --save_strategy steps"
    keep_fingerprint(start(words, checkpoint=None), tmp_path / "run")
    start(f"{words} --dataloader_num_workers 1")  # reads what the training process would
    with pytest.raises(ValueError, match="processes of the stream: 1 and 1 then, 2 and 1 now"):
        start(f"{words} --dataloader_num_workers 2")


def test_saving_may_differ_where_nothing_is_selected(start, tmp_path):
    words = "--load_best_model_at_end no --average_best_checkpoints 1"
    keep_fingerprint(start(words, checkpoint=None), tmp_path / "run")
    start(f"{words} --save_strategy steps --save_steps 3")


def other_label(rows):
    rows["label"][50] = 1 - rows["label"][50]


def one_less(rows):
    for column in rows.values():
        column.pop()


def longer_clip(rows):
    with open(rows["audio"][51]["path"], "ab") as file:  # not one of those that are read
        file.write(b"more")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_label, "labels of train: differs"),
        (one_less, "clips of train: 100 then, 99 now"),
        (longer_clip, "audio of train: differs"),
        (lambda rows: rows["utterance_id"].reverse(), "ids of train: differs"),
    ],
)
def test_other_clips_are_refused(start, change, message):
    with pytest.raises(ValueError, match=message):
        start(change=change)


def test_other_audio_of_the_same_names_and_sizes_is_refused(start, tmp_path):
    with pytest.raises(ValueError, match="audio of train: differs"):
        start(folder=write_corpus(tmp_path / "other", rate=4000))


def test_another_model_is_refused(start, model, monkeypatch):
    weights = next(model[0].parameters())
    with monkeypatch.context() as patch:
        patch.setattr(weights, "data", weights.data + 1)
        with pytest.raises(ValueError, match="weights of the model before training: differs"):
            start()
    monkeypatch.setattr(model[0].config, "hidden_dropout", 0.35)
    with pytest.raises(ValueError, match=r"hidden_dropout of the model: 0.1 then, 0.35 now"):
        start()


def test_files_named_by_a_recipe_count(start, tmp_path):
    noises = write_corpus(tmp_path / "noises")
    recipe = tmp_path / "noisy.yaml"
    recipe.write_text(f"- {{transform: AddBackgroundNoise, sounds_path: {noises}}}\n")
    words = f"--views clean,{recipe}"
    keep_fingerprint(start(words, checkpoint=None), tmp_path / "run")
    start(words)
    (noises / "3.wav").unlink()
    with pytest.raises(ValueError, match=r"view noisy: noisy.yaml \w+ then, noisy.yaml \w+ now"):
        start(words)


def test_runs_of_earlier_versions_resume_with_a_note(start, tmp_path, caplog):
    kept = tmp_path / "run" / "run_fingerprint.json"
    content = json.loads(kept.read_text())
    kept.write_text(json.dumps({name: value for name, value in content.items() if name != "--bf16"}))
    start()  # an option that there was not is no difference
    kept.write_text("[]")
    with pytest.raises(ValueError, match="cannot be read"):
        start()
    start("--allow_changes")
    kept.unlink()
    start("--seed 7")
    assert "has no run_fingerprint.json (it is from an earlier version)" in caplog.text
    assert not any(str(tmp_path) in str(value) for value in content.values())


def test_a_field_that_the_configuration_did_not_have_is_its_default(tmp_path):
    config = make_config()
    now = {f"{name} of the model": value for name, value in config.to_diff_dict().items()}
    now = json.loads(json.dumps(now, default=str))
    new = "normalization_epsilon of the model"
    assert new in now
    path = tmp_path / "run_fingerprint.json"
    path.write_text(json.dumps({name: value for name, value in now.items() if name != new}))
    _compare(path, now, False, _defaults_of(config))
    with pytest.raises(ValueError, match=f"{new}: 1e-07 then, 0.5 now"):
        _compare(path, now | {new: 0.5}, False, _defaults_of(config))
