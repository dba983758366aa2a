"""The tandem detection cost and the verifier's error rates."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from score_samples import exact_rates, few_values, scored_clips

from hf_gradalign.metrics import (
    ASVSPOOF5_ASV,
    AsvErrorRates,
    TandemCosts,
    asv_error_rates,
    equal_error_rate,
    min_tandem_detection_cost,
)

# Random scores are often suspicious.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

ASV = AsvErrorRates(miss=0.02, false_alarm=0.05, spoof_false_alarm=0.4)
verifiers = st.builds(AsvErrorRates, st.floats(0, 0.3), st.floats(0, 0.3), st.floats(0.05, 1))


@given(scored_clips(values=few_values), verifiers)
def test_agrees_with_the_formulas_of_2021(clips, asv):
    p_target, p_nontarget, p_spoof = 0.95 * 0.99, 0.95 * 0.01, 0.05
    c0 = p_target * asv.miss + p_nontarget * 10 * asv.false_alarm
    c1, c2 = p_target - c0, p_spoof * 10 * asv.spoof_false_alarm
    tried = [(c0 + c1 * float(m) + c2 * float(a)) / (c0 + min(c1, c2)) for m, a in exact_rates(*clips)]
    assert min_tandem_detection_cost(*clips, asv)["min_tdcf"] == pytest.approx(min(tried), rel=1e-12)


@given(scored_clips(values=few_values), verifiers)
def test_agrees_with_the_formulas_of_2019(clips, asv):
    p_target, p_nontarget, p_spoof = 0.95 * 0.99, 0.95 * 0.01, 0.05
    c1 = p_target * (1 - asv.miss) - p_nontarget * 10 * asv.false_alarm
    c2 = 10 * p_spoof * asv.spoof_false_alarm
    tried = [(c1 * float(m) + c2 * float(a)) / min(c1, c2) for m, a in exact_rates(*clips)]
    assert min_tandem_detection_cost(*clips, asv, form="2019")["min_tdcf"] == pytest.approx(min(tried), rel=1e-12)


def test_a_perfect_countermeasure_costs_what_the_verifier_costs():
    scores, labels = [0.0, 1.0, 2.0, 3.0], [0, 0, 1, 1]
    c0, c2 = 0.9405 * 0.02 + 0.0095 * 10 * 0.05, 0.5 * 0.4
    result = min_tandem_detection_cost(scores, labels, ASV)
    assert result == {"min_tdcf": pytest.approx(c0 / (c0 + c2)), "threshold": 1.0}
    assert min_tandem_detection_cost(scores, labels, ASV, form="2019")["min_tdcf"] == 0.0


def test_other_costs():
    costs = TandemCosts(p_target=0.5, p_nontarget=0.3, p_spoof=0.2, c_miss=2, c_fa=3, c_fa_spoof=4)
    c0 = 0.5 * 2 * 0.02 + 0.3 * 3 * 0.05
    c1, c2 = 0.5 * 2 - c0, 0.2 * 4 * 0.4
    # One of two spoofs is accepted, or one of two bona fide clips is missed.
    scores, labels = [0.0, 1.0, 2.0, 3.0], [0, 1, 0, 1]
    expected = (c0 + min(c1, c2) / 2) / (c0 + min(c1, c2))
    assert min_tandem_detection_cost(scores, labels, ASV, costs=costs)["min_tdcf"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: min_tandem_detection_cost([0, 1], [0, 1], AsvErrorRates(2, 5, 40)), "not percentages"),
        (lambda: min_tandem_detection_cost([0, 1], [0, 1], ASV, form="2015"), "no form '2015'"),
        (
            lambda: min_tandem_detection_cost([0, 1], [0, 1], ASV._replace(spoof_false_alarm=0), form="2019"),
            "accepts no spoof",
        ),
        (lambda: min_tandem_detection_cost([0, 1], [0, 1], AsvErrorRates(1, 1, 0.5)), "no cost to normalize"),
        (lambda: TandemCosts(p_spoof=0.1), "must sum to 1"),
        (lambda: TandemCosts(c_fa=-1), "Costs must not be negative"),
    ],
)
def test_refuses_impossible_costs(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_verifier_is_fixed_at_its_equal_error_threshold():
    rng = np.random.default_rng(0)
    parts = {"target": rng.normal(size=40) + 3, "nontarget": rng.normal(size=60), "spoof": rng.normal(size=50) + 2}
    scores = np.concatenate(list(parts.values()))
    types = np.repeat(list(parts), [len(part) for part in parts.values()])
    order = rng.permutation(len(scores))
    rates = asv_error_rates(scores[order], types[order].tolist())
    both = np.isin(types, ["target", "nontarget"])
    threshold = equal_error_rate(scores[both], (types[both] == "target").astype(int))["threshold"]
    assert rates == AsvErrorRates(
        miss=np.mean(parts["target"] < threshold),
        false_alarm=np.mean(parts["nontarget"] >= threshold),
        spoof_false_alarm=np.mean(parts["spoof"] >= threshold),
    )


def test_a_trial_on_the_verifiers_threshold_is_accepted():
    # The threshold is a score: the non-target's 1.0, up to and including which the curve rejects.
    rates = asv_error_rates([0.0, 1.0, 2.0, 3.0, 1.0, 0.9], [*["nontarget"] * 2, *["target"] * 2, *["spoof"] * 2])
    assert rates == AsvErrorRates(miss=0.0, false_alarm=0.5, spoof_false_alarm=0.5)


def test_verifier_of_asvspoof5():
    assert ASVSPOOF5_ASV == (0.01880141010575793, 0.01881016557566423, 0.4607082907604729)


@pytest.mark.parametrize(
    ("scores", "types", "message"),
    [
        ([1, 2], ["target", "impostor"], r"Trial types must be target, nontarget, spoof, .* \['impostor'\]"),
        ([1, 2], ["target", "nontarget"], "None of the 2 trials is of type spoof"),
        ([1], ["target", "spoof"], "There are 1 scores but 2 trial types"),
        ([np.nan, 2, 3], ["target", "nontarget", "spoof"], "NaN or infinite"),
    ],
)
def test_refuses_other_trials(scores, types, message):
    with pytest.raises(ValueError, match=message):
        asv_error_rates(scores, types)
