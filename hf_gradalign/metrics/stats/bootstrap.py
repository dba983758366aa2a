"""Bootstrap draws (how often each clip is in a sample), and confidence intervals of metrics."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_gradalign.metrics.functional.checks import aligned
from hf_gradalign.metrics.functional.ranked_scores import RankedScores
from hf_gradalign.metrics.registry import Metric, MetricLike, named_metrics

_NO_NAME = ("", "-")


class Draws(Protocol):
    """Bootstrap samples of clips."""

    def __call__(self, number: int) -> NDArray[np.int64]:
        """How often each clip is in sample `number`, shape (clips,); the same number gives the same sample."""


class UtteranceDraws:
    """Draws as many clips of each class as there are, with replacement.

    Each class keeps its size, which is the corpus' choice and not chance.

    Args:
        labels: Each clip's class, of any kind, shape (clips,).
        seed: Samples depend on it and on their number alone.
    """

    def __init__(self, labels: NDArray, seed: int) -> None:
        self._seed = seed
        self._classes = [np.flatnonzero(labels == value) for value in np.unique(labels)]
        self._n_clips = len(labels)

    def __call__(self, number: int) -> NDArray[np.int64]:
        """How often each clip is in sample `number`, shape (clips,)."""
        generator = np.random.default_rng([self._seed, number])
        counts = np.empty(self._n_clips, dtype=np.int64)
        for clips in self._classes:
            counts[clips] = _draw(generator, len(clips))
        return counts


class ClusterDraws:
    """Draws as many speakers as there are, with replacement, and takes all clips of each.

    Clips of a speaker are alike, so that intervals from single clips are too narrow where speakers are few. Classes
    are as large as it happens. A clip without a speaker (None, NaN, empty or "-") is drawn on its own.

    Args:
        clusters: The name of each clip's speaker, or of whatever else clips come in, `clips` of them.
        seed: Samples depend on it and on their number alone.

    Attributes:
        n_clusters: How many there are to draw from.

    Raises:
        ValueError: If there are fewer than two of them.
    """

    def __init__(self, clusters: Sequence[Any] | NDArray, seed: int) -> None:
        self._seed = seed
        names = np.array([None if _is_missing(name) else str(name) for name in clusters], dtype=object)
        missing = np.array([name is None for name in names], dtype=bool)
        self._cluster_of = np.empty(len(names), dtype=np.intp)
        found, self._cluster_of[~missing] = np.unique(names[~missing].astype(str), return_inverse=True)
        self._cluster_of[missing] = len(found) + np.arange(np.count_nonzero(missing))
        self.n_clusters = len(found) + int(np.count_nonzero(missing))
        if len(found) < 2:
            raise ValueError(
                f"There are {len(found)} speakers (or other clusters) among {len(names)} clips: a bootstrap over them "
                "needs two or more. Leave them out to draw single clips."
            )

    def __call__(self, number: int) -> NDArray[np.int64]:
        """How often each clip is in sample `number`, shape (clips,)."""
        generator = np.random.default_rng([self._seed, number])
        return _draw(generator, self.n_clusters)[self._cluster_of]


def draw_order(scores: NDArray[np.float64], labels: NDArray) -> NDArray[np.intp]:
    """The clips class by class and by score: the order to draw in.

    Samples then do not depend on the order that the clips came in, and counting them is several times as fast, since
    what belongs together lies together in memory.
    """
    return np.lexsort((scores, labels))


def make_draws(labels: NDArray, clusters: Sequence[Any] | NDArray | None, seed: int, order: NDArray[np.intp]) -> Draws:
    """Draws of clusters where they are given, or else of clips; either way of the clips in `order`.

    Raises:
        ValueError: If there is not one cluster a clip, or as `ClusterDraws`.
    """
    if clusters is None:
        return UtteranceDraws(labels[order], seed)
    if len(clusters) != len(labels):
        raise ValueError(f"There are {len(labels)} clips but {len(clusters)} speakers: give one of each a clip.")
    return ClusterDraws([clusters[place] for place in order], seed)


def _draw(generator: np.random.Generator, n: int) -> NDArray[np.int64]:
    return np.bincount(generator.integers(0, n, n), minlength=n)


def _is_missing(name: Any) -> bool:
    return name is None or name != name or str(name).strip() in _NO_NAME


class SampleValues:
    """Metrics of samples, given how often each clip is in them.

    Args:
        metrics: As `bootstrap_intervals` takes them.
        scores: Shape (clips,).
        labels: Shape (clips,).

    Attributes:
        names: The metrics' names.

    Raises:
        ValueError: As `RankedScores`, if there is a metric of this package.
    """

    def __init__(
        self, metrics: MetricLike | Sequence[MetricLike], scores: NDArray[np.float64], labels: NDArray
    ) -> None:
        self._metrics = named_metrics(metrics)
        self._scores, self._labels = scores, labels
        ours = any(isinstance(metric, Metric) for metric in self._metrics.values())
        self._ranked = RankedScores(scores, labels) if ours else None
        self.names = list(self._metrics)

    def __call__(self, counts: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
        """The metrics of a sample, shape (metrics,); NaN where one is not defined, for want of a class.

        Args:
            counts: How often each clip is in it, shape (clips,); by default once.
        """
        counted = None if self._ranked is None else self._ranked.counted(counts)
        values = []
        for metric in self._metrics.values():
            if isinstance(metric, Metric):
                values.append(metric.compute(counted) if counted.has_both_classes else np.nan)
            elif counts is None:
                values.append(metric(self._scores, self._labels))
            else:
                try:
                    values.append(metric(np.repeat(self._scores, counts), np.repeat(self._labels, counts)))
                except ValueError:
                    values.append(np.nan)
        return np.array(values, dtype=np.float64)


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
    metrics: MetricLike | Sequence[MetricLike],
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
        metrics: One or several of: a name in `METRICS`, a `Metric`, this package's functions of scores and labels
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
