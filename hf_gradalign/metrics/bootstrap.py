"""Confidence intervals of metrics, by the bootstrap."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_gradalign.metrics.checks import aligned
from hf_gradalign.metrics.measures import Metric
from hf_gradalign.metrics.resampling import draw_order, make_draws
from hf_gradalign.metrics.sample_values import SampleValues

N_DRAWS = 1000


@dataclass(frozen=True)
class Interval:
    """A metric and how far it would vary with the sample.

    Attributes:
        value: The metric of the scores as they are.
        low: The lower end of the confidence interval.
        high: The upper end.
        standard_error: The standard deviation over the draws.
        confidence: The interval's coverage, in (0, 1).
        n_draws: How many draws it is from: those in which the metric is defined.
    """

    value: float
    low: float
    high: float
    standard_error: float
    confidence: float
    n_draws: int


def bootstrap_intervals(
    metrics: Metric | Sequence[Metric],
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    clusters: Sequence[Any] | NDArray | None = None,
    n_draws: int = N_DRAWS,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval]:
    """Percentile bootstrap intervals (Efron and Tibshirani, "An introduction to the bootstrap", 1993, section 13.3).

    Each draw is a sample of the clips with replacement, as large as they are: of each class by itself, or of whole
    speakers where `clusters` are given (see `UtteranceDraws` and `ClusterDraws`). All metrics see the same draws.
    Scores are ranked once; a draw is counts of them, so that a thousand draws of 600,000 scores take seconds and the
    memory of a few arrays of that length (`scripts/benchmark_metrics.py`). A function that is not of this package is
    given copies of the clips instead, which takes as long as it takes.

    Args:
        metrics: One or several of: a name in `MEASURES`, a `Measure`, this package's functions of scores and labels
            alone, or any function of them that returns a number or a mapping that starts with it.
        scores: One number a clip, shape (clips,).
        labels: One label a clip, 1 bona fide and 0 spoof, shape (clips,). Functions may have others (trial types).
        clusters: The speaker of each clip, `clips` of them.
        n_draws: How many draws.
        confidence: Coverage of the interval.
        seed: The same seed, the same interval.

    Returns:
        An interval for each metric, by name.

    Warns:
        UserWarning: If a metric is not defined in some draws, because they lack a class.

    Raises:
        ValueError: If `n_draws` or `confidence` is out of range, if a metric is undefined in half of the draws or more,
            or as the metrics.
    """
    require_settings(n_draws, confidence)
    scores, labels = aligned(scores, labels, "labels")
    order = draw_order(scores, labels)
    draws = make_draws(labels, clusters, seed, order)
    measured = SampleValues(metrics, scores[order], labels[order])
    values = measured()
    drawn = np.array([measured(draws(number)) for number in range(n_draws)])
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    intervals = {}
    for name, value, samples in zip(measured.names, values, drawn.T, strict=True):
        samples = defined(samples, name)
        low, high = np.quantile(samples, tails)
        error = float(samples.std(ddof=1))
        intervals[name] = Interval(float(value), float(low), float(high), error, confidence, len(samples))
    return intervals


def require_settings(n_draws: int, confidence: float) -> None:
    """Raise ValueError unless there can be an interval."""
    if n_draws < 2:
        raise ValueError(f"A bootstrap needs two draws or more, not {n_draws}.")
    if not 0 < confidence < 1:
        raise ValueError(f"The confidence must be between 0 and 1, not {confidence}.")


def defined(samples: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    """The draws in which a metric is a number.

    Raises:
        ValueError: If these are half of them or fewer.
    """
    kept = samples[~np.isnan(samples)]
    n_lost = len(samples) - len(kept)
    if 2 * n_lost >= len(samples):
        raise ValueError(
            f"{name} is undefined in {n_lost} of {len(samples)} bootstrap draws, which lack one of the classes: there "
            "are too few speakers of it. Draw single clips instead."
        )
    if n_lost:
        warnings.warn(
            f"{name} is undefined in {n_lost} of {len(samples)} bootstrap draws, which lack one of the classes; they "
            "are left out.",
            UserWarning,
            stacklevel=3,
        )
    return kept
