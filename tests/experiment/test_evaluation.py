import numpy as np
import pytest
import torch
from transformers import EvalPrediction

from hf_gradalign.experiment.evaluation import (
    CountermeasureMetrics,
    countermeasure_scores,
    error_rates_by_system,
    remarks_on,
)

LOGITS = np.array([[2.0, -1.0], [0.0, 1.5], [1.0, 1.0]], dtype=np.float32)


def test_scores_are_higher_for_bona_fide():
    assert countermeasure_scores(LOGITS).tolist() == [-3.0, 1.5, 0.0]
    assert countermeasure_scores((LOGITS, "hidden states")).tolist() == [-3.0, 1.5, 0.0]


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


def test_a_model_that_has_only_begun_to_learn_is_not_told_off(recwarn):
    inverted = EvalPrediction(predictions=LOGITS[[1, 0]], label_ids=np.array([0, 1]))
    assert CountermeasureMetrics()(inverted)["eer"] > 0.5
    assert not recwarn.list


def test_one_class_has_a_loss_and_no_error_rate():
    prediction = EvalPrediction(predictions=np.array([[1.0, 0.0], [0.0, 1.0]]), label_ids=np.array([0, 0]))
    metrics = CountermeasureMetrics()(prediction)
    assert set(metrics) == {"loss"}
    assert metrics["loss"] > 0
    assert error_rates_by_system(np.array([1.0, 2.0]), [1, 1], ["a", "b"]) == {}
    assert remarks_on(np.array([1.0, 2.0]), [1, 1]) == [
        "All 2 clips are bonafide: they are scored, and there is no equal error rate."
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
