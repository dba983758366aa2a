"""The cost of log-likelihood ratios."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from score_samples import scored_clips

from hf_gradalign.metrics import actual_detection_cost, log_likelihood_ratio_cost

# Random scores may all lie on one side of 0.
pytestmark = pytest.mark.filterwarnings("ignore:All scores lie on one side of 0")


@given(scored_clips(values=st.floats(-30, 30)))
def test_agrees_with_the_formula(clips):
    scores, labels = clips
    bonafide = [math.log2(1 + math.exp(-s)) for s, label in zip(scores, labels, strict=True) if label == 1]
    spoof = [math.log2(1 + math.exp(s)) for s, label in zip(scores, labels, strict=True) if label == 0]
    expected = (sum(bonafide) / len(bonafide) + sum(spoof) / len(spoof)) / 2
    assert log_likelihood_ratio_cost(scores, labels)["cllr"] == pytest.approx(expected, abs=1e-12)


def test_by_hand():
    assert log_likelihood_ratio_cost([0.0, 0.0], [0, 1]) == {"cllr": pytest.approx(1.0)}
    # Odds of 3 to 1 for the truth cost log2(4/3), and against it log2(4) = 2.
    assert log_likelihood_ratio_cost([math.log(3), math.log(3)], [1, 0])["cllr"] == pytest.approx(
        (math.log2(4 / 3) + 2) / 2
    )


def test_scores_of_any_size_do_not_overflow():
    with np.errstate(over="raise", invalid="raise"):
        assert log_likelihood_ratio_cost([1e4, -1e4], [1, 0])["cllr"] == 0.0
        assert log_likelihood_ratio_cost([1e4, -1e4], [0, 1])["cllr"] == pytest.approx(1e4 / math.log(2))
        assert log_likelihood_ratio_cost([1e300, -1e300], [0, 1])["cllr"] > 1e300


def test_classes_count_alike_whatever_their_size():
    scores, labels = [1.0, -2.0, 0.5], [1, 0, 0]
    more = log_likelihood_ratio_cost([*scores, *[1.0] * 9], [*labels, *[1] * 9])
    assert more["cllr"] == pytest.approx(log_likelihood_ratio_cost(scores, labels)["cllr"])


@pytest.mark.parametrize("function", [actual_detection_cost, log_likelihood_ratio_cost])
def test_probabilities_are_not_ratios(function):
    probabilities, labels = np.array([0.0, 0.3, 0.6, 1.0]), [0, 0, 1, 1]
    for scores, like in (
        (probabilities, ", as probabilities do,"),
        (probabilities - 1, ","),
        (100 * probabilities, ","),
    ):
        with pytest.warns(UserWarning, match=rf"\){like} but actDCF and Cllr are .* Calibrate the scores") as caught:
            function(scores, labels)
        assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        function(probabilities - 0.5, labels)
        function([0.0] * 4, labels)  # ratios that say nothing
