"""Metrics by the values of a column."""

import numpy as np
import pytest

from hf_gradalign.metrics import METRICS, break_down, equal_error_rate, equal_error_rate_by_system, tandem_metric
from hf_gradalign.metrics.functional.t_dcf import ASVSPOOF5_ASV

RNG = np.random.default_rng(1)
LABELS = np.repeat([1, 0, 0], 40)
SCORES = RNG.normal(size=120) + 2 * LABELS
ATTACKS = np.repeat(["-", "A10", "A9"], 40)
CODECS = np.array(["none", "opus"] * 60)


def test_attacks_are_compared_with_all_bonafide_clips():
    result = break_down("eer", SCORES, LABELS, ATTACKS)
    assert result.against == "all_bonafide"
    assert [group.value for group in result.groups] == ["A9", "A10"]  # in natural order
    assert {group.value: group.metrics["eer"] for group in result.groups} == equal_error_rate_by_system(
        SCORES, LABELS, ATTACKS
    )
    assert [(group.n_bonafide, group.n_spoof) for group in result.groups] == [(40, 40)] * 2


@pytest.mark.parametrize("bonafide", [None, "", "-", "bonafide", "human", float("nan")])
def test_the_bonafide_clips_of_attacks_may_be_called_anything(bonafide):
    attacks = [bonafide] * 40 + ["A1"] * 79 + [None]
    result = break_down("eer", SCORES, LABELS, attacks)
    assert result.against == "all_bonafide"
    assert [(group.value, group.n_spoof) for group in result.groups] == [("A1", 79), ("unknown", 1)]


def test_codecs_are_compared_within():
    result = break_down(["eer", "cllr"], SCORES, LABELS, CODECS)
    assert result.against == "within"
    for group in result.groups:
        own = group.value == CODECS
        assert group.metrics["eer"] == equal_error_rate(SCORES[own], LABELS[own])["eer"]
        assert group.metrics["cllr"] == METRICS["cllr"](SCORES[own], LABELS[own])
        assert (group.n_bonafide, group.n_spoof) == (20, 40)


def test_groups_of_one_class_are_listed():
    values = np.array(["both"] * 60 + ["spoof only"] * 60, dtype=object)
    values[:10] = "bona fide only"
    values[30] = None
    result = break_down("eer", SCORES, LABELS, values)
    by_name = {group.value: group for group in result.groups}
    assert list(by_name) == ["bona fide only", "both", "spoof only", "unknown"]
    assert np.isnan(by_name["spoof only"].metrics["eer"])
    assert np.isnan(by_name["bona fide only"].metrics["eer"])
    assert (by_name["unknown"].n_bonafide, by_name["unknown"].n_spoof) == (1, 0)
    assert by_name["both"].metrics["eer"] >= 0


def test_a_column_whose_values_are_of_one_class_each_is_compared_within():
    speakers = [f"bona fide {k % 2}" if label else f"spoof {k % 2}" for k, label in enumerate(LABELS)]
    result = break_down("eer", SCORES, LABELS, speakers)
    assert result.against == "within"
    assert [group.value for group in result.groups] == ["bona fide 0", "bona fide 1", "spoof 0", "spoof 1"]
    assert all(np.isnan(group.metrics["eer"]) for group in result.groups)


def test_the_comparison_can_be_chosen():
    result = break_down("eer", SCORES, LABELS, CODECS, against="all_bonafide")
    assert [(group.n_bonafide, group.n_spoof) for group in result.groups] == [(40, 40)] * 2
    within = break_down("eer", SCORES, LABELS, ATTACKS, against="within")
    assert all(np.isnan(group.metrics["eer"]) for group in within.groups)
    assert len(within.groups) == 3
    with pytest.raises(ValueError, match="all_bonafide or within, not 'both'"):
        break_down("eer", SCORES, LABELS, CODECS, against="both")


def test_any_metric():
    def spread(scores, labels):
        return float(np.ptp(scores))

    result = break_down([tandem_metric(ASVSPOOF5_ASV), spread], SCORES, LABELS, ATTACKS)
    own = (ATTACKS == "A9") | (LABELS == 1)
    assert result.groups[0].metrics["spread"] == np.ptp(SCORES[own])
    assert result.groups[0].metrics["min_tdcf"] == tandem_metric(ASVSPOOF5_ASV)(SCORES[own], LABELS[own])


def test_numbers_and_other_kinds_of_values():
    result = break_down("eer", SCORES, LABELS, [10, 9, 2] * 40)
    assert [group.value for group in result.groups] == ["2", "9", "10"]


def test_there_must_be_one_value_per_clip():
    with pytest.raises(ValueError, match="There are 120 scores but 1 values"):
        break_down("eer", SCORES, LABELS, ["A1"])


def test_each_system_is_scored_against_all_bonafide_clips():
    rng = np.random.default_rng(1)
    labels = np.repeat([1, 0, 0], 50)
    systems = np.array(["-"] * 50 + ["A02"] * 50 + ["A01"] * 50)
    scores = rng.normal(size=150) + np.repeat([2.0, 0.0, 1.5], 50)
    rates = equal_error_rate_by_system(scores, labels, systems)
    assert list(rates) == ["A01", "A02"]
    for name, rate in rates.items():
        chosen = (labels == 1) | (systems == name)
        assert rate == equal_error_rate(scores[chosen], labels[chosen])["eer"]
    assert rates["A02"] < rates["A01"]


def test_systems_of_bonafide_clips_are_ignored():
    rates = equal_error_rate_by_system([2.0, 3.0, 0.0, 1.0], [1, 1, 0, 0], ["A01", None, "A01", "A02"])
    assert rates == {"A01": 0.0, "A02": 0.0}


def test_spoofed_clips_without_a_name_are_unknown():
    rates = equal_error_rate_by_system([2.0, 0.0, 3.0, 1.0], [1, 0, 0, 0], ["-", None, "", 7])
    assert rates == {"7": 0.0, "unknown": 0.25}


def test_there_must_be_one_system_per_clip():
    with pytest.raises(ValueError, match="There are 3 scores but 2 systems"):
        equal_error_rate_by_system([1.0, 2.0, 3.0], [0, 1, 1], ["A01", "-"])


def test_systems_need_both_classes():
    with pytest.raises(ValueError, match="All 2 clips are spoofed"):
        equal_error_rate_by_system([1.0, 2.0], [0, 0], ["A01", "A02"])
