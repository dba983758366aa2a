"""A metric of counted scores equals that of as many copies."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from score_samples import counted_clips

from hf_gradalign.metrics import (
    METRICS,
    AsvErrorRates,
    DetectionCosts,
    RankedScores,
    accuracy_at_threshold,
    actual_detection_cost,
    decision_metrics,
    detection_cost_metrics,
    equal_error_rate,
    log_likelihood_ratio_cost,
    min_detection_cost,
    min_tandem_detection_cost,
    roc_auc,
    tandem_metric,
)
from hf_gradalign.metrics.registry import as_metric, named_metrics

ASV = AsvErrorRates(0.02, 0.05, 0.4)
PLAIN = {
    **{name: metric.function for name, metric in METRICS.items()},
    "min_tdcf": lambda scores, labels: min_tandem_detection_cost(scores, labels, ASV),
    "min_tdcf_2019": lambda scores, labels: min_tandem_detection_cost(scores, labels, ASV, form="2019"),
    "accuracy": lambda scores, labels: accuracy_at_threshold(scores, labels, 0.5),
}
ALL = [*METRICS.values(), tandem_metric(ASV), tandem_metric(ASV, "2019"), decision_metrics(0.5)[0]]


@given(counted_clips())
def test_counts_are_as_good_as_copies(clips):
    scores, labels, counts = map(np.array, clips)
    counted = RankedScores(scores, labels).counted(counts)
    copies = np.repeat(scores, counts), np.repeat(labels, counts)
    for metric in ALL:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = next(iter(PLAIN[metric.name](*copies).values()))
        assert metric.compute(counted) == pytest.approx(expected, rel=1e-12, abs=1e-15), metric.name


@given(counted_clips())
def test_counts_and_copies_have_the_same_threshold(clips):
    from hf_gradalign.metrics.functional.eer import interpolated_equal_error, official_equal_error

    scores, labels, counts = map(np.array, clips)
    counted = RankedScores(scores, labels).counted(counts)
    copies = RankedScores(np.repeat(scores, counts), np.repeat(labels, counts)).counted()
    for point in (official_equal_error, interpolated_equal_error):
        assert point(counted) == point(copies)


def test_metrics_are_called_like_functions():
    scores, labels = [-2.0, -1.0, 0.5, 0.0, 1.0, 2.0], [0, 0, 0, 1, 1, 1]
    for metric in ALL:
        assert metric(scores, labels) == pytest.approx(next(iter(PLAIN[metric.name](scores, labels).values())))


def test_rates_are_percentages_and_costs_are_not():
    decided = decision_metrics(0.5)
    rates = {"eer", "eer_interpolated", "roc_auc", *(metric.name for metric in decided)}
    costs = {"min_dcf", "act_dcf", "cllr", "min_tdcf", "min_tdcf_2019"}
    errors = {"eer", "eer_interpolated", "false_rejection_rate", "false_acceptance_rate"}
    metrics = {metric.name: metric for metric in (*ALL, *decided)}
    for name in rates | costs:
        assert metrics[name].format(0.125) == ("12.500" if name in rates else "0.12500"), name
        assert metrics[name].higher_is_better == (name in rates - errors), name
    assert {metric.format(np.nan) for metric in metrics.values()} == {"n/a"}
    assert [METRICS["cllr"].format(value) for value in (-1e-9, -0.1)] == ["0.00000", "-0.10000"]
    assert METRICS["eer"].format(-1e-9) == "0.000"


def test_costs_can_be_changed():
    minimum, actual = detection_cost_metrics(DetectionCosts(p_spoof=0.5, c_fa=1))
    scores, labels = [-1.0, 0.5, 1.0], [0, 0, 1]
    assert minimum(scores, labels) == min_detection_cost(scores, labels, p_spoof=0.5, c_fa=1)["min_dcf"]
    assert actual(scores, labels) == actual_detection_cost(scores, labels, p_spoof=0.5, c_fa=1)["act_dcf"]


def test_what_counts_as_a_metric():
    assert as_metric("cllr") is METRICS["cllr"] is as_metric(log_likelihood_ratio_cost)
    assert as_metric(lambda scores, labels: {"first": 2, "second": 3})([1.0], [1]) == 2.0
    with pytest.raises(ValueError, match=r"There is no metric 'EER'\. Available metrics: eer, eer_interpolated"):
        as_metric("EER")
    assert list(named_metrics(["eer", roc_auc])) == ["eer", "roc_auc"]
    with pytest.raises(ValueError, match="Two metrics are named eer"):
        named_metrics(["eer", equal_error_rate])
