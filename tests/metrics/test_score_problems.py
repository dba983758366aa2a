"""Suspicious but valid scores make warnings, and ordinary ones do not."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from score_samples import few_values, scored_clips

from hf_gradalign.metrics import (
    RankedScores,
    equal_error_rate,
    interpolated_equal_error_rate,
    min_detection_cost,
    roc_auc,
    score_problems,
)

# Random scores are often suspicious.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

LABELS = np.repeat([0, 1], 100)
RNG = np.random.default_rng(0)
GOOD = RNG.normal(size=200) + 2 * LABELS


def problems(scores, labels=LABELS):
    return score_problems(RankedScores(scores, labels).counted())


def test_ordinary_scores_have_none():
    assert problems(GOOD) == []
    assert problems(np.round(GOOD, 6)) == []
    assert problems(-GOOD + 2 * GOOD) == []


def test_inverted_scores():
    (problem,) = problems(-GOOD)
    assert "above 0.5: the scores may be inverted" in problem
    assert f"{equal_error_rate(GOOD, 1 - LABELS)['eer']:.4f}" in problem


def test_decisions_in_place_of_scores():
    decisions = (GOOD > 1).astype(int)
    (problem,) = problems(decisions)
    assert problem.startswith("There are only two different scores (0 and 1). They look like decisions")
    assert any("decisions" in text for text in problems(1 - decisions))
    # With a handful of clips, two different scores are normal.
    assert problems([0.0, 0.0, 1.0], [0, 0, 1]) == []


def test_ties_between_the_classes_make_a_warning_if_they_matter():
    (problem,) = problems(np.round(GOOD))
    assert "Clips of both classes share scores" in problem
    saturated = (1 / (1 + np.exp(-50 * (GOOD - 3)))).round(3)  # probabilities of an overconfident model
    assert any("share scores" in text for text in problems(saturated))
    # One tie far from the equal error point moves nothing.
    far_off = GOOD.copy()
    far_off[np.argsort(GOOD)[0]] = far_off[LABELS == 1].min() - 5
    far_off[np.flatnonzero(LABELS)[0]] = far_off.min()
    assert problems(far_off) == []


@given(scored_clips(values=few_values))
def test_the_best_case_of_ties_is_the_walk_with_the_spoofed_first(clips):
    scores, labels = clips
    ranking = sorted(zip(scores, labels, strict=True))  # spoof is 0
    n_bonafide, n_spoof = sum(labels), len(labels) - sum(labels)
    points = [(0.0, 1.0)]
    for n_below in range(1, len(ranking) + 1):
        below = [label for _, label in ranking[:n_below]]
        points.append((sum(below) / n_bonafide, 1 - (n_below - sum(below)) / n_spoof))
    # Of two equally close points, either is fine.
    nearest = min(abs(r - a) for r, a in points)
    best = [(r + a) / 2 for r, a in points if abs(r - a) < nearest + 1e-9]
    warned = [text for text in problems(scores, labels) if "in its favor" in text]
    worst = equal_error_rate(scores, labels)["eer"]
    if warned:
        displayed = float(warned[0].split("would give ")[1].split(". ")[0])
        assert min(abs(displayed - rate) for rate in best) < 1e-4
    else:
        assert worst <= max(best) + 0.0011 or len(set(scores)) == 2


@pytest.mark.parametrize(
    "metric", [equal_error_rate, interpolated_equal_error_rate, min_detection_cost, roc_auc], ids=lambda f: f.__name__
)
def test_metrics_that_rank_warn(metric):
    with pytest.warns(UserWarning, match="may be inverted") as caught:
        metric(-GOOD, LABELS)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metric(GOOD, LABELS)
