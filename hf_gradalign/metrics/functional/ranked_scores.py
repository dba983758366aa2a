"""Scores of clips or trials, ranked once and counted many times: the basis of all metrics that sweep a threshold."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_gradalign.metrics.functional.checks import check_lengths, check_scores

# The official curve starts at a threshold this far below the lowest score, where every clip is accepted.
BELOW_LOWEST = 0.001
TRIAL_TYPES = ("target", "nontarget", "spoof")


class RankedScores:
    """Scores of both classes from lowest to highest, the bona fide ones first among equals.

    This is the order of the ASVspoof packages, which sort stably with the bona fide scores in front.

    Args:
        scores: One number per clip, higher for bona fide, shape (clips,).
        labels: One label per clip, 1 bona fide and 0 spoof, shape (clips,).

    Attributes:
        order: The position of each ranked clip in the arguments, shape (clips,).
        scores: Ascending, shape (clips,).
        is_bonafide: Whether each ranked clip is bona fide, shape (clips,).

    Raises:
        ValueError: As for `hf_gradalign.metrics.functional.checks.check_scores`.
    """

    def __init__(self, scores: ArrayLike, labels: ArrayLike) -> None:
        scores, is_bonafide = check_scores(scores, labels)
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
        """The thresholds between different scores, and the one above all scores, shape (different scores + 1,)."""
        return np.append(self.starts, len(self.scores))

    @cached_property
    def surprises(self) -> NDArray[np.float64]:
        """The surprise at the true class, in nats, if scores are log-likelihood ratios, shape (clips,)."""
        return np.logaddexp(0.0, np.where(self.is_bonafide, -self.scores, self.scores))

    def counted(self, counts: NDArray[np.integer] | None = None) -> CountedScores:
        """Count each score as often as `counts` says (in the order of the arguments); default: once."""
        return CountedScores(self, counts)


class CountedScores:
    """Ranked scores with a count for each, such as a bootstrap sample. No score is copied.

    A threshold lies between two ranked clips, or below or above all of them, so there are `clips + 1` thresholds.

    Attributes:
        ranked: The scores.
        counts: How often each ranked clip is counted, shape (clips,).
        n_bonafide: The sum of the counts of bona fide clips.
        n_spoof: The sum of the counts of spoofed clips.
        rejected: The number of clips below each threshold, shape (clips + 1,).
        rejected_bonafide: The number of bona fide clips below each threshold, shape (clips + 1,).
    """

    def __init__(self, ranked: RankedScores, counts: NDArray[np.integer] | None = None) -> None:
        self.ranked = ranked
        self.counts = np.ones(len(ranked), dtype=np.int64) if counts is None else counts[ranked.order]
        self.rejected_bonafide = _cumulative(self.counts * ranked.is_bonafide)
        self.rejected = _cumulative(self.counts)
        self.n_bonafide = int(self.rejected_bonafide[-1])
        self.n_spoof = int(self.rejected[-1]) - self.n_bonafide

    @cached_property
    def rejected_spoof(self) -> NDArray[np.int64]:
        """The number of spoofed clips below each threshold, shape (clips + 1,)."""
        return self.rejected - self.rejected_bonafide

    def rejected_at(self, index: int) -> tuple[int, int]:
        """Return the numbers of bona fide and spoofed clips below the threshold of this index."""
        bonafide = int(self.rejected_bonafide[index])
        return bonafide, int(self.rejected[index]) - bonafide

    @property
    def has_both_classes(self) -> bool:
        """Whether clips of both classes are counted."""
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
        """Return the numbers of bona fide and spoofed clips with a score less than `threshold`."""
        return self.rejected_at(int(np.searchsorted(self.ranked.scores, threshold, side="left")))

    def last_counted(self, index: int) -> int:
        """Return the last clip below the threshold of this index that is counted at all, or -1."""
        return int(np.searchsorted(self.rejected, self.rejected[index], side="left")) - 1

    def first_counted(self, index: int) -> int:
        """Return the first clip above the threshold of this index that is counted at all, or the number of clips."""
        return int(np.searchsorted(self.rejected, self.rejected[index] + 1, side="left")) - 1

    def official_threshold(self, index: int) -> float:
        """Return the threshold of this index as the ASVspoof packages do: the score of the last rejected clip."""
        clip = self.last_counted(index)
        return float(self.ranked.scores[clip]) if clip >= 0 else self.lowest_score - BELOW_LOWEST

    @property
    def lowest_score(self) -> float:
        """The lowest score that is counted."""
        return float(self.ranked.scores[self.first_counted(0)])

    @property
    def highest_score(self) -> float:
        """The highest score that is counted."""
        return float(self.ranked.scores[self.last_counted(len(self.ranked))])


class RankedTrials:
    """Scores of trials from lowest to highest; among equals, targets come first, then non-targets, then spoofs.

    Args:
        scores: One number per trial, higher for the claimed speaker's bona fide speech, shape (trials,).
        trial_types: "target", "nontarget" or "spoof" for each trial, shape (trials,).

    Attributes:
        order: The position of each ranked trial in the arguments, shape (trials,).
        scores: Ascending, shape (trials,).
        kinds: The index of each ranked trial's type in `TRIAL_TYPES`, shape (trials,).

    Raises:
        ValueError: If lengths differ, a score is not finite, a type is unknown, or one of the three types is missing.
    """

    def __init__(self, scores: ArrayLike, trial_types: ArrayLike) -> None:
        scores, types = check_lengths(scores, trial_types, "trial types")
        if unknown := sorted(set(types.tolist()) - set(TRIAL_TYPES), key=str):
            raise ValueError(f"Trial types must be {', '.join(TRIAL_TYPES)}, but these were found: {unknown[:10]}.")
        missing = [name for name in TRIAL_TYPES if not (types == name).any()]
        if missing:
            raise ValueError(
                f"None of the {len(scores)} trials is of type {' or '.join(missing)}: all three are needed."
            )
        kinds = np.select([types == name for name in TRIAL_TYPES], np.arange(len(TRIAL_TYPES)))
        self.order: NDArray[np.intp] = np.lexsort((kinds, scores))
        self.scores: NDArray[np.float64] = scores[self.order]
        self.kinds: NDArray[np.int64] = kinds[self.order]

    def of_type(self, name: str) -> NDArray[np.float64]:
        """Return the scores of one type of trial, ascending."""
        return self.scores[self.kinds == TRIAL_TYPES.index(name)]

    def rejected(self, counts: NDArray[np.integer] | None = None) -> NDArray[np.int64]:
        """Return the number of trials of each type below each threshold.

        Args:
            counts: How often each trial counts, in the order of the arguments, shape (trials,); once by default.

        Returns:
            Shape (3, trials + 1), from no trial to all trials.
        """
        ranked = np.ones(len(self.scores), dtype=np.int64) if counts is None else counts[self.order]
        sums = np.zeros((len(TRIAL_TYPES), len(ranked) + 1), dtype=np.int64)
        for kind, row in enumerate(sums):
            np.cumsum(ranked * (self.kinds == kind), out=row[1:])
        return sums


def _cumulative(counts: NDArray[np.integer]) -> NDArray[np.int64]:
    sums = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=sums[1:])
    return sums
