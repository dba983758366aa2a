"""Equal error rates of spoof localization: per segment, and by duration.

Both compare scores over time with labels over time. A score holds for a range of time, and so does a label. Time that
lacks either, such as silence without a label, does not count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_gradalign.metrics.functional.eer import EqualError, official_equal_error
from hf_gradalign.metrics.functional.ranked_scores import BELOW_LOWEST, RankedScores

# Times are compared in whole microseconds: in floating point, an edge at 3 * 0.64 s is not one at 1.92 s.
_PER_SECOND = 1_000_000
_ROUNDING = 1e-12  # of differences of rates


class Ranges(NamedTuple):
    """Values over the time of a recording: scores, or labels (1 bona fide, 0 spoof).

    Attributes:
        starts: Where ranges start, in seconds, ascending, shape (ranges,).
        ends: Where they end, in seconds, shape (ranges,). Ranges may have gaps but do not overlap.
        values: A value for each range, shape (ranges,).
    """

    starts: ArrayLike
    ends: ArrayLike
    values: ArrayLike


class Pieces(NamedTuple):
    """Pieces of time of several recordings, each with one score and one label.

    Attributes:
        scores: Higher for bona fide, shape (pieces,).
        is_bonafide: Shape (pieces,).
        durations: In microseconds, shape (pieces,).
        recordings: The number of each piece's recording, shape (pieces,).
    """

    scores: NDArray[np.float64]
    is_bonafide: NDArray[np.bool_]
    durations: NDArray[np.int64]
    recordings: NDArray[np.int64]


def cells_of_windows(starts: ArrayLike, ends: ArrayLike, scores: ArrayLike) -> Ranges:
    """Return the score at each time from overlapping windows: the score of the window with the nearest center.

    Args:
        starts: Where windows start, in seconds, shape (windows,).
        ends: Where they end, in seconds, shape (windows,).
        scores: Their scores, shape (windows,).

    Returns:
        Ranges without gaps, from the start of the first window to the end of the last.

    Raises:
        ValueError: If there is no window, lengths differ, or centers do not ascend.
    """
    starts, ends, scores = (np.asarray(values, dtype=np.float64) for values in (starts, ends, scores))
    if not len(starts) == len(ends) == len(scores) > 0:
        raise ValueError(f"there are {len(starts)} starts, {len(ends)} ends and {len(scores)} scores of windows")
    centers = (starts + ends) / 2
    if np.any(centers[1:] <= centers[:-1]):
        raise ValueError("windows must be in the order of time, with different centers")
    between = (centers[1:] + centers[:-1]) / 2
    return Ranges(np.append(starts.min(), between), np.append(between, ends.max()), scores)


def segment_equal_error_rate(scores: Sequence[Ranges], labels: Sequence[Ranges], resolution: float) -> dict[str, float]:
    """Compute the equal error rate over segments of one length, from all recordings.

    A segment is spoofed if any part of it is, and its score is the lowest one in it. The rate is the official one, over
    all segments. Zhang et al., "An initial investigation for detecting partially spoofed audio" (Interspeech 2021,
    arXiv 2104.02518) and "The PartialSpoof database and countermeasures ..." (IEEE/ACM TASLP 31, 2023, arXiv
    2204.05177).

    Args:
        scores: For each recording, scores over time, higher for bona fide.
        labels: For each recording, labels over time, 1 bona fide and 0 spoof.
        resolution: Length of a segment in seconds. Segments start at 0, and the last one may be shorter.

    Returns:
        `segment_eer`, a fraction in [0, 1], and `threshold`: at this rate, segments with scores up to and including
        it count as spoof.

    Raises:
        ValueError: If the numbers of recordings differ, ranges are out of order, a score is not finite, a label is
            neither 0 nor 1, the resolution is not at least a microsecond, or segments of only one class have a score.
    """
    rate, threshold = error_of_segments(cut_segments(scores, labels, resolution))()
    return {"segment_eer": rate, "threshold": threshold}


def range_equal_error_rate(scores: Sequence[Ranges], labels: Sequence[Ranges]) -> dict[str, float]:
    """Compute the equal error rate by duration, which needs no segments.

    At a threshold, the false rejection rate is the share of bona fide time with a score up to it, and the false
    acceptance rate is the share of spoofed time with a higher score. The rate is the mean of both where they are
    closest. Zhang, Wang, Cooper, Evans and Yamagishi, "Range-based equal error rate for spoof localization"
    (Interspeech 2023, arXiv 2305.17739), who search for that threshold by bisection. Here all thresholds are compared.

    Args:
        scores: As for `segment_equal_error_rate`.
        labels: As for `segment_equal_error_rate`.

    Returns:
        `range_eer`, a fraction in [0, 1], and `threshold`: at this rate, time with scores up to and including it
        counts as spoof.

    Raises:
        ValueError: As for `segment_equal_error_rate`.
    """
    rate, threshold = error_of_time(cut_pieces(scores, labels))()
    return {"range_eer": rate, "threshold": threshold}


def cut_pieces(scores: Sequence[Ranges], labels: Sequence[Ranges]) -> Pieces:
    """Cut recordings where a score or a label changes, and leave out time that lacks either.

    Raises:
        ValueError: As for `segment_equal_error_rate`.
    """
    pieces = []
    for number, (scored, labeled) in enumerate(_pairs(scores, labels)):
        edges = _edges(scored, labeled)
        score, label = _values_at(edges[:-1], scored), _values_at(edges[:-1], labeled)
        kept = ~np.isnan(score) & ~np.isnan(label)
        durations = np.diff(edges)[kept]
        pieces.append(Pieces(score[kept], label[kept] == 1, durations, np.full(len(durations), number)))
    return _pool_pieces(pieces)


def cut_segments(scores: Sequence[Ranges], labels: Sequence[Ranges], resolution: float) -> Pieces:
    """Cut recordings into segments of one length, with their lowest score and label.

    Raises:
        ValueError: As for `segment_equal_error_rate`.
    """
    length = round(resolution * _PER_SECOND)
    if length < 1:
        raise ValueError(f"the resolution must be at least a microsecond, not {resolution} s")
    segments = []
    for number, (scored, labeled) in enumerate(_pairs(scores, labels)):
        edges = _edges(scored, labeled)
        edges = np.union1d(edges, np.arange(0, edges[-1], length)) if len(edges) else edges
        segment = edges[:-1] // length
        lowest = {}
        for name, ranges in (("score", scored), ("label", labeled)):
            values = np.full(int(segment.max(initial=-1)) + 1, np.inf)
            at_edges = _values_at(edges[:-1], ranges)
            known = ~np.isnan(at_edges)
            np.minimum.at(values, segment[known], at_edges[known])
            lowest[name] = values
        kept = np.isfinite(lowest["score"]) & np.isfinite(lowest["label"])
        durations = np.full(np.count_nonzero(kept), length)
        numbers = np.full(len(durations), number)
        segments.append(Pieces(lowest["score"][kept], lowest["label"][kept] == 1, durations, numbers))
    return _pool_pieces(segments)


ErrorOfSample = Callable[..., EqualError]
"""Computes an equal error from how often each recording counts, shape (recordings,). By default, each counts once."""


def error_of_segments(segments: Pieces) -> ErrorOfSample:
    """Return a function that computes the official equal error of segments."""
    ranked = RankedScores(segments.scores, segments.is_bonafide)

    def compute(counts: NDArray[np.int64] | None = None) -> EqualError:
        return official_equal_error(ranked.counted(None if counts is None else counts[segments.recordings]))

    return compute


def error_of_time(pieces: Pieces) -> ErrorOfSample:
    """Return a function that computes the equal error by duration."""
    distinct, group = np.unique(pieces.scores, return_inverse=True)

    def compute(counts: NDArray[np.int64] | None = None) -> EqualError:
        durations = pieces.durations if counts is None else pieces.durations * counts[pieces.recordings]
        bonafide, spoof = (
            np.append(0, np.cumsum(np.bincount(group, durations * (pieces.is_bonafide == is_bonafide))))
            for is_bonafide in (True, False)
        )
        frr, far = bonafide / bonafide[-1], (spoof[-1] - spoof) / spoof[-1]
        gaps = np.abs(frr - far)
        index = int(np.argmax(gaps <= gaps.min() + _ROUNDING))  # the first of the closest points, as the official rate
        threshold = distinct[index - 1] if index else distinct[0] - BELOW_LOWEST
        return EqualError(float(frr[index] + far[index]) / 2, float(threshold))

    return compute


_Ticks = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]


def _pairs(scores: Sequence[Ranges], labels: Sequence[Ranges]) -> list[tuple[_Ticks, _Ticks]]:
    if len(scores) != len(labels):
        raise ValueError(f"There are scores of {len(scores)} recordings but labels of {len(labels)}.")
    return [
        (_to_ticks(scored, "scores", number), _to_ticks(labeled, "labels", number))
        for number, (scored, labeled) in enumerate(zip(scores, labels, strict=True))
    ]


def _to_ticks(ranges: Ranges, what: str, number: int) -> _Ticks:
    starts, ends, values = (np.asarray(part, dtype=np.float64) for part in ranges)
    if not len(starts) == len(ends) == len(values):
        raise ValueError(f"Recording {number} has {len(starts)} starts, {len(ends)} ends and {len(values)} {what}.")
    if not np.isfinite(np.concatenate([starts, ends, values])).all():
        raise ValueError(f"Recording {number} has a time, or one of its {what}, that is NaN or infinite.")
    if what == "labels" and not np.isin(values, (0, 1)).all():
        raise ValueError(f"Labels must be 1 (bona fide) or 0 (spoof), but recording {number} has others.")
    starts, ends = (np.round(times * _PER_SECOND).astype(np.int64) for times in (starts, ends))
    if np.any(starts[1:] < ends[:-1]) or np.any(ends < starts) or np.any(starts < 0):
        raise ValueError(f"The {what} of recording {number} overlap, or are not in the order of time.")
    kept = ends > starts
    return starts[kept], ends[kept], values[kept]


def _edges(scored: _Ticks, labeled: _Ticks) -> NDArray[np.int64]:
    """Return where a score or a label may change, up to the last score."""
    edges = np.unique(np.concatenate([*scored[:2], *labeled[:2]]))
    return edges[edges <= scored[1].max(initial=0)]


def _values_at(times: NDArray[np.int64], ranges: _Ticks) -> NDArray[np.float64]:
    """Return the values of the ranges that contain these times; NaN in gaps."""
    starts, ends, values = ranges
    if not len(starts):
        return np.full(len(times), np.nan)
    index = np.searchsorted(starts, times, side="right") - 1
    return np.where((index >= 0) & (times < ends[index]), values[index], np.nan)


def _pool_pieces(pieces: Sequence[Pieces]) -> Pieces:
    pooled = Pieces(*map(np.concatenate, zip(*pieces, strict=True))) if pieces else None
    if pooled is None or not len(pooled.scores):
        raise ValueError("No time of any recording has both a score and a label.")
    if pooled.is_bonafide.all() or not pooled.is_bonafide.any():
        only, missing = ("bona fide", "spoofed") if pooled.is_bonafide[0] else ("spoofed", "bona fide")
        raise ValueError(
            f"All time with a score and a label is {only}: an equal error rate needs at least some that is {missing}."
        )
    return pooled
