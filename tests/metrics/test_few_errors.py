"""Samples that are too small for a bootstrap make warnings, and ordinary ones do not."""

import warnings

import numpy as np
import pytest

from hf_gradalign.metrics import RankedScores, bootstrap_intervals, compare_systems
from hf_gradalign.metrics.stats.few_errors import highest_without_error, sampling_problems

LABELS = np.repeat([1, 0], [40, 160])


def scores_with(n_errors):
    """Scores of 40 bona fide and 160 spoofed clips with this many errors of bona fide clips at the EER point."""
    scores = np.where(LABELS == 1, 1.0, -1.0) + np.arange(200) / 1000
    scores[:n_errors] -= 10
    scores[40 : 40 + 4 * n_errors] += 10
    return scores


def problems(scores, n_clusters=None):
    return sampling_problems(RankedScores(scores, LABELS).counted(), n_clusters)


def test_few_errors():
    (problem,) = problems(scores_with(2))
    assert "An equal error rate of 5 % is about 2 of the 40 bona fide clips" in problem
    assert problems(scores_with(5)) == []
    assert problems(-scores_with(2)) == [problem.replace("of 5 %", "of 95 %")]


def test_no_errors():
    (problem,) = problems(scores_with(0))
    assert "an equal error rate of 0 %" in problem
    assert "40 bona fide and 160 spoofed clips, true error rates of 7.2 and 1.9 % would still make no error" in problem
    assert problems(-scores_with(0)) == [problem.replace("of 0 %", "of 100 %")]
    (of_speakers,) = problems(scores_with(0), n_clusters=10)
    assert of_speakers.endswith("mean nothing.")  # clips of one speaker are not independent
    assert (1 - highest_without_error(40)) ** 40 == pytest.approx(0.05)


def test_few_speakers():
    (problem,) = problems(scores_with(6), n_clusters=4)
    assert "Only 4 of the speakers (or other values that are drawn) have clips of one of the classes. With" in problem
    assert problems(scores_with(6), n_clusters=10) == []


def test_intervals_and_comparisons_warn():
    speakers = np.arange(200) % 5
    with pytest.warns(UserWarning, match="Only 5 of the speakers") as caught:
        bootstrap_intervals("eer", scores_with(8), LABELS, clusters=speakers, n_draws=20)
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match=r"The scores separate .* p-value mean nothing"):
        compare_systems(scores_with(8), scores_with(0), LABELS, n_draws=20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compare_systems(scores_with(8), scores_with(9), LABELS, n_draws=20)
        bootstrap_intervals(lambda scores, _: scores.mean(), scores_with(0), LABELS, n_draws=20)  # not about errors
