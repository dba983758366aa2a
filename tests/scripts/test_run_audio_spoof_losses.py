"""Runs with a loss with margins."""

import json

import numpy as np
import pytest
from tiny_detectors import make_detector

from hf_gradalign.data import load_corpus
from hf_gradalign.models import ARCHITECTURES, load_config
from hf_gradalign.models.losses import LOSSES
from hf_gradalign.scoring import SpoofScorer

MARGIN_LOSSES = [name for name in LOSSES if name != "cross_entropy"]


def check_scores(folder, loss):
    """Check that a run's scores are those of its saved model."""
    clips = load_corpus(None)["test"]
    scores = SpoofScorer(folder).score([dict(clip["audio"]) for clip in clips])
    found = dict(zip(clips["utterance_id"], scores.tolist(), strict=True))
    expected = {name: float(score) for name, score in map(str.split, (folder / "scores_test.txt").open())}
    np.testing.assert_allclose([found[name] for name in expected], list(expected.values()), atol=1e-4)
    if loss == "oc_softmax":
        assert all(-1 <= score <= 1 for score in expected.values())


@pytest.mark.parametrize(
    "loss", [loss if loss == "oc_softmax" else pytest.param(loss, marks=pytest.mark.slow) for loss in MARGIN_LOSSES]
)
def test_trains_saves_and_goes_on(run_script, tmp_path, loss, capsys):
    out, options = tmp_path / "out", json.dumps({"scale": 16})
    words = ["--head", "linear", "--loss", loss, "--loss_options", options, "--class_weights", "0.1", "0.9"]
    assert run_script("--align_gradients", *words, output_dir=out) == 0
    assert load_config(str(out), {}).loss_options == LOSSES[loss] | {"scale": 16}
    check_scores(out, loss)
    card = (out / "README.md").read_text()
    assert f"| loss | {loss.replace('_', chr(92) + '_')} (" in card or f"| loss | {loss} (" in card
    assert ("the score is a cosine" in card) == (loss == "oc_softmax")
    results = json.loads((out / "all_results.json").read_text())
    assert np.isfinite(results["eval_loss"])

    again = ["--model_name_or_path", str(out), "--lora_r", "2", "--head_learning_rate", "0.01"]
    assert run_script("--align_gradients", *again, output_dir=tmp_path / "more") == 0
    assert load_config(str(tmp_path / "more"), {}).loss == loss
    check_scores(tmp_path / "more", loss)
    resumed = ["--resume_from_checkpoint", str(out), "--loss_options", json.dumps({"scale": 17})]
    assert run_script(*resumed, output_dir=out) == 2
    assert "loss_options of the model" in capsys.readouterr().err


@pytest.mark.slow
def test_an_architecture_by_name(run_script, tmp_path, monkeypatch):
    small = {"channels": [4, 8], "graph_sizes": [8, 4]}
    monkeypatch.setitem(ARCHITECTURES, "aasist_l", small)
    words = ["--model_name_or_path", "aasist_l", "--loss", "oc_softmax"]
    short = {"window_seconds": 0.15, "eval_window_seconds": 0.15}  # the shortest for it; it is slow
    assert run_script("--align_gradients", *words, output_dir=tmp_path / "out", **short) == 0
    check_scores(tmp_path / "out", "oc_softmax")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--loss oc_softmax", "--loss oc_softmax needs a new head: also pass --head"),
        ("--model_name_or_path BASE --loss oc_softmax", "--loss oc_softmax needs a new head: also pass --head"),
        ("--head linear --loss oc_softmaks", "argument --loss: invalid choice: 'oc_softmaks'"),
        ("--head linear --loss_options {}", "--loss_options takes a JSON object and needs --loss"),
        ("--head linear --loss am_softmax --loss_options {", "--loss_options is not JSON"),
        ("--head linear --loss am_softmax --loss_options {\"scale\":0}", "scale of am_softmax must be positive, got 0"),
        ("--head linear --loss am_softmax --label_smoothing_factor 0.1", "--label_smoothing_factor is for the cross-"),
    ],
)  # fmt: skip
def test_mistakes(run_script, tmp_path, capsys, words, message):
    if "BASE" in words:
        make_detector(n_samples=8000).save_pretrained(tmp_path / "base")
        words = words.replace("BASE", str(tmp_path / "base"))
    try:
        status = run_script(*words.split(), output_dir=tmp_path / "out")
    except SystemExit as error:
        status = error.code
    assert status == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
