"""The equal error rate against an explicit definition, its invariances, and what it refuses."""

import warnings
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from score_samples import exact_rates, finite, scored_clips

from hf_gradalign.metrics import detection_error_curve, equal_error_rate

# Random scores are often suspicious.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def error_rates_at(threshold, scores, labels):
    """Both rates of one threshold, exactly: a clip is rejected up to and including it."""
    bonafide = [score for score, label in zip(scores, labels, strict=True) if label == 1]
    spoof = [score for score, label in zip(scores, labels, strict=True) if label == 0]
    rejected = Fraction(sum(score <= threshold for score in bonafide), len(bonafide))
    accepted = Fraction(sum(score > threshold for score in spoof), len(spoof))
    return rejected, accepted


@given(scored_clips(unique=True))
def test_agrees_with_trying_every_threshold(clips):
    scores, labels = clips
    tried = [error_rates_at(threshold, scores, labels) for threshold in [min(scores) - 1, *sorted(scores)]]
    smallest_gap = min(abs(rejected - accepted) for rejected, accepted in tried)
    # Two neighbors can be equally close. Either is fine, depending on rounding.
    candidates = [float((r + a) / 2) for r, a in tried if abs(r - a) == smallest_gap]
    result = equal_error_rate(scores, labels)
    assert min(abs(result["eer"] - candidate) for candidate in candidates) < 1e-12
    rejected, accepted = error_rates_at(result["threshold"], scores, labels)
    assert abs(rejected - accepted) == smallest_gap


@given(scored_clips(values=st.integers(-3, 3)))
def test_tied_scores_are_walked_bonafide_first(clips):
    scores, labels = clips
    walked = [(float(rejected), float(accepted)) for rejected, accepted in exact_rates(scores, labels)]
    curve = detection_error_curve(scores, labels)
    assert list(zip(curve.false_rejection_rate, curve.false_acceptance_rate, strict=True)) == walked
    gaps = [abs(rejected - accepted) for rejected, accepted in walked]
    index = gaps.index(min(gaps))
    # No tolerance: rounding decides between points that are equally close, and it must decide as in the published code.
    expected = {"eer": sum(walked[index]) / 2, "threshold": curve.thresholds[index]}
    assert equal_error_rate(scores, labels) == expected


@given(scored_clips(values=st.integers(-1000, 1000)), st.sampled_from([np.exp, np.cbrt, lambda x: 3 * x - 7]))
def test_does_not_depend_on_the_scale_of_the_scores(clips, increasing):
    scores, labels = np.array(clips[0]) / 100, clips[1]
    assert equal_error_rate(increasing(scores), labels)["eer"] == equal_error_rate(scores, labels)["eer"]


@given(scored_clips(), st.randoms(use_true_random=False))
def test_does_not_depend_on_the_order_of_the_clips(clips, random):
    scores, labels = clips
    shuffled = random.sample(range(len(scores)), len(scores))
    expected = equal_error_rate(scores, labels)
    assert equal_error_rate([scores[i] for i in shuffled], [labels[i] for i in shuffled]) == expected


def test_hand_made_values():
    # Rejecting up to 0.0 misses one of three bona fide clips and accepts one of three spoofed ones (0.5).
    result = equal_error_rate([-2.0, -1.0, 0.5, 0.0, 1.0, 2.0], [0, 0, 0, 1, 1, 1])
    assert result == {"eer": pytest.approx(1 / 3), "threshold": 0.0}
    # One bona fide clip against two spoofed ones, one on each side: (0 + 1/2) / 2 before it, (1 + 1/2) / 2 after it.
    assert equal_error_rate([1, 2, 3], [0, 1, 0]) == {"eer": 0.25, "threshold": 1.0}


def test_perfect_inverted_and_random_scores():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 2000)
    assert equal_error_rate(labels, labels) == {"eer": 0.0, "threshold": 0.0}
    assert equal_error_rate(1 - labels, labels)["eer"] == 1.0
    assert equal_error_rate(rng.normal(size=4000), labels)["eer"] == pytest.approx(0.5, abs=0.03)


def test_ties_between_the_classes_count_against_the_detector():
    assert equal_error_rate([0, 1, 1, 2], [0, 1, 0, 1])["eer"] == 0.5


def test_curve_runs_from_accepting_all_to_rejecting_all():
    curve = detection_error_curve([3.0, 1.0, 2.0], [1, 0, 1])
    np.testing.assert_allclose(curve.thresholds, [0.999, 1, 2, 3])
    np.testing.assert_allclose(curve.false_rejection_rate, [0, 0, 0.5, 1])
    np.testing.assert_allclose(curve.false_acceptance_rate, [1, 0, 0, 0])


@pytest.mark.parametrize(
    "kind",
    [list, tuple, lambda x: np.array(x, dtype=np.float32), lambda x: np.array(x, dtype=np.int8), torch.tensor],
)
@pytest.mark.parametrize("label_kind", [list, lambda x: np.array(x, dtype=bool), lambda x: np.array(x, dtype=float)])
def test_takes_any_array_and_returns_python_floats(kind, label_kind):
    result = equal_error_rate(kind([1, 3, 2, 4]), label_kind([0, 0, 1, 1]))
    assert result == {"eer": 0.5, "threshold": 2.0}
    assert [type(value) for value in result.values()] == [float, float]


def test_single_precision_scores_are_ranked_in_double_precision():
    # 0.001 below a hundred thousand does not exist in single precision.
    curve = detection_error_curve(np.array([1e5, 2e5], dtype=np.float32), [0, 1])
    assert curve.thresholds.tolist() == [1e5 - 0.001, 1e5, 2e5]


@settings(max_examples=20)
@given(finite, st.integers(1, 5), st.integers(1, 5))
def test_equal_scores_carry_no_information(score, n_bonafide, n_spoof):
    with pytest.warns(UserWarning, match=r"All \d+ scores are equal .* carry no information"):
        result = equal_error_rate([score] * (n_bonafide + n_spoof), [1] * n_bonafide + [0] * n_spoof)
    assert result == {"eer": 0.5, "threshold": score}


def test_ordinary_scores_do_not_warn():
    rng = np.random.default_rng(3)
    labels = np.repeat([0, 1], 50)
    scores = np.round(rng.normal(size=100) + 2 * labels, 6)
    scores[:4] = 0.25  # a tie within a class does not matter
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        equal_error_rate(scores, labels)


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([1.0, 2.0], [0, 1, 1], "There are 2 scores but 3 labels"),
        ([], [], "There are no scores"),
        ([1.0, np.nan, np.inf], [0, 1, 1], r"2 of 3 scores are NaN or infinite \(the first at position 1\)"),
        ([1.0, 2.0, 3.0], [0, 1, 2], r"must be 1 \(bona fide\) or 0 \(spoof\), but these were found: 0, 1, 2\."),
        ([1.0, 2.0], ["spoof", "bonafide"], "these were found: 'bonafide', 'spoof'"),
        ([1.0, 2.0], [1, 1], "All 2 clips are bona fide: .* at least one spoofed clip"),
        ([1.0, 2.0], [0, 0], "All 2 clips are spoofed: .* at least one bona fide clip"),
        ([[1.0, 2.0], [0.0, 1.0]], [0, 1], r"one dimension.*shapes \(2, 2\) and \(2,\)"),
        (list(range(12)), list(range(12)), r"found: 0, 1, 10, 11, 2, 3, 4, 5, 6, 7, \.\.\.\."),
    ],
)
def test_errors_say_what_is_wrong(scores, labels, message):
    with pytest.raises(ValueError, match=message):
        equal_error_rate(scores, labels)
