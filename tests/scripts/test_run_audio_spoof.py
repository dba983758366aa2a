"""The main job as a user types it."""

import json
import os
import shutil
import sqlite3
import sys
from pathlib import Path

import datasets
import forked_python
import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file
from transformers import (
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    HubertConfig,
    HubertForSequenceClassification,
    Wav2Vec2FeatureExtractor,
    WavLMConfig,
    WavLMForSequenceClassification,
    pipeline,
)

from hf_gradalign.data import decode_audio, load_corpus
from hf_gradalign.experiment import runner

SCRIPT = Path(__file__).parents[2] / "scripts" / "run_audio_spoof.py"

TINY = {
    "conv_dim": (16, 16),
    "conv_stride": (10, 16),
    "conv_kernel": (10, 16),
    "num_feat_extract_layers": 2,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "classifier_proj_size": 8,
}


def results_of(folder):
    return json.loads((folder / "all_results.json").read_text())


@pytest.fixture
def user_corpus(_user_corpus, tmp_path):
    """A user's folder: wavs of another rate, metadata.csv with splits and labels of their own."""
    return Path(shutil.copytree(_user_corpus, tmp_path / "mine"))


@pytest.fixture(scope="module")
def _user_corpus(tmp_path_factory):
    corpus = load_corpus(None)
    folder = tmp_path_factory.mktemp("user_corpus")
    rows = ["file_name,split,label"]
    for split, count in (("train", 12), ("validation", 8)):
        clips = corpus[split]
        chosen = list(range(count // 2)) + list(range(len(clips) - count // 2, len(clips)))
        labels = [clips[i]["label"] for i in chosen]
        assert set(labels) == {0, 1}
        for i, label in zip(chosen, labels, strict=True):
            name = f"{split}_{i}.wav"
            soundfile.write(folder / name, decode_audio(clips[i]["audio"], 16_000), 22_050)
            rows.append(f"{name},{split},{'genuine' if label else 'deepfake'}")
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n")
    return folder


def test_writes_all_that_was_promised(run_script, tmp_path, capsys):
    out = tmp_path / "out"
    assert run_script("--align_gradients", output_dir=out) == 0
    for name in ("config.json", "model.safetensors", "preprocessor_config.json", "README.md", "scores_test.txt"):
        assert (out / name).is_file(), name
    results = results_of(out)
    for name in ("eval_eer", "test_eer", "train_conflict_rate"):
        assert 0 <= results[name] <= 1
    assert len(results["train_conflict_rate_by_epoch"]) == 1
    assert results["settings"]["training"]["align_gradients"] == "pcgrad"
    assert results["settings"]["training"]["learning_rate"] == 1e-3
    assert set(results["test_eer_by_system"]) <= {"W01", "A08", "A09", "W05"}
    printed = capsys.readouterr().out
    assert "Equal error rate (%)" in printed
    assert f"validation  {100 * results['eval_eer']:6.2f}" in printed
    assert "by epoch" in printed
    assert str(out) in printed
    [command] = [line.strip() for line in printed.splitlines() if "python scripts/run_audio_spoof.py" in line]
    assert "--align_gradients none" in command
    assert "--max_steps 2" in command

    # The score file, the reloaded model and the pipeline agree, as far as a GPU's TF32 convolutions do with a CPU's.
    bound = 1e-3 if torch.cuda.is_available() else 1e-5
    clip = load_corpus(None)["test"]
    by_name = dict(line.split() for line in (out / "scores_test.txt").read_text().splitlines())
    row = next(row for row in clip if row["utterance_id"] in by_name)
    samples = np.resize(decode_audio(row["audio"], 16_000), 8000)
    model = AutoModelForAudioClassification.from_pretrained(out)
    inputs = AutoFeatureExtractor.from_pretrained(out)(samples, sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        logits = model(**inputs).logits[0]
    assert float(by_name[row["utterance_id"]]) == pytest.approx(float(logits[1] - logits[0]), abs=bound)
    answers = pipeline("audio-classification", model=str(out))(
        {"array": samples, "sampling_rate": 16_000}, function_to_apply="none"
    )
    assert {a["label"]: pytest.approx(a["score"], abs=bound) for a in answers} == {
        "spoof": float(logits[0]),
        "bonafide": float(logits[1]),
    }


def test_repeats_to_the_bit_and_differs_by_seed(run_script, finished_run, tmp_path):
    for name, seed in (("same", 42), ("other", 2)):
        assert run_script("--align_gradients", output_dir=tmp_path / name, seed=seed, dataloader_num_workers=0) == 0
    first, same, other = (load_file(tmp_path / name / "model.safetensors") for name in ("finished", "same", "other"))
    assert all(torch.equal(value, same[name]) for name, value in first.items())
    assert not all(torch.equal(value, other[name]) for name, value in first.items())


def test_can_be_typed_twice(run_script, tmp_path, monkeypatch, stop_before_training):
    monkeypatch.chdir(tmp_path)
    assert run_script("--align_gradients") == stop_before_training
    assert run_script("--align_gradients") == stop_before_training
    folders = list((tmp_path / "runs").iterdir())
    assert len(folders) == 2
    assert all((folder / "run_arguments.json").is_file() for folder in folders)


def test_a_run_is_not_overwritten(run_script, finished_run, capsys):
    before = (finished_run / "model.safetensors").read_bytes()
    assert run_script(output_dir=finished_run) == 2
    assert "already contains a run" in capsys.readouterr().err
    assert (finished_run / "model.safetensors").read_bytes() == before


def test_methods_of_torchjd(run_script, tmp_path, capsys):
    out = tmp_path / "out"
    options = ("--alignment_options", '{"alpha": 0.5}')
    assert run_script("--align_gradients", "CR-MOGM(IMTL-G)", *options, output_dir=out) == 0
    assert results_of(out)["settings"]["training"]["align_gradients"] == "crmogm(imtlg)"
    [command] = [line for line in capsys.readouterr().out.splitlines() if "python scripts/run_audio_spoof.py" in line]
    assert "--align_gradients none" in command
    assert "alignment_options" not in command
    assert run_script("--align_gradients", "krum", output_dir=tmp_path / "other") == 2
    assert "error: alignment method 'krum' does not support 2 views" in capsys.readouterr().err


def test_averages_the_best_and_weighs_classes_also_when_resumed(run_script, tmp_path):
    out = tmp_path / "out"
    status = run_script(
        "--align_gradients",
        "cagrad",
        output_dir=out,
        max_steps=6,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        average_best_checkpoints=3,
        early_stopping_patience=6,
        class_weights=(0.1, 0.9),
        seed=7,
    )
    assert status == 0
    assert json.loads((out / "config.json").read_text())["class_weights"] == [0.1, 0.9]
    kept = [load_file(path) for path in sorted((out / "best_checkpoints").glob("*.safetensors"))]
    assert len(kept) == 3
    for name, value in load_file(out / "model.safetensors").items():
        torch.testing.assert_close(value, sum(state[name] for state in kept) / 3)

    # Resumed, a finished run is the same run, with the options it was started with.
    before, weights = results_of(out), (out / "model.safetensors").read_bytes()
    assert run_script("--resume_from_checkpoint", str(out), max_steps=6) == 0
    after = results_of(out)
    assert (out / "model.safetensors").read_bytes() == weights
    for name in ("eval_eer", "test_eer", "train_loss", "train_conflict_rate", "train_conflict_rate_by_epoch"):
        assert after[name] == before[name], name
    assert after["settings"]["model"]["class_weights"] == [0.1, 0.9]
    assert after["settings"]["training"]["seed"] == 7
    assert json.loads((out / "config.json").read_text())["class_weights"] == [0.1, 0.9]


def test_a_users_folder(run_script, tmp_path, user_corpus):
    out = tmp_path / "out"
    assert run_script("--align_gradients", output_dir=out, dataset_name=user_corpus) == 0
    results = results_of(out)
    assert "eval_eer" in results
    assert "test_eer" not in results
    card = (out / "README.md").read_text()
    assert "mine" in card
    assert str(tmp_path) not in card


def test_labels_of_their_own(run_script, tmp_path, user_corpus, capsys, stop_before_training):
    metadata = user_corpus / "metadata.csv"
    metadata.write_text(metadata.read_text().replace("genuine", "yes").replace("deepfake", "no"))
    assert run_script(output_dir=tmp_path / "out", dataset_name=user_corpus) == 2
    error = capsys.readouterr().err
    assert "--label_map" in error
    assert "yes" in error
    status = run_script(output_dir=tmp_path / "out", dataset_name=user_corpus, label_map=("yes=bonafide", "no=spoof"))
    assert status == stop_before_training


def test_a_split_of_one_class_is_told_before_training(run_script, tmp_path, user_corpus, capsys):
    metadata = user_corpus / "metadata.csv"
    rows = metadata.read_text().splitlines()
    kept = [row for row in rows if not (",validation," in row and "genuine" in row)]
    metadata.write_text("\n".join(kept) + "\n")
    assert run_script(output_dir=tmp_path / "out", dataset_name=user_corpus) == 2
    assert "validation" in capsys.readouterr().err
    assert not list(tmp_path.glob("out/checkpoint-*"))


@pytest.mark.parametrize("kept", ["genuine", pytest.param("deepfake", marks=pytest.mark.slow)])
def test_a_test_split_of_one_class_is_scored_without_an_error_rate(run_script, tmp_path, user_corpus, capsys, kept):
    metadata = user_corpus / "metadata.csv"
    header, *rows = metadata.read_text().splitlines()
    held_out = [row.replace("validation", "test").replace(".wav", "_.wav", 1) for row in rows if ",validation," in row]
    held_out = [row.replace("test_", "validation_", 1) for row in held_out if row.endswith(kept)]
    for row in held_out:
        name = row.split(",")[0]
        (user_corpus / name).write_bytes((user_corpus / name.replace("_.wav", ".wav")).read_bytes())
    metadata.write_text("\n".join([header, *rows, *held_out]) + "\n")
    out = tmp_path / "out"
    assert run_script("--align_gradients", output_dir=out, dataset_name=user_corpus) == 0
    printed = capsys.readouterr().out
    name = {"genuine": "bonafide", "deepfake": "spoof"}[kept]
    assert (
        f"Test split: All {len(held_out)} clips are {name}: they are scored, but there is no equal error rate."
        in printed
    )
    results = results_of(out)
    assert "test_eer" not in results
    assert results["test_loss"] > 0
    assert len((out / "scores_test.txt").read_text().splitlines()) == len(held_out)
    assert "eval_eer" in results


def test_the_command_to_compare_publishes_nothing(run_script, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(runner, "require_publishable", lambda args: None)
    monkeypatch.setattr(runner, "announce_hub", lambda args: setattr(args, "push_to_hub", False))
    monkeypatch.setattr(run_script.script.experiment, "publish_run", lambda args: "there")
    words = ("--push_to_hub", "--hub_model_id", "me/mine", "--hub_private_repo", "--run_name", "this-one")
    assert run_script("--align_gradients", *words, output_dir=tmp_path / "out") == 0
    [command] = [line for line in capsys.readouterr().out.splitlines() if "python scripts/run_audio_spoof.py" in line]
    assert "--align_gradients none" in command
    for word in ("push", "hub", "mine", "this-one", "out"):
        assert word not in command
    card = (tmp_path / "out" / "README.md").read_text()
    assert "--push_to_hub" not in card


def test_all_clips_but_one(run_script, tmp_path, user_corpus):
    assert run_script(output_dir=tmp_path / "out", dataset_name=user_corpus, max_train_samples=11) == 0


def test_corrupt_clips_stop_the_run_or_are_skipped(run_script, tmp_path, user_corpus, capsys, stop_before_training):
    for name in ("train_0.wav", "train_1.wav"):
        (user_corpus / name).write_bytes(b"not audio")
    assert run_script(output_dir=tmp_path / "out", dataset_name=user_corpus) == 2
    error = capsys.readouterr().err
    assert "train_0.wav" in error
    assert "train_1.wav" in error
    assert "--on_bad_audio skip" in error
    assert (
        run_script(output_dir=tmp_path / "out", dataset_name=user_corpus, on_bad_audio="skip") == stop_before_training
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataset_name": "no/such/folder"}, "no/such/folder"),
        ({"eval_split_name": "dev"}, "--eval_split_name"),
        ({"label_column_name": "key"}, "--label_column_name"),
        ({"augmentation": "rawbost"}, "rawboost"),
        ({"views": "clean,codek"}, "view 'codek': unknown augmentation 'codek': give one of rawboost"),
        (
            {"views": "clean,codec", "view_weights": '{"rawboost": 2}'},
            "--view_weights names rawboost, but the views are clean, codec",
        ),
        ({"model_name_or_path": "no/such/model"}, "no/such/model"),
    ],
)
def test_mistakes_end_with_a_message(run_script, tmp_path, capsys, monkeypatch, options, message):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert run_script(output_dir=tmp_path / "out", **options) == 2
    error = capsys.readouterr().err
    assert "error: " in error  # after a progress bar, if the dataset is read for the first time
    assert message in error
    assert not (tmp_path / "out" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("config_class", "model_class"),
    [
        (HubertConfig, HubertForSequenceClassification),
        pytest.param(WavLMConfig, WavLMForSequenceClassification, marks=pytest.mark.slow),
    ],
)
def test_any_wav2vec2_family_model(run_script, tmp_path, config_class, model_class):
    base = tmp_path / "base"
    model_class(config_class(**TINY)).save_pretrained(base)  # its labels, LABEL_0 and LABEL_1, say nothing
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(base)
    out = tmp_path / "out"
    assert run_script("--align_gradients", output_dir=out, model_name_or_path=base, bonafide_label="LABEL_1") == 0
    assert type(AutoModelForAudioClassification.from_pretrained(out)) is model_class
    assert results_of(out)["settings"]["training"]["learning_rate"] == 1e-5
    assert results_of(out)["settings"]["data"]["window_seconds"] == 0.5


@pytest.mark.slow
def test_three_weighted_views(run_script, tmp_path, capsys):
    out = tmp_path / "out"
    options = {"views": "clean,rawboost,codec", "view_weights": '{"codec": 0.5}', "logging_steps": 1}
    steps = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
    assert run_script("--align_gradients", output_dir=out, average_best_checkpoints=1, **steps, **options) == 0
    rows = json.loads((out / "trainer_state.json").read_text())["log_history"]
    row = next(row for row in rows if row["step"] == 2 and "loss" in row)
    for a, b in (("clean", "rawboost"), ("clean", "codec"), ("rawboost", "codec")):
        assert -1 <= row[f"cosine_{a}_{b}"] <= 1
        assert f"norm_ratio_{b}_{a}" in row
    assert {
        f"{what}_{view}" for what in ("weight", "loss", "grad_norm") for view in options["views"].split(",")
    } <= set(row)
    results = results_of(out)
    assert results["settings"]["views"] == {"clean": "clean", "rawboost": "rawboost", "codec": "codec"}
    assert results["settings"]["training"]["view_weights"] == {"codec": 0.5}
    assert 0 <= results["train_conflict_rate"] <= 1
    assert "any two of the views (clean, rawboost, codec) conflicted" in capsys.readouterr().out
    card = (out / "README.md").read_text()
    assert "clean (weight 1), rawboost (weight 1) and codec (weight 0.5), in three forward and backward passes" in card
    assert "--views clean,rawboost,codec" in card
    # A resumed run has the same views, and their draws go on where they were.
    again = tmp_path / "again"
    assert run_script("--resume_from_checkpoint", str(out / "checkpoint-1"), output_dir=again) == 0
    assert results_of(again)["settings"]["views"] == results["settings"]["views"]
    resumed = load_file(again / "model.safetensors")
    assert all(torch.equal(value, resumed[name]) for name, value in load_file(out / "model.safetensors").items())


@pytest.mark.parametrize("method", [pytest.param("none", marks=pytest.mark.slow), "pcgrad"])
def test_one_augmented_view(run_script, tmp_path, capsys, method):
    out = tmp_path / "out"
    assert run_script("--align_gradients", method, output_dir=out, views="rawboost", logging_steps=1) == 0
    results = results_of(out)
    assert results["train_conflict_rate"] is None
    assert results["train_conflict_rate_by_epoch"] == []
    rows = json.loads((out / "trainer_state.json").read_text())["log_history"]
    assert not any("conflict_rate" in row for row in rows)
    assert any("loss_rawboost" in row for row in rows)
    printed = capsys.readouterr().out
    assert "One view (rawboost), so no gradients to align" in printed
    assert "To compare" not in printed
    card = (out / "README.md").read_text()
    assert "once per step, in the view rawboost alone, so there were no gradients to align" in card


def test_reports_to_tensorboard(run_script, tmp_path):
    out = tmp_path / "out"
    assert run_script("--align_gradients", output_dir=out, report_to="tensorboard", logging_steps=1) == 0
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = next(out.rglob("events.out.tfevents*"))
    accumulator = EventAccumulator(str(events.parent))
    accumulator.Reload()
    assert {"train/conflict_rate", "eval/eer"} <= set(accumulator.Tags()["scalars"])
    # What the conflict record has of each update is there too.
    rows = [json.loads(line) for line in (out / "conflicts.jsonl").read_text().splitlines()]
    names = [name for name in rows[0] if name not in ("step", "epoch", "conflict")]
    assert len(names) == 8
    for name in names:
        scalars = [(event.step, event.value) for event in accumulator.Scalars(f"train/{name}")]
        assert scalars == [(row["step"], pytest.approx(row[name], rel=1e-4, abs=1e-6)) for row in rows], name


@pytest.mark.long
@pytest.mark.slow
def test_reports_to_trackio(tmp_path, quick_options, short_demo_corpus):
    # In a process of its own: trackio fixes its folder at import.
    command = [sys.executable, str(SCRIPT), "--align_gradients", "--report_to", "trackio", "--run_name", "mine"]
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio")}
    command += quick_options(output_dir=tmp_path / "out", logging_steps=1, dataset_name=short_demo_corpus)
    done = forked_python.run(command, environment)
    assert done.returncode == 0, done.stderr
    [database] = (tmp_path / "trackio").glob("*.db")
    with sqlite3.connect(database) as connection:
        rows = connection.execute("SELECT run_name, metrics FROM metrics").fetchall()
    assert {row[0] for row in rows} == {"mine"}
    logged = " ".join(str(row[1]) for row in rows)
    for name in ("conflict_rate", "cosine_clean_augmented", "norm_ratio_augmented_clean", "weight_clean", "loss_clean"):
        assert name in logged


def test_parquet_by_path(run_script, tmp_path, stop_before_training):
    corpus = load_corpus(None)
    for split in ("train", "validation"):
        rows = corpus[split].train_test_split(train_size=12, stratify_by_column="label", seed=0)["train"]
        rows.cast_column("audio", datasets.Audio(decode=False)).to_parquet(tmp_path / "data" / f"{split}.parquet")
    assert run_script(output_dir=tmp_path / "out", dataset_name=tmp_path / "data") == stop_before_training
