"""The detection error curve and its equal error points: the ASVspoof packages' and the Arena's."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_gradalign.metrics.functional.eer import interpolated_equal_error, official_equal_error
from hf_gradalign.metrics.functional.ranked_scores import BELOW_LOWEST, RankedScores
from hf_gradalign.metrics.functional.score_problems import warn_of_problems


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
    scoring packages of the ASVspoof challenges do it (`compute_det_curve`), so that figures compare with published
    ones.

    Args:
        scores: One number a clip, higher for bona fide, shape (clips,).
        labels: One label a clip, 1 bona fide and 0 spoof, shape (clips,).

    Returns:
        The curve, with one entry more than there are clips.

    Raises:
        ValueError: If lengths differ, there is no clip, a score is not finite, a label is neither 0 nor 1, or all
            clips are of one class.
    """
    ranked = RankedScores(scores, labels)
    counted = ranked.counted()
    return DetectionErrorCurve(
        false_rejection_rate=counted.false_rejection_rate,
        false_acceptance_rate=counted.false_acceptance_rate,
        thresholds=np.append(ranked.scores[0] - BELOW_LOWEST, ranked.scores),
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
        Where all scores are equal they carry no information, and the rate is 0.5 (the official formula would give 1).

    Warns:
        UserWarning: If scores are all equal, of two values only, tied across the classes so that the rate hangs on
            it, or seem to be inverted.

    Raises:
        ValueError: As `detection_error_curve`.
    """
    counted = RankedScores(scores, labels).counted()
    warn_of_problems(counted)
    rate, threshold = official_equal_error(counted)
    return {"eer": rate, "threshold": threshold}


def interpolated_equal_error_rate(scores: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """Equal error rate by linear interpolation, as the Speech Anti-Spoofing Arena computes it.

    The curve has a point for each *different* score t: clips with a score of t or more are accepted. Between the two
    neighbouring points where the false acceptance rate falls to the false rejection rate or under it, straight lines
    are drawn and cut. Where even the highest score accepts a larger share of spoofed clips than it rejects of bona fide
    ones, the mean of its two rates is taken (speech_spoof_bench 0.3, `eer_percent`, there in per cent).

    Args:
        scores: One number a clip, higher for bona fide, shape (clips,); any array-like.
        labels: One label a clip, 1 bona fide and 0 spoof, shape (clips,).

    Returns:
        `eer`, a fraction in [0, 1], and `threshold`, interpolated too.

    Warns:
        UserWarning: As `equal_error_rate`.

    Raises:
        ValueError: As `detection_error_curve`.
    """
    counted = RankedScores(scores, labels).counted()
    warn_of_problems(counted)
    rate, threshold = interpolated_equal_error(counted)
    return {"eer": rate, "threshold": threshold}
