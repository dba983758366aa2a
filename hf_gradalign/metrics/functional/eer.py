"""The detection error curve, its equal error rate, and warnings for suspicious scores.

There are two equal error rates: the official one of the ASVspoof packages, and the interpolated one of the Speech
Anti-Spoofing Arena.
"""

import warnings
from bisect import bisect_left
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_gradalign.metrics.functional.ranked_scores import BELOW_LOWEST, CountedScores, RankedScores

# Warn about ties if the order of equal scores changes the equal error rate by more than this.
_TIES_MATTER = 0.001
# Up to this many clips may well have only two different scores.
_FEW_CLIPS = 10


class DetectionErrorCurve(NamedTuple):
    """Both error rates of a detector at each threshold, from accepting every clip to rejecting every clip.

    Attributes:
        false_rejection_rate: Share of bona fide clips rejected, ascending from 0 to 1, shape (clips + 1,).
        false_acceptance_rate: Share of spoofed clips accepted, descending from 1 to 0, shape (clips + 1,).
        thresholds: Scores up to and including which a clip is rejected, ascending, shape (clips + 1,).
    """

    false_rejection_rate: NDArray[np.float64]
    false_acceptance_rate: NDArray[np.float64]
    thresholds: NDArray[np.float64]


def detection_error_curve(scores: ArrayLike, labels: ArrayLike) -> DetectionErrorCurve:
    """Compute both error rates at every threshold.

    Clips with the same score are ranked one by one, the bona fide ones first. This is pessimistic. The scoring packages
    of the ASVspoof challenges do the same (`compute_det_curve`), so the rates are comparable with published ones.

    Args:
        scores: One number per clip, higher for bona fide, shape (clips,).
        labels: One label per clip, 1 bona fide and 0 spoof, shape (clips,).

    Returns:
        The curve, with one more entry than there are clips.

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
    """Compute the equal error rate: the error where equal shares of bona fide and spoofed clips are misclassified.

    This is the mean of the two error rates at the first point of the curve where they are closest, without
    interpolation (the official ASVspoof definition, as in the evaluation plans of ASVspoof 2019 to 5).

    Args:
        scores: One number per clip, higher for bona fide, shape (clips,); any array-like.
        labels: One label per clip, 1 bona fide and 0 spoof, shape (clips,).

    Returns:
        `eer`, a fraction in [0, 1], and `threshold`, the score up to and including which a clip is rejected there.
        If all scores are equal, they carry no information and the rate is 0.5 (the official formula would give 1).

    Warns:
        UserWarning: If scores are all equal, have only two values, are tied across the classes so that the rate depends
            on the order of ties, or seem to be inverted.

    Raises:
        ValueError: As for `detection_error_curve`.
    """
    counted = RankedScores(scores, labels).counted()
    warn_of_problems(counted)
    rate, threshold = official_equal_error(counted)
    return {"eer": rate, "threshold": threshold}


def interpolated_equal_error_rate(scores: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """Compute the equal error rate by linear interpolation, as the Speech Anti-Spoofing Arena does.

    The curve has a point for each *different* score t: clips with a score of t or more are accepted. The rate is where
    straight lines cross between the two neighboring points at which the false acceptance rate falls to the false
    rejection rate or below. If even the highest score accepts a larger share of spoofed clips than it rejects of bona
    fide ones, the rate is the mean of its two rates (speech_spoof_bench 0.3, `eer_percent`, there in percent).

    Args:
        scores: One number per clip, higher for bona fide, shape (clips,); any array-like.
        labels: One label per clip, 1 bona fide and 0 spoof, shape (clips,).

    Returns:
        `eer`, a fraction in [0, 1], and `threshold`, also interpolated.

    Warns:
        UserWarning: As for `equal_error_rate`.

    Raises:
        ValueError: As for `detection_error_curve`.
    """
    counted = RankedScores(scores, labels).counted()
    warn_of_problems(counted)
    rate, threshold = interpolated_equal_error(counted)
    return {"eer": rate, "threshold": threshold}


class EqualError(NamedTuple):
    """The point where equal shares of bona fide clips are rejected and of spoofed clips are accepted."""

    rate: float
    threshold: float


# Along the thresholds the false rejection rate only rises and the false acceptance rate only falls, so bisection finds
# where they meet, and rates are computed only there. Both functions form rates and means in the order of the package
# that they reproduce, which keeps the last digit.


def official_equal_error(counted: CountedScores) -> EqualError:
    """Return the first of the closest points of the ASVspoof packages' curve, which rejects clip by clip.

    A clip that is counted several times is rejected that many times, one after the other. If all scores are equal, they
    carry no information and the rate is 0.5 (the official formula would give 1).
    """
    if counted.lowest_score == counted.highest_score:
        return EqualError(0.5, counted.lowest_score)
    n_bonafide, n_spoof = counted.n_bonafide, counted.n_spoof

    def excess(index: int) -> int:
        """Return the false rejection rate minus the false acceptance rate, times both class sizes to keep it exact."""
        bonafide, spoof = counted.rejected_at(index)
        return bonafide * n_spoof - (n_spoof - spoof) * n_bonafide

    crossing = bisect_left(range(len(counted.ranked) + 1), 0, key=excess)
    # One clip, counted once or more, lies between these two thresholds.
    bonafide, spoof = counted.rejected_at(crossing - 1)
    is_bonafide = bool(counted.ranked.is_bonafide[crossing - 1])
    times = -(excess(crossing - 1) // (n_spoof if is_bonafide else n_bonafide))

    def rates(n_rejected: int) -> tuple[float, float]:
        bonafide_below = bonafide + n_rejected * is_bonafide
        spoof_below = spoof + n_rejected * (not is_bonafide)
        return bonafide_below / n_bonafide, (n_spoof - spoof_below) / n_spoof

    before, after = rates(times - 1), rates(times)
    is_before = abs(before[0] - before[1]) <= abs(after[0] - after[1])
    index = crossing - 1 if is_before and times == 1 else crossing
    return EqualError(sum(before if is_before else after) / 2, counted.official_threshold(index))


def interpolated_equal_error(counted: CountedScores) -> EqualError:
    """Return where the straight lines between the points of the curve over the *different* scores cross.

    A threshold is one of the scores, and clips with that score or a higher one are accepted (as in the Arena's tool,
    speech_spoof_bench 0.3).
    """
    starts, scores = counted.ranked.starts, counted.ranked.scores
    n_bonafide, n_spoof = counted.n_bonafide, counted.n_spoof

    def rates(group: int) -> tuple[float, float]:
        bonafide, spoof = counted.rejected_at(int(starts[group]))
        return (n_spoof - spoof) / n_spoof, bonafide / n_bonafide

    def excess(group: int) -> float:
        far, frr = rates(group)
        return frr - far

    def group_of(clip: int) -> int:
        return bisect_left(starts, clip + 1) - 1

    last = group_of(counted.last_counted(len(counted.ranked)))
    after = bisect_left(range(last + 1), 0.0, key=excess)
    if after > last:  # even the highest score accepts too many spoofed clips
        far, frr = rates(last)
        return EqualError((far + frr) / 2.0, float(scores[starts[last]]))
    # A score that is not counted is not a threshold. It has the rates of the next one, so the one before it is counted.
    before, after = after - 1, group_of(counted.first_counted(int(starts[after])))
    (far, frr), (next_far, next_frr) = rates(before), rates(after)
    share = (far - frr) / ((far - frr) - (next_far - next_frr))
    low, high = float(scores[starts[before]]), float(scores[starts[after]])
    rate = ((far + share * (next_far - far)) + (frr + share * (next_frr - frr))) / 2.0
    return EqualError(rate, low + share * (high - low))


def score_problems(counted: CountedScores) -> list[str]:
    """Return warnings about scores that are valid but suspicious: equal, binary, tied or inverted.

    Returns:
        One sentence per problem, the most basic first.
    """
    ranked = counted.ranked
    lowest, highest = counted.lowest_score, counted.highest_score
    if lowest == highest:
        return [
            f"All {len(ranked)} scores are equal ({lowest:g}), so they carry no information about the class, and the "
            "equal error rate is reported as 0.5. Check that you scored the model's output."
        ]
    problems = []
    rate, best_rate = official_equal_error(counted).rate, _rate_with_spoof_first(ranked)
    if len(ranked.starts) == 2 and len(ranked) > _FEW_CLIPS:
        problems.append(
            f"There are only two different scores ({lowest:g} and {highest:g}). They look like decisions, but metrics "
            "that sweep a threshold need scores. Use the model's logits or probabilities."
        )
    elif best_rate + _TIES_MATTER < rate:
        problems.append(
            f"Clips of both classes share scores ({len(ranked)} clips, {len(ranked.starts)} different scores). The "
            f"official equal error rate, {rate:.4f}, counts such ties against the detector; counted in its favor they "
            f"would give {best_rate:.4f}. Keep more digits, or score with logits if probabilities are all 0 or 1."
        )
    if best_rate > 0.5:
        problems.append(
            f"The equal error rate is {rate:.4f}, above 0.5: the scores may be inverted. They must be higher for bona "
            "fide clips, and a label of 1 must mean bona fide."
        )
    return problems


def warn_of_problems(counted: CountedScores) -> None:
    """Issue a `UserWarning` for each of the `score_problems`, at the line that called the metric."""
    for problem in score_problems(counted):
        warnings.warn(problem, UserWarning, stacklevel=3)


def _rate_with_spoof_first(ranked: RankedScores) -> float:
    """Return the official equal error rate if spoofed clips came first among equal scores."""
    bonafide = np.add.reduceat(ranked.is_bonafide, ranked.starts, dtype=np.int64)
    sizes = np.diff(np.append(ranked.starts, len(ranked)))
    if not np.any((bonafide > 0) & (bonafide < sizes)):
        return official_equal_error(ranked.counted()).rate
    # With the signs flipped, bona fide clips come first from the other end, and the rates are those of the opposite
    # decision.
    flipped = RankedScores(-ranked.scores, ranked.is_bonafide)
    return 1.0 - official_equal_error(flipped.counted()).rate
