"""Problems that would end a run late are found before it trains."""

import itertools
import sys
from types import SimpleNamespace

import corpus_trees
import numpy as np
import pytest
import soundfile
from transformers import AutoModelForAudioClassification
from transformers.integrations import integration_utils

from hf_gradalign.experiment import corpora, estimates, publication
from hf_gradalign.models import small_wav2vec2_config
from hf_gradalign.training import GradientAlignmentTrainer


@pytest.fixture
def never_train(monkeypatch):
    def train(*args, **kwargs):
        raise AssertionError("it trains")

    monkeypatch.setattr(GradientAlignmentTrainer, "training_step", train)


@pytest.fixture
def mp3(tmp_path, monkeypatch):
    """A recipe whose package is missing."""
    monkeypatch.setitem(sys.modules, "fast_mp3_augment", None)
    path = tmp_path / "mp3.yaml"
    path.write_text("- {transform: Mp3Compression, p: 0.001}")
    return path


NEEDED = "error: view 'augmented': entry 1 (Mp3Compression) needs pip install fast-mp3-augment\n"


@pytest.mark.parametrize("more", [[], ["--dry_run"], ["--dataloader_num_workers", "2"]])
def test_a_recipe_whose_package_is_missing(run_script, tmp_path, mp3, never_train, capsys, more):
    assert run_script(*more, output_dir=tmp_path / "out", augmentation=mp3) == 2
    assert NEEDED in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_recipe_whose_package_is_missing_in_a_stream(load_script, tmp_path, mp3, never_train, capsys):
    corpus = f"asvspoof2019_la:{corpus_trees.asvspoof2019_la(tmp_path / 'downloads')}"
    words = ["--streaming", "--corpus", corpus, "--max_steps", "7", "--augmentation", str(mp3)]
    assert load_script("run_audio_spoof").main([*words, "--output_dir", str(tmp_path / "out")]) == 2
    assert NEEDED in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"metric_for_best_model": "f1"},
            "--metric_for_best_model f1 is not measured; available: loss, eer",
        ),
        ({"report_to": "wandb"}, "--report_to wandb: WandbCallback requires wandb to be installed"),
        ({"report_to": "wandbb"}, "--report_to wandbb: wandbb is not supported, only "),
        (
            {"lr_scheduler_type": "cosine_with_min_lr"},
            "--lr_scheduler_type cosine_with_min_lr cannot be created: One of",
        ),
        (
            {"push_to_hub": True, "hub_model_id": "a/b/c"},
            "--push_to_hub: pass a valid name with --hub_model_id namespace/name",
        ),
        ({"push_to_hub": True, "hub_model_id": "a/b"}, "--push_to_hub: no access token was found. Run `hf auth login`"),
    ],
)
def test_what_would_fail_later(run_script, tmp_path, monkeypatch, never_train, capsys, changes, message):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setattr(integration_utils, "is_wandb_available", lambda: False)
    monkeypatch.setattr(publication, "get_token", lambda: None)
    out = tmp_path / "runs" / "out"
    assert run_script(output_dir=out, **changes) == 2
    assert f"error: {message}" in capsys.readouterr().err
    assert not out.parent.exists()


@pytest.mark.parametrize("name", ["scores_test.txt", "conflicts.jsonl"])
def test_what_is_in_the_way_of_a_result(run_script, tmp_path, never_train, capsys, name):
    (tmp_path / "out" / name).mkdir(parents=True)
    assert run_script(output_dir=tmp_path / "out") == 2
    assert f"has files that a run would replace ({name})" in capsys.readouterr().err
    assert run_script("--overwrite", output_dir=tmp_path / "out") == 2
    assert f"{name} is a folder, but the run writes a file there: move it away" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(["_running.lock", name])


def test_class_weights_that_do_not_fit(run_script, tmp_path, never_train, capsys):
    config = small_wav2vec2_config(id2label={0: "spoof", 1: "bonafide"}, label2id={"spoof": 0, "bonafide": 1})
    config.class_weights = [1.0, 1.0, 1.0]
    AutoModelForAudioClassification.from_config(config).save_pretrained(tmp_path / "base")
    assert run_script(output_dir=tmp_path / "out", model_name_or_path=tmp_path / "base") == 2
    assert (
        "error: class_weights must be 2 positive numbers, one per label, got [1.0, 1.0, 1.0]" in capsys.readouterr().err
    )


def test_a_bad_clip_in_a_large_test_split(run_script, tmp_path, monkeypatch, never_train, capsys):
    monkeypatch.setattr(corpora, "CHECKED_BY_DEFAULT", 2)
    folder = tmp_path / "mine"
    folder.mkdir()
    rows = ["file_name,split,label"]
    for split, index in itertools.product(("train", "validation", "test"), range(4)):
        soundfile.write(folder / f"{split}_{index}.wav", np.random.default_rng(index).normal(0, 0.1, 8000), 16_000)
        rows.append(f"{split}_{index}.wav,{split},{('fake', 'real')[index % 2]}")
    (folder / "metadata.csv").write_text("\n".join(rows))
    (folder / "test_3.wav").write_bytes(b"RIFF")
    assert run_script(output_dir=tmp_path / "out", dataset_name=folder) == 2
    assert "1 of 4 clips cannot be decoded:\n  test_3 (" in capsys.readouterr().err


def test_too_little_room_on_the_disk(run_script, tmp_path, monkeypatch, never_train, capsys):
    monkeypatch.setattr(estimates.shutil, "disk_usage", lambda path: SimpleNamespace(free=1_000_000))
    run_script.use_default_model()
    assert run_script(output_dir=tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert f"error: the run writes to {tmp_path / 'out'} up to 21 MB (8 MB per checkpoint, " in error
    assert "1 MB free: free some space, choose another disk with --output_dir, or keep less" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        (
            {"save_total_limit": "none"},
            ", or keep less (--save_total_limit 1, --save_only_model, --average_best_checkpo",
        ),
        ({"average_best_checkpoints": 1, "save_total_limit": 1}, ", or keep less (--save_only_model)"),
        (
            {"average_best_checkpoints": 1, "save_only_model": True},
            "free some space, or choose another disk with --outp",
        ),
    ],
)
def test_what_already_is_given_is_not_advised(run_script, tmp_path, monkeypatch, never_train, capsys, options, advice):
    monkeypatch.setattr(estimates.shutil, "disk_usage", lambda path: SimpleNamespace(free=1_000_000))
    steps = {"max_steps": 4, "eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
    assert run_script(output_dir=tmp_path / "out", **steps, **options) == 2
    assert advice in capsys.readouterr().err


def test_a_dry_run_tells_the_disk(run_script, tmp_path, monkeypatch, capsys):
    assert run_script("--dry_run", output_dir=tmp_path / "out") == 0
    assert " GB free\n" in capsys.readouterr().out
    monkeypatch.setattr(estimates.shutil, "disk_usage", lambda path: SimpleNamespace(free=1_000_000))
    assert run_script("--dry_run", output_dir=tmp_path / "out") == 2
    printed = capsys.readouterr()
    assert "1 MB free: too little\n" in printed.out
    assert "the run writes to" in printed.err
    assert not (tmp_path / "out").exists()


def test_the_same_run_as_without_a_rehearsal(run_script, tmp_path, monkeypatch):
    options = {"max_steps": 3, "save_steps": 3, "save_strategy": "steps", "eval_strategy": "steps", "eval_steps": 3}
    assert run_script("--align_gradients", output_dir=tmp_path / "now", **options) == 0
    monkeypatch.setattr("hf_gradalign.experiment.runner.rehearse", lambda *arguments: None)
    assert run_script("--align_gradients", output_dir=tmp_path / "without", **options) == 0
    files = [
        sorted(str(path.relative_to(tmp_path / name)) for path in (tmp_path / name).rglob("*"))
        for name in ("now", "without")
    ]
    assert files[0] == files[1]
    same = [
        "model.safetensors",
        "scores_test.txt",
        "scores_validation.txt",
        "conflicts.jsonl",
        "checkpoint-3/optimizer.pt",
    ]
    for name in (*same, "checkpoint-3/rng_state.pth"):
        assert (tmp_path / "now" / name).read_bytes() == (tmp_path / "without" / name).read_bytes(), name
