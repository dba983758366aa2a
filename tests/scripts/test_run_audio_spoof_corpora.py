"""The main job on corpora in the layouts of their official archives, mixed and streamed."""

import json

import corpus_trees
import datasets
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file

SHORT = {"max_train_samples": 4, "max_eval_samples": 4, "per_device_train_batch_size": 2}


def results_of(folder):
    return json.loads((folder / "all_results.json").read_text())


@pytest.fixture(autouse=True)
def _no_rest(monkeypatch):
    monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0, raising=False)


@pytest.fixture
def la(tmp_path):
    return f"asvspoof2019_la:{corpus_trees.asvspoof2019_la(tmp_path / 'downloads')}"


def test_trains_on_asvspoof_2019_and_tests_in_the_wild(run_script, tmp_path, la):
    wild = f"in_the_wild:{corpus_trees.in_the_wild(tmp_path / 'downloads')}"
    out = tmp_path / "out"
    assert run_script("--align_gradients", "--corpus", la, "--test_corpus", wild, output_dir=out, **SHORT) == 0
    results = results_of(out)
    assert results["eval_eer_by_system"].keys() == {"A02", "A03"}
    assert 0 <= results["test_eer"] <= 1
    assert [line.split()[0] for line in (out / "scores_test.txt").read_text().splitlines()] == ["0", "1", "2"]
    assert (out / "scores_validation.txt").read_text().startswith("LA_D_1000137 ")
    card = ModelCard.load(out / "README.md")
    assert [result.dataset_name for result in card.data.eval_results] == ["ASVspoof 2019 LA", "In-the-Wild"]
    assert "--corpus asvspoof2019_la:LA" in card.text
    assert str(tmp_path) not in card.text


def test_a_weighted_mix_resumes_to_the_bit(run_script, tmp_path, la):
    five = f"asvspoof5:{corpus_trees.asvspoof5(tmp_path / 'downloads')}"
    out = tmp_path / "out"
    options = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
    words = [
        "--align_gradients",
        "gradvac",
        "--corpus",
        la,
        five,
        "--corpus_weights",
        "0.7",
        "0.3",
        "--balance_classes",
    ]
    assert run_script(*words, output_dir=out, average_best_checkpoints=1, **options, **SHORT) == 0
    again = tmp_path / "again"
    assert run_script("--resume_from_checkpoint", str(out / "checkpoint-1"), output_dir=again, **SHORT) == 0
    first, second = (load_file(folder / "model.safetensors") for folder in (out, again))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert results_of(again)["settings"]["data"]["corpus_weights"] == [0.7, 0.3]


def test_a_stream(load_script, quick_options, tmp_path, la, capsys):
    words = quick_options(per_device_train_batch_size=2)
    without_limit = words.index("--max_train_samples")
    del words[without_limit : without_limit + 2]
    words += ["--align_gradients", "--streaming", "--corpus", la, "--shuffle_buffer_size", "3", "--output_dir"]
    main = load_script("run_audio_spoof").main
    out = tmp_path / "out"
    assert main([*words, str(out)]) == 0
    assert "| training clips | streamed |" in (out / "README.md").read_text()
    assert 0 <= results_of(out)["eval_eer"] <= 1
    assert main([*words, str(tmp_path / "other"), "--max_steps", "-1"]) == 2
    assert "so set --max_steps" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--corpus", "asvspoof2019_la"], "LA.zip from https://datashare.ed.ac.uk"),
        (["--corpus", "asvspof2019_la:/data"], "Did you mean asvspoof2019_la:/data?"),
        (["--corpus", "mlaad:{trees}"], "no bonafide clips"),
    ],
)
def test_mistakes_end_with_a_message(run_script, tmp_path, capsys, monkeypatch, words, message):
    monkeypatch.delenv("HF_GRADALIGN_CORPORA", raising=False)
    corpus_trees.mlaad(tmp_path / "trees")
    words = [word.format(trees=tmp_path / "trees") for word in words]
    if "mlaad" in words[1]:
        words += ["--eval_corpus", "demo"]
    assert run_script(*words, output_dir=tmp_path / "out") == 2
    assert message in capsys.readouterr().err


def test_a_bad_clip_that_was_not_looked_for(run_script, tmp_path, la, capsys):
    [path] = tmp_path.rglob("LA_D_1000138.flac")
    path.write_bytes(b"no audio")
    words = ["--corpus", la, "--check_audio", "no"]
    assert run_script(*words, output_dir=tmp_path / "out", **SHORT) == 1
    error = capsys.readouterr().err
    assert "Cannot decode LA_D_1000138" in error
    assert "--check_audio --on_bad_audio skip" in error
    words = ["--corpus", la, "--check_audio", "--on_bad_audio", "skip"]
    assert run_script(*words, output_dir=tmp_path / "again", **SHORT) == 0
