"""Checks that all metrics share: scores must be finite, and labels must be of two classes."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

_MAX_LISTED = 10


def check_scores(scores: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return scores in double precision, and whether each clip is bona fide.

    Args:
        scores: One number per clip, higher for bona fide, shape (clips,).
        labels: One label per clip, 1 bona fide and 0 spoof, shape (clips,).

    Raises:
        ValueError: If lengths differ, there is no clip, a score is not finite, a label is neither 0 nor 1, or all
            clips are of one class.
    """
    scores, is_bonafide = check_one_class(scores, labels)
    if is_bonafide.all() or not is_bonafide.any():
        present, missing = ("bona fide", "spoofed") if is_bonafide[0] else ("spoofed", "bona fide")
        raise ValueError(
            f"All {len(scores)} clips are {present}: a metric that compares the classes needs at least one {missing} "
            "clip too."
        )
    return scores, is_bonafide


def check_one_class(scores: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Check like `check_scores`, but allow clips of only one class."""
    scores, labels = check_lengths(scores, labels, "labels")
    values = set(labels.tolist())
    if not all(value in (0, 1) for value in values):
        ordered = sorted(values, key=str)
        listed = ", ".join(map(repr, ordered[:_MAX_LISTED])) + (", ..." if len(ordered) > _MAX_LISTED else "")
        raise ValueError(
            f"Labels must be 1 (bona fide) or 0 (spoof), but these were found: {listed}. To convert named labels, use "
            "hf_gradalign.data.map_labels."
        )
    return scores, labels == 1


def check_lengths(scores: ArrayLike, others: ArrayLike, what: str) -> tuple[NDArray[np.float64], NDArray]:
    """Return scores in double precision, and another array with one value per score.

    Args:
        scores: Shape (clips,).
        others: Shape (clips,).
        what: A name for the others, for error messages.

    Raises:
        ValueError: If shapes differ, there is no score, or a score is not finite.
    """
    scores, others = np.asarray(scores, dtype=np.float64), np.asarray(others)
    if scores.ndim != 1 or others.ndim != 1:
        raise ValueError(
            f"Scores and {what} must have one dimension, one value per clip, but have shapes {scores.shape} and "
            f"{others.shape}. For logits, pass the bona fide column minus the spoof column."
        )
    if len(scores) != len(others):
        raise ValueError(f"There are {len(scores)} scores but {len(others)} {what}. Pass one of each per clip.")
    if len(scores) == 0:
        raise ValueError("There are no scores: a metric that compares the classes needs clips of both.")
    n_bad = int(np.count_nonzero(~np.isfinite(scores)))
    if n_bad:
        raise ValueError(
            f"{n_bad} of {len(scores)} scores are NaN or infinite (the first at position "
            f"{int(np.argmin(np.isfinite(scores)))}), and cannot be ranked. Check whether the model diverged."
        )
    return scores, others
