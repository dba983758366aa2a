"""The values of metrics in samples of the same clips."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hf_gradalign.metrics.measures import Measure, Metric, named_metrics
from hf_gradalign.metrics.ranked_scores import RankedScores


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

    def __init__(self, metrics: Metric | Sequence[Metric], scores: NDArray[np.float64], labels: NDArray) -> None:
        self._metrics = named_metrics(metrics)
        self._scores, self._labels = scores, labels
        ours = any(isinstance(metric, Measure) for metric in self._metrics.values())
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
            if isinstance(metric, Measure):
                values.append(metric.of(counted) if counted.has_both_classes else np.nan)
            elif counts is None:
                values.append(metric(self._scores, self._labels))
            else:
                try:
                    values.append(metric(np.repeat(self._scores, counts), np.repeat(self._labels, counts)))
                except ValueError:
                    values.append(np.nan)
        return np.array(values, dtype=np.float64)
