"""A measure of scores that are counted so many times is that of so many copies."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from score_samples import counted_clips

from hf_gradalign.metrics import (
    MEASURES,
    AsvErrorRates,
    DetectionCosts,
    RankedScores,
    accuracy_at_threshold,
    actual_detection_cost,
    decision_measures,
    detection_cost_measures,
    equal_error_rate,
    interpolated_equal_error_rate,
    log_likelihood_ratio_cost,
    min_detection_cost,
    min_tandem_detection_cost,
    roc_auc,
    tandem_measure,
)
from hf_gradalign.metrics.registry import as_measure, named_metrics

ASV = AsvErrorRates(0.02, 0.05, 0.4)
PLAIN = {
    "eer": equal_error_rate,
    "eer_interpolated": interpolated_equal_error_rate,
    "min_dcf": min_detection_cost,
    "act_dcf": actual_detection_cost,
    "cllr": log_likelihood_ratio_cost,
    "roc_auc": roc_auc,
    "min_tdcf": lambda scores, labels: min_tandem_detection_cost(scores, labels, ASV),
    "min_tdcf_2019": lambda scores, labels: min_tandem_detection_cost(scores, labels, ASV, form="2019"),
    "accuracy": lambda scores, labels: accuracy_at_threshold(scores, labels, 0.5),
}
ALL = [*MEASURES.values(), tandem_measure(ASV), tandem_measure(ASV, "2019"), decision_measures(0.5)[0]]


@pytest.mark.parametrize("measure", ALL, ids=lambda measure: measure.name)
@given(counted_clips())
def test_counts_are_as_good_as_copies(measure, clips):
    scores, labels, counts = map(np.array, clips)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = next(iter(PLAIN[measure.name](np.repeat(scores, counts), np.repeat(labels, counts)).values()))
    value = measure.of(RankedScores(scores, labels).counted(counts))
    assert value == pytest.approx(expected, rel=1e-12, abs=1e-15)


@given(counted_clips())
def test_counts_and_copies_have_the_same_threshold(clips):
    from hf_gradalign.metrics.functional.eer import interpolated_equal_error, official_equal_error

    scores, labels, counts = map(np.array, clips)
    counted = RankedScores(scores, labels).counted(counts)
    copies = RankedScores(np.repeat(scores, counts), np.repeat(labels, counts)).counted()
    for point in (official_equal_error, interpolated_equal_error):
        assert point(counted) == point(copies)


def test_measures_are_called_like_functions():
    scores, labels = [-2.0, -1.0, 0.5, 0.0, 1.0, 2.0], [0, 0, 0, 1, 1, 1]
    for measure in ALL:
        assert measure(scores, labels) == pytest.approx(next(iter(PLAIN[measure.name](scores, labels).values())))


def test_rates_are_shown_in_per_cent_and_costs_are_not():
    decided = decision_measures(0.5)
    rates = {"eer", "eer_interpolated", "roc_auc", *(measure.name for measure in decided)}
    for measure in (*ALL, *decided):
        assert measure.shown(0.125) == ("12.500" if measure.name in rates else "0.12500"), measure.name
        assert measure.is_better_higher == (measure.name in rates - {"eer", "eer_interpolated"}), measure.name
        assert measure.shown(np.nan) == "n/a"


def test_costs_can_be_others():
    minimum, actual = detection_cost_measures(DetectionCosts(p_spoof=0.5, c_fa=1))
    scores, labels = [-1.0, 0.5, 1.0], [0, 0, 1]
    assert minimum(scores, labels) == min_detection_cost(scores, labels, p_spoof=0.5, c_fa=1)["min_dcf"]
    assert actual(scores, labels) == actual_detection_cost(scores, labels, p_spoof=0.5, c_fa=1)["act_dcf"]


def test_what_goes_for_a_metric():
    assert as_measure("cllr") is MEASURES["cllr"] is as_measure(log_likelihood_ratio_cost)
    assert as_measure(lambda scores, labels: {"first": 2, "second": 3})([1.0], [1]) == 2.0
    with pytest.raises(ValueError, match="There is no metric 'EER'; there are eer, eer_interpolated"):
        as_measure("EER")
    assert list(named_metrics(["eer", roc_auc])) == ["eer", "roc_auc"]
    with pytest.raises(ValueError, match="Two metrics are called eer"):
        named_metrics(["eer", equal_error_rate])
