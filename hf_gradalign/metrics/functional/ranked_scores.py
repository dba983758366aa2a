"""Scores ranked once, and counted as often as need be: what all metrics that sweep a threshold are made from."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_gradalign.metrics.functional.checks import checked

# The official curve starts with a threshold that lies this far below the lowest score, where every clip is accepted.
BELOW_LOWEST = 0.001


class RankedScores:
    """Scores of both classes from the lowest to the highest, the bona fide ones first among equals.

    That order is the ASVspoof packages', which sort stably with the bona fide scores in front.

    Args:
        scores: One number a clip, higher for bona fide, shape (clips,).
        labels: One label a clip, 1 bona fide and 0 spoof, shape (clips,).

    Attributes:
        order: Where each ranked clip is in the arguments, shape (clips,).
        scores: Ascending, shape (clips,).
        is_bonafide: Of the ranked clips, shape (clips,).

    Raises:
        ValueError: As `hf_gradalign.metrics.functional.checks.checked`.
    """

    def __init__(self, scores: ArrayLike, labels: ArrayLike) -> None:
        scores, is_bonafide = checked(scores, labels)
        self.order: NDArray[np.intp] = np.lexsort((~is_bonafide, scores))  # the last key sorts first
        self.scores: NDArray[np.float64] = scores[self.order]
        self.is_bonafide: NDArray[np.bool_] = is_bonafide[self.order]

    def __len__(self) -> int:
        return len(self.scores)

    @cached_property
    def starts(self) -> NDArray[np.intp]:
        """Position of the first clip of each different score, shape (different scores,)."""
        return np.flatnonzero(np.append(True, self.scores[1:] != self.scores[:-1]))

    @cached_property
    def edges(self) -> NDArray[np.intp]:
        """The thresholds between different scores, and above all, shape (different scores + 1,)."""
        return np.append(self.starts, len(self.scores))

    @cached_property
    def surprises(self) -> NDArray[np.float64]:
        """Each ranked clip's surprise at its own class, of log-likelihood ratios, in nats, shape (clips,)."""
        return np.logaddexp(0.0, np.where(self.is_bonafide, -self.scores, self.scores))

    def counted(self, counts: NDArray[np.integer] | None = None) -> CountedScores:
        """The scores, each as often as `counts` says (in the order of the arguments); by default once."""
        return CountedScores(self, counts)


class CountedScores:
    """Ranked scores, each counted so many times, as a bootstrap draw does: a sample without copies of anything.

    A threshold lies between two ranked clips, or below or above all: there are `clips + 1` of them.

    Attributes:
        ranked: The scores.
        counts: How often each ranked clip is counted, shape (clips,).
        n_bonafide: Bona fide clips, each as often as it is counted.
        n_spoof: Spoofed ones.
        rejected: How many clips lie below each threshold, shape (clips + 1,).
        rejected_bonafide: How many bona fide clips, shape (clips + 1,).
    """

    def __init__(self, ranked: RankedScores, counts: NDArray[np.integer] | None = None) -> None:
        self.ranked = ranked
        self.counts = np.ones(len(ranked), dtype=np.int64) if counts is None else counts[ranked.order]
        self.rejected_bonafide = _running_sum(self.counts * ranked.is_bonafide)
        self.rejected = _running_sum(self.counts)
        self.n_bonafide = int(self.rejected_bonafide[-1])
        self.n_spoof = int(self.rejected[-1]) - self.n_bonafide

    @cached_property
    def rejected_spoof(self) -> NDArray[np.int64]:
        """How many spoofed clips lie below each threshold, shape (clips + 1,)."""
        return self.rejected - self.rejected_bonafide

    def rejected_at(self, place: int) -> tuple[int, int]:
        """How many bona fide and how many spoofed clips lie below threshold number `place`."""
        bonafide = int(self.rejected_bonafide[place])
        return bonafide, int(self.rejected[place]) - bonafide

    @property
    def has_both_classes(self) -> bool:
        """Whether there is anything to compare."""
        return self.n_bonafide > 0 and self.n_spoof > 0

    @cached_property
    def false_rejection_rate(self) -> NDArray[np.float64]:
        """Share of bona fide clips below each threshold, from 0 to 1, shape (clips + 1,)."""
        return self.rejected_bonafide / self.n_bonafide

    @cached_property
    def false_acceptance_rate(self) -> NDArray[np.float64]:
        """Share of spoofed clips above each threshold, from 1 to 0, shape (clips + 1,)."""
        return (self.n_spoof - self.rejected_spoof) / self.n_spoof

    def below(self, threshold: float) -> tuple[int, int]:
        """How many bona fide and how many spoofed clips have a score less than `threshold`."""
        return self.rejected_at(int(np.searchsorted(self.ranked.scores, threshold, side="left")))

    def last_counted(self, place: int) -> int:
        """The last clip below threshold number `place` that is counted at all; -1 if there is none."""
        return int(np.searchsorted(self.rejected, self.rejected[place], side="left")) - 1

    def first_counted(self, place: int) -> int:
        """The first clip above threshold number `place` that is counted at all; as many as clips if there is none."""
        return int(np.searchsorted(self.rejected, self.rejected[place] + 1, side="left")) - 1

    def official_threshold(self, place: int) -> float:
        """Threshold number `place` as the ASVspoof packages give it: the score of the last clip that is rejected."""
        clip = self.last_counted(place)
        return float(self.ranked.scores[clip]) if clip >= 0 else self.lowest_score - BELOW_LOWEST

    @property
    def lowest_score(self) -> float:
        """The lowest score that is counted."""
        return float(self.ranked.scores[self.first_counted(0)])

    @property
    def highest_score(self) -> float:
        """The highest score that is counted."""
        return float(self.ranked.scores[self.last_counted(len(self.ranked))])


def _running_sum(counts: NDArray[np.integer]) -> NDArray[np.int64]:
    sums = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=sums[1:])
    return sums
