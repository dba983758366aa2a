"""Totals over updates: means of the conflict statistics since the last log, and conflicts by epoch."""

from itertools import groupby
from typing import Any

import torch

from hf_gradalign.alignment import AlignedUpdate, ConflictCounts, RunningMeans, conflicts, statistics_of_updates

# The statistics of one update take about thirty small kernels, and those of many updates at once take no more.
_HELD = 64


class ConflictTotals:
    """Adds up the statistics of updates, many at a time, and without making the host wait.

    Updates are held as they are, a few small tensors each, until there are 64 of them or a total is read.
    """

    def __init__(self) -> None:
        self._since_last_log = RunningMeans()
        self._counts = ConflictCounts()
        self._held: list[tuple[int, AlignedUpdate]] = []

    def add(self, epoch: int, update: AlignedUpdate) -> None:
        """Add an update of an epoch, counted from 0."""
        if self._held and not _can_be_stacked(self._held[-1][1], update):
            self._add_pending()
        self._held.append((epoch, update))
        if len(self._held) == _HELD:
            self._add_pending()

    @property
    def since_last_log(self) -> RunningMeans:
        """Means since the last log. The caller resets them when it logs."""
        self._add_pending()
        return self._since_last_log

    @property
    def counts(self) -> ConflictCounts:
        """Conflicts by epoch."""
        self._add_pending()
        return self._counts

    def _add_pending(self) -> None:
        if not self._held:
            return
        epochs, updates = zip(*self._held, strict=True)
        self._held = []
        statistics = statistics_of_updates(updates)
        self._since_last_log.update(statistics)
        conflict = statistics.get("conflict_rate")
        if conflict is None:  # a single view, whose Gramian may still be non-finite
            conflict = conflicts(torch.stack([update.gramians.sum(0) for update in updates]))
        start = 0
        for epoch, members in groupby(epochs):
            stop = start + len(list(members))
            self._counts.update(epoch, conflict[start:stop])
            start = stop


def _can_be_stacked(first: AlignedUpdate, second: AlignedUpdate) -> bool:
    def layout(update: AlignedUpdate) -> Any:
        return update.views, update.gramians.shape, update.gramians.device, update.loss_scale is None

    return layout(first) == layout(second)
