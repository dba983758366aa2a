"""The equal error point of counted scores: the official one, and the Arena's by interpolation.

Along the thresholds the false rejection rate only rises and the false acceptance rate only falls, so the point where
they meet is found by halving; rates are computed there alone. Rates and means are formed as the two packages form
them, which keeps the last digit.
"""

from bisect import bisect_left
from typing import NamedTuple

from hf_gradalign.metrics.functional.ranked_scores import CountedScores


class EqualError(NamedTuple):
    """Where as large a share of bona fide clips is rejected as of spoofed ones is accepted."""

    rate: float
    threshold: float


def official_equal_error(counted: CountedScores) -> EqualError:
    """The first of the nearest points of the ASVspoof packages' curve, which rejects clip by clip.

    A clip that is counted several times is rejected that many times, one after the other. Scores that are all equal
    carry no information and give 0.5 (the official formula would give 1).
    """
    if counted.lowest_score == counted.highest_score:
        return EqualError(0.5, counted.lowest_score)
    n_bonafide, n_spoof = counted.n_bonafide, counted.n_spoof

    def excess(place: int) -> int:
        """False rejection rate minus false acceptance rate, times both numbers: exact."""
        bonafide, spoof = counted.rejected_at(place)
        return bonafide * n_spoof - (n_spoof - spoof) * n_bonafide

    crossing = bisect_left(range(len(counted.ranked) + 1), 0, key=excess)
    # Between these two thresholds lies one clip, counted once or more.
    bonafide, spoof = counted.rejected_at(crossing - 1)
    is_bonafide = bool(counted.ranked.is_bonafide[crossing - 1])
    times = -(excess(crossing - 1) // (n_spoof if is_bonafide else n_bonafide))

    def rates(n_rejected: int) -> tuple[float, float]:
        bonafide_below = bonafide + n_rejected * is_bonafide
        spoof_below = spoof + n_rejected * (not is_bonafide)
        return bonafide_below / n_bonafide, (n_spoof - spoof_below) / n_spoof

    before, after = rates(times - 1), rates(times)
    is_before = abs(before[0] - before[1]) <= abs(after[0] - after[1])
    place = crossing - 1 if is_before and times == 1 else crossing
    return EqualError(sum(before if is_before else after) / 2, counted.official_threshold(place))


def interpolated_equal_error(counted: CountedScores) -> EqualError:
    """Where the straight lines between the points of the curve over the *different* scores meet.

    A threshold is one of the scores, and clips with that score or a higher one are accepted (the Arena's tool,
    speech_spoof_bench 0.3).
    """
    starts, scores = counted.ranked.starts, counted.ranked.scores
    n_bonafide, n_spoof = counted.n_bonafide, counted.n_spoof

    def rates(group: int) -> tuple[float, float]:
        bonafide, spoof = counted.rejected_at(starts[group])
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
    # A score that is not counted is no threshold. It has the next one's rates, so the one before is counted.
    before, after = after - 1, group_of(counted.first_counted(int(starts[after])))
    (far, frr), (next_far, next_frr) = rates(before), rates(after)
    share = (far - frr) / ((far - frr) - (next_far - next_frr))
    low, high = float(scores[starts[before]]), float(scores[starts[after]])
    rate = ((far + share * (next_far - far)) + (frr + share * (next_frr - frr))) / 2.0
    return EqualError(rate, low + share * (high - low))
