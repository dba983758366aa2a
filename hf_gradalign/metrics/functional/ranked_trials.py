"""Trials of speaker verification that are ranked once and counted many times."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_gradalign.metrics.functional.checks import aligned

TRIAL_TYPES = ("target", "nontarget", "spoof")


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
        scores, types = aligned(scores, trial_types, "trial types")
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
            counts: How often each trial counts, in the order of the arguments, shape (trials,); by default once.

        Returns:
            Shape (3, trials + 1), from no trial to all trials.
        """
        ranked = np.ones(len(self.scores), dtype=np.int64) if counts is None else counts[self.order]
        sums = np.zeros((len(TRIAL_TYPES), len(ranked) + 1), dtype=np.int64)
        for kind, row in enumerate(sums):
            np.cumsum(ranked * (self.kinds == kind), out=row[1:])
        return sums
