"""Confidence intervals of metrics from a bootstrap. A draw is the count of each clip in a sample."""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tqdm.auto import tqdm

from hf_gradalign.metrics.functional.checks import check_lengths
from hf_gradalign.metrics.functional.ranked_scores import RankedScores
from hf_gradalign.metrics.registry import Metric, MetricLike, named_metrics
from hf_gradalign.metrics.stats.few_errors import warn_of_sampling


class Draws(Protocol):
    """Bootstrap samples of clips."""

    def __call__(self, number: int) -> NDArray[np.int64]:
        """Return the count of each clip in sample `number`, shape (clips,). The same number gives the same sample."""


class UtteranceDraws:
    """Draw clips with replacement, within each class.

    Each class keeps its size, because class sizes are a choice of the corpus and not random.

    Args:
        labels: The class of each clip, of any type, shape (clips,).
        seed: A sample depends only on the seed and its number.
    """

    def __init__(self, labels: NDArray, seed: int) -> None:
        self._seed = seed
        self._classes = [np.flatnonzero(labels == value) for value in np.unique(labels)]
        self._n_clips = len(labels)

    def __call__(self, number: int) -> NDArray[np.int64]:
        """Return the count of each clip in sample `number`, shape (clips,)."""
        generator = np.random.default_rng([self._seed, number])
        counts = np.empty(self._n_clips, dtype=np.int64)
        for clips in self._classes:
            counts[clips] = _draw(generator, len(clips))
        return counts


class ClusterDraws:
    """Draw speakers with replacement, and take all clips of each.

    Clips of the same speaker are similar, so intervals from single clips are too narrow when there are few speakers.
    Class sizes vary between samples. A clip without a speaker (None, NaN, empty or "-") is drawn on its own.

    Args:
        clusters: The speaker (or other cluster) of each clip, length `clips`.
        seed: A sample depends only on the seed and its number.

    Attributes:
        n_clusters: The number of clusters.
        cluster_of: The number of each clip's cluster, shape (clips,).

    Raises:
        ValueError: If there are fewer than two named clusters.
    """

    def __init__(self, clusters: Sequence[Any] | NDArray, seed: int) -> None:
        self._seed = seed
        names = np.array([None if is_missing(name) else str(name) for name in clusters], dtype=object)
        missing = np.array([name is None for name in names], dtype=bool)
        self.cluster_of = np.empty(len(names), dtype=np.intp)
        distinct, self.cluster_of[~missing] = np.unique(names[~missing].astype(str), return_inverse=True)
        self.cluster_of[missing] = len(distinct) + np.arange(np.count_nonzero(missing))
        self.n_clusters = len(distinct) + int(np.count_nonzero(missing))
        if len(distinct) < 2:
            raise ValueError(
                f"There are {len(distinct)} speakers (or other clusters) among {len(names)} clips, but a bootstrap "
                "over speakers needs at least two. Leave them out to draw single clips."
            )

    def __call__(self, number: int) -> NDArray[np.int64]:
        """Return the count of each clip in sample `number`, shape (clips,)."""
        generator = np.random.default_rng([self._seed, number])
        return _draw(generator, self.n_clusters)[self.cluster_of]


def draw_order(scores: NDArray[np.float64], labels: NDArray) -> NDArray[np.intp]:
    """Return the order to draw clips in: by class, then by score.

    Samples then do not depend on the order of the input, and counting them is several times as fast, because
    neighboring scores are close in memory.
    """
    return np.lexsort((scores, labels))


def make_draws(labels: NDArray, clusters: Sequence[Any] | NDArray | None, seed: int, order: NDArray[np.intp]) -> Draws:
    """Return draws of clusters if there are clusters, otherwise of clips, for the clips in `order`.

    Raises:
        ValueError: If the numbers of clusters and clips differ; as for `ClusterDraws`.
    """
    if clusters is None:
        return UtteranceDraws(labels[order], seed)
    if len(clusters) != len(labels):
        raise ValueError(f"There are {len(labels)} clips but {len(clusters)} speakers. Pass one speaker per clip.")
    values = list(clusters)  # by position: a pandas Series is indexed by its labels
    return ClusterDraws([values[index] for index in order], seed)


def fewest_clusters(draws: Draws, labels: NDArray) -> int | None:
    """Return how many clusters have clips of the class with the fewest clusters; None if single clips are drawn.

    Args:
        draws: The draws.
        labels: The class of each clip in the order of the draws, shape (clips,).
    """
    if not isinstance(draws, ClusterDraws):
        return None
    return min(len(np.unique(draws.cluster_of[labels == value])) for value in np.unique(labels))


def _draw(generator: np.random.Generator, n: int) -> NDArray[np.int64]:
    return np.bincount(generator.integers(0, n, n), minlength=n)


def is_missing(value: Any) -> bool:
    """Return whether a column's value stands for a missing value: None, NaN, empty or "-"."""
    return value is None or value != value or str(value).strip() in ("", "-")


class Measured(Protocol):
    """Computes metrics of samples that are given as counts of clips.

    Attributes:
        names: The names of the metrics.
    """

    names: list[str]

    def __call__(self, counts: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
        """Return the metrics of a sample, shape (metrics,), NaN where undefined. By default, each clip counts once."""
        ...


class SampleValues:
    """Computes metrics of samples that are given as counts of clips.

    Args:
        metrics: As for `bootstrap_intervals`.
        scores: Shape (clips,).
        labels: Shape (clips,).

    Attributes:
        names: The names of the metrics.
        ranked: The scores in order; None if there is no metric of this package.

    Raises:
        ValueError: As for `RankedScores`, if there is a metric of this package.
    """

    def __init__(
        self, metrics: MetricLike | Sequence[MetricLike], scores: NDArray[np.float64], labels: NDArray
    ) -> None:
        self._metrics = named_metrics(metrics)
        self._scores, self._labels = scores, labels
        needs_ranking = any(isinstance(metric, Metric) for metric in self._metrics.values())
        self.ranked = RankedScores(scores, labels) if needs_ranking else None
        self.names = list(self._metrics)

    def __call__(self, counts: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
        """Return the metrics of a sample, shape (metrics,). A metric is NaN if the sample lacks a class.

        Args:
            counts: The count of each clip, shape (clips,); default: 1 for each.
        """
        counted = None if self.ranked is None else self.ranked.counted(counts)
        values = []
        for metric in self._metrics.values():
            if isinstance(metric, Metric):
                assert counted is not None, "scores are ranked if there is such a metric"
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
_BAR_AFTER = 3.0  # seconds


@dataclass(frozen=True)
class Interval:
    """A metric with its confidence interval.

    Attributes:
        value: The metric of all clips.
        low: The lower end of the confidence interval.
        high: The upper end.
        standard_error: The standard deviation over the draws.
        confidence: The coverage of the interval, in (0, 1).
        n_draws: The number of draws in which the metric is defined.
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
    progress: bool = False,
) -> dict[str, Interval]:
    """Compute percentile bootstrap intervals (Efron and Tibshirani, "An introduction to the bootstrap", 1993, 13.3).

    Each draw samples clips with replacement within each class, or whole speakers if `clusters` are given (see
    `UtteranceDraws` and `ClusterDraws`). All metrics see the same draws. Scores are ranked once and a draw only counts
    them, so a thousand draws of 600,000 scores take seconds and the memory of a few arrays of that length
    (`scripts/benchmark_metrics.py`). Only min Cllr takes longer, 0.03 s per draw of that length. Functions from outside
    this package get copies of the clips, which is slower.

    Intervals of minima over thresholds or calibrations (minDCF, min t-DCF, a-DCF, min Cllr) are too narrow and too low:
    the minimum over a sample is lower than over all possible clips, and over a draw it is lower still.

    Args:
        metrics: One or more of: a name in `METRICS`, a `Metric`, a function of this package that takes only scores and
            labels, or any other function of them that returns a number or a mapping whose first entry is the number.
        scores: One number per clip, shape (clips,).
        labels: One label per clip, 1 bona fide and 0 spoof, shape (clips,). For functions from outside this package,
            they may be anything, such as trial types.
        clusters: The speaker of each clip, length `clips`.
        n_draws: The number of draws.
        confidence: Coverage of the interval.
        seed: The same seed gives the same interval.
        progress: Show a progress bar if it takes more than three seconds.

    Returns:
        An interval for each metric, by name.

    Warns:
        UserWarning: If fewer than five clips of a class are wrong at the equal error point or there are fewer than ten
            speakers, so that intervals are too narrow (only with a metric of this package), or if a metric is undefined
            in some draws because they lack a class.

    Raises:
        ValueError: If `n_draws` or `confidence` is out of range, a metric is undefined in half of the draws or more, or
            a metric raises it.
    """
    require_settings(n_draws, confidence, seed)
    scores, labels = check_lengths(scores, labels, "labels")
    order = draw_order(scores, labels)
    draws = make_draws(labels, clusters, seed, order)
    measured = SampleValues(metrics, scores[order], labels[order])
    if measured.ranked is not None:
        warn_of_sampling(measured.ranked.counted(), fewest_clusters(draws, labels[order]))
    return intervals_of(measured, draws, n_draws, confidence, progress=progress)


def intervals_of(
    measured: Measured, draws: Draws, n_draws: int, confidence: float, *, progress: bool = False
) -> dict[str, Interval]:
    """Compute the intervals of `bootstrap_intervals` from metrics and draws.

    Args:
        measured: The metrics, for counts in the order of the draws.
        draws: The draws.
        n_draws: Their number.
        confidence: Coverage of the interval.
        progress: See `bootstrap_intervals`.

    Warns:
        UserWarning: See `defined`.

    Raises:
        ValueError: See `defined`.
    """
    values = measured()
    drawn = np.array([measured(draws(number)) for number in show_bar(n_draws, progress)])
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    intervals = {}
    for name, value, samples in zip(measured.names, values, drawn.T, strict=True):
        samples = defined(samples, name, stacklevel=4)
        low, high = np.quantile(samples, tails)
        error = float(samples.std(ddof=1))
        intervals[name] = Interval(float(value), float(low), float(high), error, confidence, len(samples))
    return intervals


def show_bar(n_draws: int, progress: bool) -> Iterable[int]:
    """Return the numbers of the draws, with a bar after three seconds if `progress` is true."""
    return tqdm(range(n_draws), "Bootstrap", leave=False, delay=_BAR_AFTER, disable=not progress)


def require_settings(n_draws: int, confidence: float, seed: int) -> None:
    """Raise ValueError if the number of draws, the confidence or the seed is out of range."""
    if n_draws < 2:
        raise ValueError(f"A bootstrap needs at least two draws, not {n_draws}.")
    if not 0 < confidence < 1:
        raise ValueError(f"The confidence must be between 0 and 1, not {confidence}.")
    if seed < 0:
        raise ValueError(f"The seed must be 0 or more, not {seed}.")


def defined(samples: NDArray[np.float64], name: str, *, stacklevel: int = 3) -> NDArray[np.float64]:
    """Return the draws in which a metric is defined.

    Warns:
        UserWarning: If it is undefined in some, at the line that is `stacklevel` calls away.

    Raises:
        ValueError: If it is undefined in half of the draws or more.
    """
    kept = samples[~np.isnan(samples)]
    n_lost = len(samples) - len(kept)
    if 2 * n_lost >= len(samples):
        raise ValueError(
            f"{name} is undefined in {n_lost} of {len(samples)} bootstrap draws, which lack one of the classes because "
            "it has too few speakers. Draw single clips instead."
        )
    if n_lost:
        warnings.warn(
            f"{name} is undefined in {n_lost} of {len(samples)} bootstrap draws, which lack one of the classes. They "
            "are skipped.",
            UserWarning,
            stacklevel=stacklevel,
        )
    return kept
