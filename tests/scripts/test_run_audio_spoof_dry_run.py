"""The dry run as a user types it."""

import json
import re
import tempfile
from pathlib import Path

import corpus_trees
import huggingface_hub.constants
import pytest
import torch

from hf_gradalign.experiment import dry_run
from hf_gradalign.experiment.dry_run import _bound
from hf_gradalign.models import small_wav2vec2_config
from hf_gradalign.training import GradientAlignmentTrainer

RECIPES = Path(__file__).parents[2] / "scripts" / "recipes"
XLS_R = "facebook/wav2vec2-xls-r-300m"
SMALL_TCM = ["--head_options", json.dumps({"num_blocks": 1, "size": 16})]


@pytest.fixture(autouse=True)
def temporary(monkeypatch, tmp_path):
    """No Hub, and a folder of its own for temporary files."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return folder


@pytest.fixture
def small_xls_r(monkeypatch):
    fields = small_wav2vec2_config(num_hidden_layers=1).to_dict()
    monkeypatch.setitem(dry_run._BUILT_IN, XLS_R, fields)


def rows_of(printed):
    return dict(re.findall(r"^  (\S.*?)  +(\S.*)$", printed, flags=re.MULTILINE))


def test_tells_what_the_run_takes_and_leaves_nothing(run_script, tmp_path, temporary, monkeypatch, capsys):
    monkeypatch.setattr(GradientAlignmentTrainer, "_save_checkpoint", None)  # gigabytes, for nothing
    run_script.use_default_model()
    words = ["--dry_run", "--align_gradients", "--num_train_epochs", "3", "--gradient_accumulation_steps", "2"]
    assert run_script(*words, output_dir=tmp_path / "out", max_steps=-1, early_stopping_patience=1) == 0
    printed = capsys.readouterr().out
    rows = rows_of(printed)
    assert rows["parameters"] == "0.69M, of which 0.69M are trained"
    assert rows["clips"] == "train 16, validation 12, test 12"
    assert rows["views"] == "clean (clean), augmented (rawboost)"
    assert rows["per update"] == "8 utterances in 2 views"
    assert rows["updates per epoch"] == "2"
    assert "(6 updates, 3 epochs: " in rows["whole run, at most"]
    assert "4 evaluations and the test: " in rows["whole run, at most"]
    assert "(patience 1)" in rows["at least"]
    assert float(rows["seconds per update"]) > 0
    assert rows["limited by"].startswith(("the model: ", "the data: "))
    # Of the whole process on a CPU, of what torch allocates on a GPU.
    assert float(rows["peak memory"].split()[0]) > (10 if torch.cuda.is_available() else 100)
    assert "loss" not in printed
    assert not (tmp_path / "out").exists()
    assert not list(temporary.iterdir())
    assert not list((tmp_path / "here").iterdir())


def test_a_recipe_where_the_hub_is_out_of_reach(run_script, tmp_path, small_xls_r, capsys):
    corpus = f"asvspoof2019_la:{corpus_trees.asvspoof2019_la(tmp_path / 'downloads')}"
    recipe = str(RECIPES / "tcm_pcgrad.yaml")
    words = [*SMALL_TCM, "--corpus", corpus, "--dataloader_num_workers", "0"]
    assert run_script_with(run_script, recipe, *words) == 0
    rows = rows_of(capsys.readouterr().out)
    assert rows["model"] == f"{XLS_R}, conformer_tcm head, with random weights: the Hub cannot be reached"
    assert rows["corpus"] == corpus
    assert rows["alignment"] == "pcgrad"
    assert "(patience 7)" in rows["at least"]


@pytest.mark.parametrize(
    "name",
    [
        "tcm_musan_rir_rawboost_dpda",
        pytest.param("aasist_augmented", marks=pytest.mark.slow),
        pytest.param("mamba_pcgrad", marks=[pytest.mark.slow, pytest.mark.long]),
    ],
)
def test_recipes_with_their_own_window(load_script, small_xls_r, capsys, name):
    words = [str(RECIPES / f"{name}.yaml"), "--dry_run", "--dataloader_num_workers", "0", "--disable_tqdm", "true"]
    words += ["--max_train_samples", "4", "--max_eval_samples", "4", "--per_device_train_batch_size", "1"]
    words += ["--per_device_eval_batch_size", "1"]
    main = load_script("run_audio_spoof").main
    if "musan" in name:
        if Path("/data/musan").exists():
            pytest.skip("this machine has what the test says is missing")
        assert main(words) == 2
        assert "/data/musan is neither a folder" in capsys.readouterr().err  # nothing is simulated unasked
        words += ["--augmentation", "musan_rir+rawboost"]
    assert main(words) == 0
    rows = rows_of(capsys.readouterr().out)
    assert rows["per update"] == f"1 utterance in {'1 view' if 'augmented' in name else '2 views'}"


def run_script_with(run_script, *words):
    changes = {"max_steps": -1, "per_device_train_batch_size": 1, "per_device_eval_batch_size": 1}
    return run_script(*words, "--dry_run", **changes)


def test_the_whole_model_without_a_head(run_script, small_xls_r, capsys):
    words = ["--model_name_or_path", XLS_R, "--class_weights", "0.1", "0.9", "--views", "augmented=rawboost"]
    assert run_script_with(run_script, *words) == 0
    rows = rows_of(capsys.readouterr().out)
    assert rows["model"].startswith(f"{XLS_R}, its own head, with random weights")
    assert rows["per update"] == "1 utterance in 1 view"


def test_a_model_that_nothing_is_known_of(run_script, capsys):
    assert run_script_with(run_script, "--model_name_or_path", "facebook/wav2vec2-xls-r-2b") == 2
    error = capsys.readouterr().err
    assert "the Hub cannot be reached: download it on a machine with a connection" in error
    assert "hf download facebook/wav2vec2-xls-r-2b" in error


def test_a_stream(run_script, tmp_path, load_script, capsys):
    corpus = f"asvspoof2019_la:{corpus_trees.asvspoof2019_la(tmp_path / 'downloads')}"
    words = ["--dry_run", "--streaming", "--corpus", corpus, "--max_steps", "7", "--window_seconds", "0.5"]
    words += ["--per_device_train_batch_size", "2", "--per_device_eval_batch_size", "2"]
    assert load_script("run_audio_spoof").main(words) == 0
    rows = rows_of(capsys.readouterr().out)
    assert rows["clips"].startswith("train streamed, validation ")
    assert "updates per epoch" not in rows
    assert "(7 updates: " in rows["whole run, at most"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--corpus", "asvspoof2019_la:/no/such/folder"], "/no/such/folder"),
        (["--corpus", "asvspof2019_la:/data"], "Did you mean asvspoof2019_la:/data?"),
        (["--views", "clean,rawbost"], "unknown augmentation 'rawbost'"),
        (["--augmentation", "musan_rir:/no/musan"], "/no/musan is neither a folder"),
        (["--align_gradients", "krum"], "alignment method 'krum' does not support 2 views"),
        (["--head", "aasits"], "there is no head 'aasits'"),
        (["--model_name_or_path", "/no/model"], "/no/model"),
    ],
)
def test_mistakes_are_told(run_script, capsys, words, message):
    assert run_script_with(run_script, *words) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Dry run" not in captured.out


def test_missing_files_are_named(run_script, tmp_path, capsys):
    folder = corpus_trees.asvspoof2019_la(tmp_path / "downloads")
    [missing] = tmp_path.rglob("LA_D_1000138.flac")
    missing.unlink()
    assert run_script_with(run_script, "--corpus", f"asvspoof2019_la:{folder}") == 2
    assert "LA_D_1000138" in capsys.readouterr().err


def test_a_folder_with_a_run_in_it(run_script, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.json").write_text("{}")
    assert run_script("--dry_run", output_dir=tmp_path / "out") == 2
    assert "already contains a run" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("tried to allocate 20 GiB"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
    ],
    ids=["CUDA", "MPS"],
)
def test_too_little_memory(run_script, temporary, monkeypatch, capsys, error):
    def fail(self, *args, **kwargs):
        raise error

    monkeypatch.setattr(GradientAlignmentTrainer, "training_step", fail)
    assert run_script("--dry_run") == 2
    error = capsys.readouterr().err
    assert re.search(r"does not fit into the memory of (cpu|cuda:0) with --per_device_train_batch_size 4", error)
    assert "--gradient_checkpointing" in error
    assert not list(temporary.iterdir())


@pytest.mark.parametrize(
    ("computing", "loading", "seconds_per_read", "bound"),
    [(0.2, 0.1, 0.09, "the model"), (0.1, 0.2, 0.0, "the data"), (0.1, 0.2, 0.03, "the disk")],
)
def test_what_holds_a_run_back(computing, loading, seconds_per_read, bound):
    assert _bound(computing, loading, 0.04, seconds_per_read).startswith(f"{bound}: ")
