"""Scores a recording over time: one score for each of many overlapping windows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from transformers.utils import logging

from hf_gradalign.audio import AudioDecodingError
from hf_gradalign.data import BadAudioError, BadClip
from hf_gradalign.data.checking import OutOfRangeClips, is_silent, silence_note
from hf_gradalign.scoring.chunks import as_clips, clip_name
from hf_gradalign.scoring.verdict import DecisionRule
from hf_gradalign.scoring.window_sharing import Shared, window_scoring
from hf_gradalign.scoring.windowing import ClipWindows, Stretch, Windowing, choose_windowing, cut_stretches

if TYPE_CHECKING:
    from hf_gradalign.scoring.scorer import SpoofScorer

logger = logging.get_logger(__name__)

DEFAULT_HOP_SECONDS = 0.5
_EPSILON = 1e-6  # seconds
_STEP = 0.02  # seconds
_SHARP = 0.85  # chosen with another model, where 0.8 to 0.95 work about as well (docs/verdicts.md)


class ChangePoint(NamedTuple):
    """The boundary between two parts of a recording.

    Attributes:
        time: In seconds.
        before: Mean score of the windows with an earlier center.
        after: Mean score of the other windows.
    """

    time: float
    before: float
    after: float


class Segment(NamedTuple):
    """A part of a recording with one label.

    Attributes:
        start: In seconds.
        end: In seconds.
        label: The class according to the windows' scores.
        score: Mean score of the windows.
    """

    start: float
    end: float
    label: Literal["bonafide", "spoof"]
    score: float


@dataclass(frozen=True, eq=False)
class Timeline:
    """The scores of a recording's windows, in order of time.

    A window's score is about the whole window, so it belongs to the window's center. It does not tell where in the
    window a spoofed part is.

    Attributes:
        starts: Where the windows start, in seconds, shape (windows,), ascending. They are one hop apart, except that
            the last window is moved back to end with the recording.
        ends: Where the windows end, in seconds, shape (windows,). A recording that is shorter than a window is repeated
            to fill it, and its only window ends with the recording.
        scores: The windows' scores, higher for bona fide, shape (windows,).
        duration: Duration of the recording in seconds.
        is_calibrated: Whether scores are log-likelihood ratios, because the model is calibrated.
        shared: What windows shared when they were scored: "nothing", "convolutions" or "encoder".
    """

    starts: NDArray[np.float64]
    ends: NDArray[np.float64]
    scores: NDArray[np.float64]
    duration: float
    is_calibrated: bool
    shared: Shared = "nothing"

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def centers(self) -> NDArray[np.float64]:
        """Centers of the windows in seconds, shape (windows,)."""
        return (self.starts + self.ends) / 2

    def change_point(self) -> ChangePoint:
        """Find the boundary in a recording that has one, such as a bona fide part followed by a spoofed one.

        First, the windows' scores are split in two by time, so that the squared distances to the means of both parts
        are smallest. This is the most likely change between two levels with equal Gaussian noise. A window across the
        boundary contains parts of both sides, so the split may be off by up to half a window. Among the times within
        half a window of the split, the boundary is where the window that ends there and the one that starts there
        differ most. If neighboring times differ almost as much, the boundary is their weighted mean. If a model scores
        any mixture like one of its parts, the boundary may be anywhere in a window.

        There is always a result. `before` and `after` show whether there is a boundary at all.

        Raises:
            ValueError: If there are fewer than two windows.
        """
        n = len(self)
        if n < 2:
            raise ValueError(
                f"a change needs at least two windows, but a recording of {self.duration:g} s has {n} of "
                f"{self.ends[0] - self.starts[0]:g} s: use shorter windows (window_seconds)"
            )
        sums = np.cumsum(self.scores)[:-1]
        sizes = np.arange(1, n)
        # Largest where the squared distances to both means are smallest.
        between = sums**2 / sizes + (self.scores.sum() - sums) ** 2 / (n - sizes)
        split = int(np.argmax(between)) + 1
        rough = (self.centers[split - 1] + self.centers[split]) / 2
        time = self._sharpest(rough, self.scores[:split].mean() > self.scores[split:].mean())
        earlier = self.centers < time
        return ChangePoint(time, float(self.scores[earlier].mean()), float(self.scores[~earlier].mean()))

    def segments(self, threshold: float | None = None) -> list[Segment]:
        """Divide the recording where scores cross a threshold.

        Windows belong to the time around their centers. A boundary between windows on different sides of the threshold
        is moved as in `change_point`, by up to half a window and not beyond the middle of a neighboring segment.

        Args:
            threshold: Windows with this score or more are bona fide, others spoofed. Defaults to the threshold of
                verdicts: the Bayes threshold for a calibrated model (`DecisionRule`), otherwise 0.

        Returns:
            Segments in order of time, without gaps, with alternating labels.
        """
        if threshold is None:
            threshold = DecisionRule(self.is_calibrated).threshold
        is_bonafide = self.scores >= threshold
        changes = np.flatnonzero(is_bonafide[1:] != is_bonafide[:-1]) + 1
        crossings = (self.centers[changes - 1] + self.centers[changes]) / 2
        limits = np.concatenate([[0.0], crossings, [self.duration]])
        middles = (limits[1:] + limits[:-1]) / 2
        times = [
            self._sharpest(rough, bool(is_bonafide[change - 1]), low, high)
            for rough, change, low, high in zip(crossings, changes, middles[:-1], middles[1:], strict=True)
        ]
        edges = [0.0, *times, self.duration]
        runs = np.split(np.arange(len(self)), changes)
        return [
            Segment(start, end, "bonafide" if is_bonafide[run[0]] else "spoof", float(self.scores[run].mean()))
            for start, end, run in zip(edges[:-1], edges[1:], runs, strict=True)
        ]

    def _sharpest(self, rough: float, falls: bool, low: float = 0.0, high: float = np.inf) -> float:
        """Return where, near a rough boundary, the window that ends and the one that starts there differ most.

        Scores are interpolated between overlapping windows. They saturate, so several neighboring times may be about
        equally sharp. Each time is weighted by how far it exceeds `_SHARP` of the largest difference.

        Args:
            rough: The boundary, which is returned if no windows end and start near it.
            falls: Whether scores fall there.
            low: The earliest time.
            high: The latest time.
        """
        window, centers = self.ends[0] - self.starts[0], self.centers
        if self.starts[1] - self.starts[0] < window - _EPSILON:
            n_steps = int((window / 2 + _EPSILON) / _STEP)
            times = rough + _STEP * np.arange(-n_steps, n_steps + 1)
        else:
            times = self.ends
        near = np.abs(times - rough) <= window / 2 + _EPSILON
        covered = (times >= self.ends[0] - _EPSILON) & (times <= self.starts[-1] + _EPSILON)
        times = times[near & covered & (times > low) & (times < high)]
        if not len(times):
            return float(rough)
        fall = np.interp(times - window / 2, centers, self.scores) - np.interp(times + window / 2, centers, self.scores)
        fall *= 1 if falls else -1
        sharpest = np.flatnonzero(fall >= fall.max() - _EPSILON)
        peak = sharpest[np.argmin(np.abs(times[sharpest] - rough))]
        if fall[peak] <= 0:
            return float(times[peak])
        weights = fall - _SHARP * fall.max()
        flat = np.flatnonzero(weights <= 0)
        around = slice(max(flat[flat < peak], default=-1) + 1, min(flat[flat > peak], default=len(fall)))
        return float(times[around] @ (weights[around] / weights[around].sum()))


def score_timeline(
    scorer: SpoofScorer,
    clip: Any,
    sampling_rate: int | None = None,
    *,
    window_seconds: float | None = None,
    hop_seconds: float | None = None,
    share_encoder: bool = False,
    progress: Callable[[float], None] | None = None,
) -> Timeline:
    """Score the windows of a recording, as `SpoofScorer.timeline` does."""
    clips = as_clips(clip, sampling_rate)
    if len(clips) != 1:
        raise ValueError(f"a timeline takes one recording, not {len(clips)} clips: call it for each of them")
    length, hop = timeline_windows(scorer, window_seconds, hop_seconds)
    rate = scorer.sampling_rate
    samples = ClipWindows(clips[0], rate, choose_windowing(scorer.feature_extractor, "all"), scorer.rms_level)
    if window_seconds is not None:
        scorer.outputs.warn_about_other_windows({**Windowing(length).settings, "rms_level": scorer.rms_level})
    scoring = window_scoring(scorer, length, hop, share_encoder)
    starts: list[int] = []
    n_scored = 0
    has_signal = False
    scores: list[NDArray[np.float64]] = []
    stretch: Stretch | None = None
    try:
        for stretch in cut_stretches(samples.blocks(), length, hop, scoring.n_windows, scoring.context):
            starts += stretch.starts
            has_signal = has_signal or not is_silent(stretch.samples)
            for batch in scoring.scores(stretch):
                scores.append(batch)
                n_scored += len(batch)
                if progress is not None and samples.seconds:
                    progress(min((starts[n_scored - 1] + length) / (samples.seconds * rate), 1.0))
    except AudioDecodingError as error:
        raise _bad_audio(clips[0], error.reason) from error
    assert stretch is not None  # decoding gives at least one sample
    by_window = np.concatenate(scores)
    if not np.isfinite(by_window).all():
        first = starts[int(np.argmin(np.isfinite(by_window)))] / rate
        raise _bad_audio(clips[0], f"the model gave a score that is not finite for the window at {first:g} s")
    loud = OutOfRangeClips()
    loud.add(clip_name(clips[0], 0), samples.peak)
    for note in (loud.note(1), silence_note([] if has_signal else [clip_name(clips[0], 0)], 1)):
        if note:
            logger.warning(f"{note}.")
    begins = np.array(starts) / rate
    duration = stretch.n_samples / rate
    return Timeline(
        starts=begins,
        ends=np.minimum(begins + length / rate, duration),
        scores=by_window,
        duration=duration,
        is_calibrated=scorer.calibration is not None,
        shared=scoring.shared,
    )


def timeline_windows(
    scorer: SpoofScorer, window_seconds: float | None = None, hop_seconds: float | None = None
) -> tuple[int, int]:
    """Return the length of a timeline's windows and the distance between them, in samples.

    Raises:
        ValueError: If a length is out of range, or the windows would leave gaps.
    """
    chosen = choose_windowing(scorer.feature_extractor, "all", window_seconds, hop_seconds)
    length = scorer.windowing.n_samples if window_seconds is None else chosen.n_samples
    hop = chosen.hop_samples or scorer.windowing.hop_samples
    if hop is None:
        hop = min(round(DEFAULT_HOP_SECONDS * scorer.sampling_rate), length)
    if hop > length:
        hop_text, window = (f"{samples / scorer.sampling_rate:g} s" for samples in (hop, length))
        raise ValueError(f"hop_seconds ({hop_text}) exceeds the window ({window}), so parts would not be scored")
    return length, hop


def _bad_audio(clip: Any, reason: str) -> BadAudioError:
    bad = BadClip(clip_name(clip, 0), None, reason)
    return BadAudioError(f"the recording cannot be scored: {bad}", [bad])
