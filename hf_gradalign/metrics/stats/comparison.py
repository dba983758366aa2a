"""A paired test of whether two systems differ by more than chance on the same clips."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_gradalign.metrics.functional.checks import check_lengths
from hf_gradalign.metrics.registry import MetricLike
from hf_gradalign.metrics.stats.bootstrap import (
    N_DRAWS,
    SampleValues,
    defined,
    draw_order,
    fewest_clusters,
    make_draws,
    require_settings,
    show_bar,
)
from hf_gradalign.metrics.stats.few_errors import warn_of_sampling


@dataclass(frozen=True)
class Comparison:
    """One metric of two systems.

    Attributes:
        first: The value of the first system.
        second: The value of the second system.
        difference: First minus second.
        low: The lower end of the confidence interval of the difference.
        high: The upper end.
        p_value: The two-sided p-value: how often chance alone would give such a difference or a larger one.
        confidence: The coverage of the interval.
        n_draws: The number of draws in which the metric is defined.
    """

    first: float
    second: float
    difference: float
    low: float
    high: float
    p_value: float
    confidence: float
    n_draws: int


def compare_systems(
    first: ArrayLike,
    second: ArrayLike,
    labels: ArrayLike,
    metrics: MetricLike | Sequence[MetricLike] = "eer",
    *,
    clusters: Sequence[Any] | NDArray | None = None,
    n_draws: int = N_DRAWS,
    confidence: float = 0.95,
    seed: int = 0,
    progress: bool = False,
) -> dict[str, Comparison]:
    """Compare two systems that scored the same clips with a paired bootstrap test.

    Each draw takes the same clips (or speakers) for both systems, so the difficulty of clips cancels. The interval is
    the spread of the difference over the draws. The p-value is from the two-sided test with the differences centered on
    the observed one, `(1 + #{|d* - d| >= |d|}) / (1 + draws)` (Efron and Tibshirani, 1993, chapter 16). It cannot be
    less than `1 / (1 + draws)`. The two systems' scores may have different scales. A permutation of scores between
    systems would not allow this.

    Args:
        first: One number per clip from the first system, shape (clips,).
        second: One number per clip from the second system, for the same clips, shape (clips,).
        labels: One label per clip, 1 bona fide and 0 spoof, shape (clips,).
        metrics: As for `bootstrap_intervals`.
        clusters: The speaker of each clip.
        n_draws: The number of draws.
        confidence: Coverage of the interval.
        seed: The same seed gives the same result.
        progress: As for `bootstrap_intervals`.

    Returns:
        A comparison for each metric, by name.

    Warns:
        UserWarning: As for `bootstrap_intervals`, about either system.

    Raises:
        ValueError: As for `bootstrap_intervals`.
    """
    require_settings(n_draws, confidence, seed)
    first, labels = check_lengths(first, labels, "labels")
    second, labels = check_lengths(second, labels, "labels")
    order = draw_order(first, labels)
    draws = make_draws(labels, clusters, seed, order)
    systems = [SampleValues(metrics, scores[order], labels[order]) for scores in (first, second)]
    for system in systems:
        if system.ranked is not None:
            warn_of_sampling(system.ranked.counted(), fewest_clusters(draws, labels[order]))
    value, other = (system() for system in systems)
    drawn = np.empty((n_draws, len(value)))
    for number in show_bar(n_draws, progress):
        counts = draws(number)
        drawn[number] = systems[0](counts) - systems[1](counts)
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    comparisons = {}
    for index, name in enumerate(systems[0].names):
        samples = defined(drawn[:, index], name)
        difference = float(value[index] - other[index])
        low, high = np.quantile(samples, tails)
        # Draws of equal systems differ only by rounding errors, which do not count.
        n_larger = np.count_nonzero(np.abs(samples - difference) >= abs(difference) - 1e-12)
        comparisons[name] = Comparison(
            first=float(value[index]),
            second=float(other[index]),
            difference=difference,
            low=float(low),
            high=float(high),
            p_value=(1 + int(n_larger)) / (1 + len(samples)),
            confidence=confidence,
            n_draws=len(samples),
        )
    return comparisons
