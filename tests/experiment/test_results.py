"""Scores and metrics of a run, and their table."""

import numpy as np
import pytest
import torch
from transformers import EvalPrediction

from hf_gradalign.experiment import RunResults, summary_table
from hf_gradalign.experiment.results import (
    CountermeasureMetrics,
    countermeasure_scores,
    error_rates_by_system,
    remarks_on,
)

LOGITS = np.array([[2.0, -1.0], [0.0, 1.5], [1.0, 1.0]], dtype=np.float32)


def test_scores_are_higher_for_bona_fide():
    assert countermeasure_scores(LOGITS).tolist() == [-3.0, 1.5, 0.0]
    assert countermeasure_scores((LOGITS, "hidden states")).tolist() == [-3.0, 1.5, 0.0]


@pytest.mark.parametrize("columns", [1, 3])
def test_scores_need_two_logits(columns):
    with pytest.raises(ValueError, match=rf"the logits have shape \(4, {columns}\), not \(N, 2\)"):
        countermeasure_scores(np.zeros((4, columns)))


def test_metrics_of_the_trainer():
    prediction = EvalPrediction(predictions=LOGITS, label_ids=np.array([0, 1, 0]))
    metrics = CountermeasureMetrics()(prediction)
    single = np.log(1 + np.exp([-3.0, -1.5, 0.0]))
    assert metrics == {"eer": 0.0, "eer_threshold": 0.0, "loss": pytest.approx(single.mean())}
    weighted = CountermeasureMetrics([0.1, 0.9])(prediction)
    assert weighted["loss"] == pytest.approx(np.average(single, weights=[0.1, 0.9, 0.1]))


def test_metrics_of_an_evaluation_that_comes_in_batches():
    metrics, labels = CountermeasureMetrics([0.1, 0.9]), np.array([0, 1, 0])
    whole = metrics(EvalPrediction(predictions=LOGITS, label_ids=labels))
    # With eval_do_concat_batches off the Trainer gives lists, of tuples where the model has further outputs.
    listed = [(LOGITS[:2], "hidden states"), (LOGITS[2:], "hidden states")]
    assert metrics(EvalPrediction(predictions=listed, label_ids=[labels[:2], labels[2:]])) == whole
    assert countermeasure_scores(listed).tolist() == countermeasure_scores(LOGITS).tolist()
    # With batch_eval_metrics it gives the batches one by one, as they are on the device.
    for _ in range(2):
        for part, last in ((slice(0, 2), False), (slice(2, 3), True)):
            logits, given = torch.from_numpy(LOGITS[part]).bfloat16(), torch.from_numpy(labels[part])
            result = metrics(EvalPrediction(predictions=logits, label_ids=given), compute_result=last)
            assert result == (whole if last else {})


def test_an_evaluation_that_was_broken_off_does_not_count():
    metrics, labels = CountermeasureMetrics(), np.array([0, 1, 0])
    prediction = EvalPrediction(predictions=LOGITS, label_ids=labels)
    metrics(prediction, compute_result=False)
    metrics.reset()
    assert metrics(prediction) == CountermeasureMetrics()(prediction)


def test_by_system():
    scores = np.array([1.0, 2.0, 0.0, 3.0])
    rates = error_rates_by_system(scores, [1, 1, 0, 0], ["-", "-", "A01", "A02"])
    assert rates == {"A01": 0.0, "A02": pytest.approx(1.0, abs=0.5)}
    assert rates["A02"] > 0.4
    assert error_rates_by_system(scores, [1, 1, 0, 0], None) == {}
    assert error_rates_by_system(scores, [1, 1, 0, 0], ["-", "-", None, None]) == {}  # In-the-Wild, FoR
    assert list(error_rates_by_system(scores, [1, 1, 0, 0], ["-", "-", "A01", None])) == ["A01", "unknown"]


def test_model_that_has_just_begun_to_learn_gets_no_warning(recwarn):
    inverted = EvalPrediction(predictions=LOGITS[[1, 0]], label_ids=np.array([0, 1]))
    assert CountermeasureMetrics()(inverted)["eer"] > 0.5
    tied = np.array([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    assert CountermeasureMetrics()(EvalPrediction(predictions=tied, label_ids=np.array([0, 1, 1])))["eer"] > 0
    assert not recwarn.list


def test_one_class_has_a_loss_and_no_error_rate():
    prediction = EvalPrediction(predictions=np.array([[1.0, 0.0], [0.0, 1.0]]), label_ids=np.array([0, 0]))
    metrics = CountermeasureMetrics()(prediction)
    assert set(metrics) == {"loss"}
    assert metrics["loss"] > 0
    assert error_rates_by_system(np.array([1.0, 2.0]), [1, 1], ["a", "b"]) == {}
    assert remarks_on(np.array([1.0, 2.0]), [1, 1]) == [
        "All 2 clips are bonafide: they are scored, but there is no equal error rate."
    ]


def test_scores_worse_than_chance_are_remarked_on():
    scores = np.linspace(-1, 1, 20)
    labels = [1] * 10 + [0] * 10
    [remark] = remarks_on(scores, labels)
    assert "is 1.0000, above 0.5: the scores may be inverted" in remark
    assert remarks_on(-scores, labels) == []


@pytest.mark.parametrize("labels", [[0, 1], [1, 1]])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_model_that_has_diverged_stops_the_run(labels, value):
    logits = np.array([[0.5, 0.25], [value, 0.0]])
    with pytest.raises(FloatingPointError, match="1 of 2 clips of the evaluation have a score that is NaN or infinite"):
        CountermeasureMetrics()(EvalPrediction(logits, np.array(labels)))


def make_results(**changes):
    values = {
        "metrics": {"eval_eer": 0.0312, "test_eer": 0.2104},
        "eer_by_system": {"eval": {"A01": 0.01}, "test": {"W01": 0.4}},
        "conflict_rate": 0.125,
        "conflict_rate_by_epoch": {0: 0.0, 1: 0.25},
        "averaged_checkpoints": 0,
        "nonfinite_updates": 0,
        "settings": {},
    }
    return RunResults(**{**values, **changes})


def test_per_cent_for_people():
    table = summary_table(make_results(), "pcgrad").splitlines()
    assert table[1].split() == ["validation", "3.12"]
    assert table[2].split() == ["A01", "1.00"]
    assert table[3].split() == ["test", "21.04"]
    assert table[5].endswith("alignment: pcgrad")
    assert table[6].split() == ["all", "12.50"]
    assert table[7].split() == ["by", "epoch", "0", "25"]
    assert len(table) == 8


def test_more_than_two_views_and_only_one():
    three = {"views": {"clean": "clean", "rawboost": "rawboost", "codec": "codec"}}
    table = summary_table(make_results(settings=three), "pcgrad")
    assert "Updates in which the gradients of any two of the views (clean, rawboost, codec) conflicted" in table
    one = make_results(settings={"views": {"codec": "codec"}}, conflict_rate=None, conflict_rate_by_epoch={})
    assert "One view (codec), so no gradients to align" in summary_table(one, "none")
    assert "conflicted" not in summary_table(one, "none")


def test_unknown_values_are_left_out():
    table = summary_table(make_results(metrics={"eval_eer": 0.5}, eer_by_system={}, conflict_rate=None), "none")
    assert "test" not in table
    assert "by epoch" not in table
    assert "3 updates had gradients that were not finite" in summary_table(make_results(nonfinite_updates=3), "none")
    table = summary_table(make_results(nonfinite_updates=3, skipped_updates=2), "none")
    assert "2 updates were skipped (--on_nonfinite skip)" in table


def test_remarks_come_last():
    table = summary_table(make_results(remarks=["Test split: odd."]), "pcgrad").splitlines()
    assert table[-1] == "Test split: odd."
