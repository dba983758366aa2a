"""The modules of `evaluate` return what the plain functions return, without a network."""

import json
import os
import re
import sys
from pathlib import Path

import forked_python
import numpy as np
import pytest

import hf_gradalign.metrics
from hf_gradalign.metrics import (
    AgnosticCosts,
    AsvErrorRates,
    accuracy_at_threshold,
    actual_detection_cost,
    equal_error_rate,
    interpolated_equal_error_rate,
    log_likelihood_ratio_cost,
    min_agnostic_detection_cost,
    min_detection_cost,
    min_tandem_detection_cost,
    roc_auc,
    spoof_acceptance_rate,
)

FOLDER = Path(hf_gradalign.metrics.__file__).parent
SCORES = [-2.0, -1.0, 0.5, 0.0, 1.0, 2.0]
LABELS = [0, 0, 0, 1, 1, 1]
TYPES = ["spoof", "nontarget", "spoof", "target", "target", "target"]
ASV = {"asv_miss": 0.02, "asv_false_alarm": 0.03, "asv_spoof_false_alarm": 0.4}
COSTS = {"p_spoof": 0.2, "c_miss": 2.0, "c_fa": 3.0}
MODULES = {
    "eer": (LABELS, {}, lambda: equal_error_rate(SCORES, LABELS)),
    "eer_interpolated": (LABELS, {}, lambda: interpolated_equal_error_rate(SCORES, LABELS)),
    "min_dcf": (LABELS, COSTS, lambda: min_detection_cost(SCORES, LABELS, **COSTS)),
    "act_dcf": (LABELS, COSTS, lambda: actual_detection_cost(SCORES, LABELS, **COSTS)),
    "cllr": (LABELS, {}, lambda: log_likelihood_ratio_cost(SCORES, LABELS)),
    "min_tdcf": (
        LABELS,
        {**ASV, "form": "2019"},
        lambda: min_tandem_detection_cost(SCORES, LABELS, AsvErrorRates(*ASV.values()), form="2019"),
    ),
    "a_dcf": (
        TYPES,
        {"c_fa_spoof": 5.0},
        lambda: min_agnostic_detection_cost(SCORES, TYPES, costs=AgnosticCosts(c_fa_spoof=5.0)),
    ),
    "auc": (LABELS, {}, lambda: roc_auc(SCORES, LABELS)),
    "accuracy_f1": (LABELS, {"threshold": 0.25}, lambda: accuracy_at_threshold(SCORES, LABELS, 0.25)),
    "spoof_acceptance": ([0] * 6, {"threshold": 0.25}, lambda: spoof_acceptance_rate(SCORES, [0] * 6, 0.25)),
}


@pytest.fixture
def load(tmp_path):
    import evaluate

    return lambda name: evaluate.load(str(FOLDER / name), cache_dir=str(tmp_path))


def test_every_folder_is_tested_here():
    assert {path.stem for path in FOLDER.glob("*/*.py") if path.stem == path.parent.name} == set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_returns_what_the_function_returns(load, name):
    references, options, function = MODULES[name]
    module = load(name)
    assert module.compute(prediction_scores=SCORES, references=references, **options) == function()
    assert "prediction_scores" in module.inputs_description
    assert module.description.strip()


@pytest.mark.parametrize("name", MODULES)
def test_the_example_in_the_description_is_correct(load, name):
    module = load(name)
    lines = re.findall(r"^\s+(?:>>>|\.\.\.) (.*)$", module.inputs_description, re.MULTILINE)
    assert lines[0].split(" = ")[1] in (f'evaluate.load("hf_gradalign/metrics/{name}")',)
    scope = {lines[0].split(" = ")[0]: module}
    *statements, call = "\n".join(lines[1:]).replace(",\n", ", ").splitlines()
    for statement in statements:
        exec(statement, scope)
    assert f"\n    {eval(call, scope)!r}\n" in module.inputs_description


@pytest.mark.slow
def test_loads_offline_in_a_fresh_process(tmp_path):
    program = (
        "import sys, json, hf_gradalign, evaluate\n"
        "scores, labels = map(json.loads, sys.argv[2:])\n"
        "result = evaluate.load(sys.argv[1]).compute(prediction_scores=scores, references=labels)\n"
        "print(json.dumps(result))"
    )
    offline = {"HF_HUB_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    command = [sys.executable, "-c", program, FOLDER / "eer", json.dumps(SCORES), json.dumps(LABELS)]
    done = forked_python.run(command, {**os.environ, **offline})
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == equal_error_rate(SCORES, LABELS)


def test_batches_add_up(load):
    eer = load("eer")
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=90).astype(np.float32), rng.integers(0, 2, size=90)
    for start in range(0, 90, 32):
        eer.add_batch(prediction_scores=scores[start : start + 32], references=labels[start : start + 32])
    assert eer.compute() == equal_error_rate(scores, labels)


def test_takes_integers(load):
    assert load("eer").compute(prediction_scores=[1, 3, 2, 4], references=[0, 0, 1, 1]) == {
        "eer": 0.5,
        "threshold": 2.0,
    }


def test_errors_reach_the_user(load):
    with pytest.raises(ValueError, match="All 2 clips are spoofed"):
        load("eer").compute(prediction_scores=[1.0, 2.0], references=[0, 0])
