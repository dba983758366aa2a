"""The `evaluate` module gives what the plain function gives, without a network."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import hf_gradalign.metrics
from hf_gradalign.metrics import equal_error_rate

MODULE = Path(hf_gradalign.metrics.__file__).parent / "eer"
SCORES = [-2.0, -1.0, 0.5, 0.0, 1.0, 2.0]
LABELS = [0, 0, 0, 1, 1, 1]


@pytest.fixture
def eer(tmp_path):
    import evaluate

    return evaluate.load(str(MODULE), cache_dir=str(tmp_path))


def test_loads_offline_in_a_fresh_process(tmp_path):
    program = (
        "import sys, json, hf_gradalign, evaluate\n"
        "scores, labels = map(json.loads, sys.argv[2:])\n"
        "result = evaluate.load(sys.argv[1]).compute(prediction_scores=scores, references=labels)\n"
        "print(json.dumps(result))"
    )
    offline = {"HF_HUB_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program, str(MODULE), json.dumps(SCORES), json.dumps(LABELS)],
        env={**os.environ, **offline},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == equal_error_rate(SCORES, LABELS)


def test_batches_add_up(eer):
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=90).astype(np.float32), rng.integers(0, 2, size=90)
    for start in range(0, 90, 32):
        eer.add_batch(prediction_scores=scores[start : start + 32], references=labels[start : start + 32])
    assert eer.compute() == equal_error_rate(scores, labels)


def test_takes_integers(eer):
    assert eer.compute(prediction_scores=[1, 3, 2, 4], references=[0, 0, 1, 1]) == {"eer": 0.5, "threshold": 2.0}


def test_example_of_the_description_holds(eer):
    result = eer.compute(prediction_scores=SCORES, references=LABELS)
    assert repr(result) in eer.inputs_description
    assert "prediction_scores" in eer.inputs_description
    assert "ASVspoof" in eer.citation


def test_errors_reach_the_user(eer):
    with pytest.raises(ValueError, match="All 2 clips are spoofed"):
        eer.compute(prediction_scores=[1.0, 2.0], references=[0, 0])
