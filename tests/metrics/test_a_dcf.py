"""The architecture-agnostic detection cost."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_gradalign.metrics import ASVSPOOF5_AGNOSTIC_COSTS, TRIAL_TYPES, AgnosticCosts, min_agnostic_detection_cost


@st.composite
def trials(draw):
    types = [*TRIAL_TYPES, *draw(st.lists(st.sampled_from(TRIAL_TYPES), max_size=12))]
    return draw(st.lists(st.integers(-3, 3), min_size=len(types), max_size=len(types))), types


@given(trials(), st.sampled_from([AgnosticCosts(), ASVSPOOF5_AGNOSTIC_COSTS]))
def test_agrees_with_rejecting_trial_by_trial(given_trials, costs):
    scores, types = given_trials
    ranking = sorted(zip(scores, types, strict=True), key=lambda trial: (trial[0], TRIAL_TYPES.index(trial[1])))
    left = {name: types.count(name) for name in TRIAL_TYPES}
    weights = (costs.c_fa_nontarget * costs.p_nontarget, costs.c_fa_spoof * costs.p_spoof)
    tried = []
    for place in range(len(ranking) + 1):
        if place:
            left[ranking[place - 1][1]] -= 1
        share = {name: left[name] / types.count(name) for name in TRIAL_TYPES}
        miss = costs.c_miss * costs.p_target * (1 - share["target"])
        tried.append(miss + weights[0] * share["nontarget"] + weights[1] * share["spoof"])
    expected = min(tried) / min(sum(weights), costs.c_miss * costs.p_target)
    assert min_agnostic_detection_cost(scores, types, costs=costs)["a_dcf"] == pytest.approx(expected, rel=1e-12)


def test_by_hand():
    scores, types = [3.0, 2.0, 1.0, 0.0], ["target", "spoof", "target", "nontarget"]
    # Rejecting all but the best misses half the targets: 0.9 / 2. Rejecting only the non-target accepts the spoof:
    # 20 * 0.05 = 1. Normalized by min(0.9, 0.5 + 1).
    result = min_agnostic_detection_cost(scores, types)
    assert result == {"a_dcf": pytest.approx(0.5), "threshold": 2.0}
    # If a spoof costs half as much, accepting it costs 0.5 of min(0.9405, 0.095 + 0.5).
    result = min_agnostic_detection_cost(scores, types, costs=ASVSPOOF5_AGNOSTIC_COSTS)
    assert result == {"a_dcf": pytest.approx(0.9405 / 2 / 0.595), "threshold": 2.0}


def test_default_costs_are_the_papers():
    # The spoof scores highest: accepting it costs 20 * 0.05 = 1, more than rejecting all trials, 0.9.
    result = min_agnostic_detection_cost([1, 2, 3, 0], ["target", "target", "spoof", "nontarget"])
    assert result == {"a_dcf": pytest.approx(1.0), "threshold": 3.0}
    # At half the cost it is better to accept it.
    costs = AgnosticCosts(c_fa_spoof=10.0)
    result = min_agnostic_detection_cost([1, 2, 3, 0], ["target", "target", "spoof", "nontarget"], costs=costs)
    assert result == {"a_dcf": pytest.approx(0.5 / 0.9), "threshold": 0.0}


def test_among_equals_targets_are_rejected_first():
    result = min_agnostic_detection_cost([1, 1, 0, 2], ["target", "spoof", "nontarget", "target"])
    assert result == {"a_dcf": pytest.approx(0.9 / 2 / 0.9), "threshold": 1.0}


def test_accepting_all_has_a_threshold_below_all():
    costs = AgnosticCosts(c_fa_nontarget=0.1, c_fa_spoof=0.1)
    result = min_agnostic_detection_cost([1.0, 2.0, 3.0], ["target", "nontarget", "spoof"], costs=costs)
    assert result == {"a_dcf": pytest.approx(1.0), "threshold": 1 - 1e-8}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"p_spoof": 0.5}, "must sum to 1"),
        ({"c_miss": -1.0}, "Costs must not be negative"),
        ({"c_miss": 0.0}, "must cost something"),
    ],
)
def test_refuses_other_costs(changes, message):
    with pytest.raises(ValueError, match=message):
        AgnosticCosts(**changes)


def test_one_kind_of_false_alarm_may_cost_nothing():
    assert AgnosticCosts(c_fa_nontarget=0.0).default == 0.9  # rejecting all
    assert AgnosticCosts(c_fa_spoof=0.0).default == pytest.approx(10 * 0.05)


def test_needs_all_three_types():
    with pytest.raises(ValueError, match="of type nontarget"):
        min_agnostic_detection_cost(np.arange(3), ["target", "spoof", "target"])
