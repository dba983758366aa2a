"""The Arena's equal error rate, against its definition at every score."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from score_samples import few_values, scored_clips

from hf_gradalign.metrics import equal_error_rate, interpolated_equal_error_rate

# Random scores are often suspicious.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def by_definition(scores, labels):
    """Rates at each different score, clips with that score or more accepted; lines between the first two that cross."""
    scores, labels = np.asarray(scores, dtype=float), np.asarray(labels)
    points = []
    for threshold in sorted(set(scores.tolist())):
        accepted = float((scores[labels == 0] >= threshold).mean())
        rejected = float((scores[labels == 1] < threshold).mean())
        points.append((threshold, accepted, rejected))
    for (low, far, frr), (high, next_far, next_frr) in pairwise(points):
        if far > frr and next_far <= next_frr:
            share = (far - frr) / ((far - frr) - (next_far - next_frr))
            rate = ((far + share * (next_far - far)) + (frr + share * (next_frr - frr))) / 2
            return {"eer": rate, "threshold": low + share * (high - low)}
    threshold, far, frr = min(points, key=lambda point: abs(point[1] - point[2]))
    return {"eer": (far + frr) / 2, "threshold": threshold}


@given(scored_clips())
def test_agrees_with_the_definition(clips):
    assert interpolated_equal_error_rate(*clips) == by_definition(*clips)


@given(scored_clips(values=few_values))
def test_agrees_with_the_definition_on_ties(clips):
    assert interpolated_equal_error_rate(*clips) == by_definition(*clips)


def test_by_hand():
    # At 0.5 it accepts 1/3 of the spoofed clips and rejects 1/3 of the bona fide ones: met exactly.
    assert interpolated_equal_error_rate([-2, -1, 0.5, 0, 1, 2], [0, 0, 0, 1, 1, 1]) == {"eer": 1 / 3, "threshold": 0.5}
    # Between 1 (all accepted, none rejected) and 2 (1/2 accepted, none rejected), then 3 (1/2 accepted, all rejected):
    # from (1/2, 0) to (1/2, 1) the lines meet at 1/2, halfway.
    assert interpolated_equal_error_rate([1, 2, 3], [0, 1, 0]) == {"eer": 0.5, "threshold": 2.5}


def test_where_the_curves_do_not_cross():
    # The highest score belongs to most spoofed clips: accepting it is never better than rejecting a tenth.
    scores, labels = [1.0, *[5.0] * 10], [1, *[1] * 9, 0]
    with pytest.warns(UserWarning, match="only two different scores"):
        assert interpolated_equal_error_rate(scores, labels) == {"eer": 0.55, "threshold": 5.0}


def test_equal_scores_give_one_half():
    with pytest.warns(UserWarning, match="All 3 scores are equal"):
        assert interpolated_equal_error_rate([7, 7, 7], [0, 1, 1]) == {"eer": 0.5, "threshold": 7.0}


def test_is_near_the_official_one_where_there_are_no_ties():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [300, 200])
    scores = rng.normal(size=500) + 2 * labels
    official, interpolated = (f(scores, labels)["eer"] for f in (equal_error_rate, interpolated_equal_error_rate))
    assert 0 < abs(official - interpolated) < 1 / 200


def test_refuses_what_the_official_one_refuses():
    with pytest.raises(ValueError, match="All 2 clips are bona fide"):
        interpolated_equal_error_rate([1.0, 2.0], [1, 1])
