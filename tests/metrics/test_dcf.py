"""Costs of ASVspoof 5, track 1."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from score_samples import exact_rates, few_values, scored_clips

from hf_gradalign.metrics import DetectionCosts, actual_detection_cost, min_detection_cost

# Random scores are often suspicious.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

costs = st.fixed_dictionaries(
    {"p_spoof": st.floats(0.01, 0.99), "c_miss": st.floats(0.1, 20), "c_fa": st.floats(0.1, 20)}
)


@given(scored_clips(values=few_values), costs)
def test_min_dcf_is_the_least_cost_on_the_walk(clips, given_costs):
    p_spoof, c_miss, c_fa = (given_costs[name] for name in ("p_spoof", "c_miss", "c_fa"))
    tried = [c_miss * (1 - p_spoof) * float(m) + c_fa * p_spoof * float(a) for m, a in exact_rates(*clips)]
    expected = min(tried) / min(c_miss * (1 - p_spoof), c_fa * p_spoof)
    result = min_detection_cost(*clips, **given_costs)
    assert result["min_dcf"] == pytest.approx(expected, rel=1e-12)
    assert 0 <= result["min_dcf"] <= 1 + 1e-12


def test_min_dcf_by_hand():
    scores, labels = [-2, -1, 0.5, 0, 1, 2], [0, 0, 0, 1, 1, 1]
    # Rejecting up to -1 accepts one of three spoofs: 10 * 0.05 / 3 = 1/6. Up to 0.5 misses one of three bona fide:
    # 0.95 / 3. Divided by 0.5.
    assert min_detection_cost(scores, labels) == {"min_dcf": pytest.approx(1 / 3, rel=1e-15), "threshold": -1.0}
    # If misses cost little, all clips but the best are rejected.
    result = min_detection_cost(scores, labels, c_miss=0.1)
    assert result == {"min_dcf": pytest.approx(1 / 3), "threshold": 0.5}


def test_ties_between_the_classes_count_against_the_detector():
    # Of the two clips at 1, the bona fide one is rejected first, so half of the spoofs are accepted, and not none.
    with pytest.warns(UserWarning, match="share scores"):
        assert min_detection_cost([0, 1, 1, 2], [0, 1, 0, 1])["min_dcf"] == pytest.approx(0.5)


def test_accepting_everything_has_a_threshold_below_all():
    with pytest.warns(UserWarning, match="may be inverted"):
        result = min_detection_cost([1.0, 2.0, 3.0, 4.0], [1, 1, 0, 0])
    assert result == {"min_dcf": 1.0, "threshold": 0.999}


def test_actual_dcf_by_hand():
    threshold = -math.log(0.95 / 0.5)
    assert threshold == pytest.approx(-0.6419, abs=1e-4)
    # A score equal to the threshold is accepted, in either class.
    scores = [threshold, threshold - 1e-9, 3.0, threshold, -5.0]
    result = actual_detection_cost(scores, [1, 1, 1, 0, 0])
    assert result == {"act_dcf": pytest.approx((0.95 / 3 + 0.5 / 2) / 0.5), "threshold": threshold}


@given(scored_clips(), costs)
def test_actual_dcf_is_not_less_than_the_minimum(clips, given_costs):
    minimum, actual = min_detection_cost(*clips, **given_costs), actual_detection_cost(*clips, **given_costs)
    # The walk also has points between equal scores, which no threshold reaches. They are no better than their ends.
    assert actual["act_dcf"] >= minimum["min_dcf"] - 1e-12


def test_actual_dcf_depends_on_calibration_and_the_minimum_does_not():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 500)
    ratios = 4 * (rng.normal(size=1000) + 2 * labels - 1)  # the true log-likelihood ratio of two normals is linear
    good, shifted = (actual_detection_cost(scores, labels)["act_dcf"] for scores in (ratios, ratios + 20))
    assert shifted == pytest.approx(1.0, abs=0.01)
    assert good < 0.6
    assert min_detection_cost(ratios, labels)["min_dcf"] == min_detection_cost(ratios + 20, labels)["min_dcf"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"p_spoof": 0.0}, "p_spoof must be a probability between 0 and 1, not 0.0"),
        ({"p_spoof": 1}, "between 0 and 1, not 1"),
        ({"c_fa": 0}, "Costs must be positive, but c_miss is 1.0 and c_fa is 0"),
        ({"c_miss": 0}, "Costs must be positive, but c_miss is 0 and"),
    ],
)
def test_refuses_other_costs(changes, message):
    with pytest.raises(ValueError, match=message):
        DetectionCosts(**changes)
    with pytest.raises(ValueError, match=message):
        min_detection_cost([0.0, 1.0], [0, 1], **changes)
