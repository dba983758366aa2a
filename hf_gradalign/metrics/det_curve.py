"""The detection error curve and its equal error point, by the definition of the official ASVspoof scoring packages."""

import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

# The curve starts with a threshold that lies this far below the lowest score, where every clip is accepted.
_BELOW_LOWEST = 0.001


class DetectionErrorCurve(NamedTuple):
    """Both error rates of a detector, one entry a threshold, from accepting every clip to rejecting every clip.

    Attributes:
        false_rejection_rate: Share of bona fide clips rejected, ascending from 0 to 1, shape (clips + 1,).
        false_acceptance_rate: Share of spoofed clips accepted, descending from 1 to 0, shape (clips + 1,).
        thresholds: Scores up to and including which a clip is rejected, ascending, shape (clips + 1,).
    """

    false_rejection_rate: NDArray[np.float64]
    false_acceptance_rate: NDArray[np.float64]
    thresholds: NDArray[np.float64]


def detection_error_curve(scores: ArrayLike, labels: ArrayLike) -> DetectionErrorCurve:
    """Rank all clips by score and count both kinds of error at each rank.

    Clips with the same score are ranked one by one, the bona fide ones first. That is pessimistic, and it is how the
    scoring package of the ASVspoof challenges does it, so that figures compare with published ones.

    Args:
        scores: One number a clip, higher for bona fide, shape (clips,).
        labels: One label a clip, 1 bona fide and 0 spoof, shape (clips,).

    Returns:
        The curve, with one entry more than there are clips.

    Raises:
        ValueError: If lengths differ, there is no clip, a score is not finite, a label is neither 0 nor 1, or all
            clips are of one class.
    """
    scores, is_bonafide = _checked(scores, labels)
    # The last key sorts first: by score, and among equal scores the bona fide clips come first.
    order = np.lexsort((~is_bonafide, scores))
    rejected_bonafide = np.cumsum(is_bonafide[order])
    rejected_spoof = np.cumsum(~is_bonafide[order])
    n_bonafide, n_spoof = rejected_bonafide[-1], rejected_spoof[-1]
    ranked = scores[order]
    return DetectionErrorCurve(
        false_rejection_rate=np.append(0.0, rejected_bonafide / n_bonafide),
        false_acceptance_rate=np.append(1.0, (n_spoof - rejected_spoof) / n_spoof),
        thresholds=np.append(ranked[0] - _BELOW_LOWEST, ranked),
    )


def equal_error_rate(scores: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """Equal error rate: the error where as many bona fide clips are rejected as spoofed ones are accepted.

    The first point of the curve where the two rates are nearest is taken, and the rate is their mean, without
    interpolation (official ASVspoof definition, as in the evaluation plans of ASVspoof 2019 to 5).

    Args:
        scores: One number a clip, higher for bona fide, shape (clips,); any array-like.
        labels: One label a clip, 1 bona fide and 0 spoof, shape (clips,).

    Returns:
        `eer`, a fraction in [0, 1], and `threshold`, the score up to and including which a clip is rejected there.
        Where all scores are equal they carry no information: a `UserWarning` says so, and the rate is 0.5 (the
        official formula would give 1).

    Raises:
        ValueError: As `detection_error_curve`.
    """
    curve = detection_error_curve(scores, labels)
    # The first threshold lies below all scores; the others are the scores in order.
    lowest, highest = curve.thresholds[1], curve.thresholds[-1]
    if lowest == highest:
        warnings.warn(
            f"All {len(curve.thresholds) - 1} scores are equal ({lowest:g}), so they carry no information on the "
            "class: the equal error rate is given as 0.5. Check that the model's output is what you scored.",
            UserWarning,
            stacklevel=2,
        )
        return {"eer": 0.5, "threshold": float(lowest)}
    frr, far, thresholds = curve
    nearest = np.argmin(np.abs(frr - far))
    return {"eer": float((frr[nearest] + far[nearest]) / 2), "threshold": float(thresholds[nearest])}


def _checked(scores: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    scores = np.asarray(scores, dtype=np.float64)
    labels = np.asarray(labels)
    if scores.ndim != 1 or labels.ndim != 1:
        raise ValueError(
            f"Scores and labels must have one dimension, a number a clip, but have shapes {scores.shape} and "
            f"{labels.shape}. Of logits, pass the bona fide column minus the spoof column."
        )
    if len(scores) != len(labels):
        raise ValueError(f"There are {len(scores)} scores but {len(labels)} labels: give one of each a clip.")
    if len(scores) == 0:
        raise ValueError("There are no scores: an equal error rate needs clips of both classes.")
    n_bad = int(np.count_nonzero(~np.isfinite(scores)))
    if n_bad:
        raise ValueError(
            f"{n_bad} of {len(scores)} scores are NaN or infinite (the first at position "
            f"{int(np.argmin(np.isfinite(scores)))}): they cannot be ranked. Look for a model that has diverged."
        )
    found = sorted(set(labels.tolist()), key=str)
    if not all(label in (0, 1) for label in found):
        shown = ", ".join(map(repr, found[:10])) + (", ..." if len(found) > 10 else "")
        raise ValueError(f"Labels must be 1 (bona fide) or 0 (spoof), but these were found: {shown}.")
    if len(found) == 1:
        present, missing = ("bona fide", "spoofed") if found[0] == 1 else ("spoofed", "bona fide")
        raise ValueError(
            f"All {len(scores)} clips are {present}: an equal error rate needs at least one {missing} clip too."
        )
    return scores, labels == 1
