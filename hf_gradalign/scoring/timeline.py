"""Scores over the time of a recording: one for each of many overlapping windows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from transformers.utils import logging

from hf_gradalign.audio import AudioDecodingError
from hf_gradalign.data import BadAudioError, BadClip
from hf_gradalign.data.checking import OutOfRangeClips
from hf_gradalign.scoring.chunks import as_clips, name_of
from hf_gradalign.scoring.stretches import Stretch, cut_stretches
from hf_gradalign.scoring.window_sharing import Shared, window_scoring
from hf_gradalign.scoring.windowing import ClipWindows, settle_windowing

if TYPE_CHECKING:
    from hf_gradalign.scoring.scorer import SpoofScorer

logger = logging.get_logger(__name__)

DEFAULT_HOP_SECONDS = 0.5


@dataclass(frozen=True, eq=False)
class Timeline:
    """The scores of a recording's windows, in order of time.

    A window's score is about the whole window, so it belongs to the window's center. Nothing tells where in the window
    a spoofed part is.

    Attributes:
        starts: Where the windows start, in seconds, shape (windows,), ascending. They are a hop apart. Only the last
            window is moved back, so that it ends with the recording.
        ends: Where they end, in seconds, shape (windows,). A recording that is shorter than a window is repeated to
            fill it, and its only window ends with the recording.
        scores: Their scores, higher for bona fide, shape (windows,).
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
    """Score the windows of a recording. Same as `SpoofScorer.timeline`."""
    clips = as_clips(clip, sampling_rate)
    if len(clips) != 1:
        raise ValueError(f"a timeline is of one recording, not of {len(clips)} clips: call it for each of them")
    length, hop = timeline_windows(scorer, window_seconds, hop_seconds)
    rate = scorer.sampling_rate
    samples = ClipWindows(clips[0], rate, settle_windowing(scorer.feature_extractor, "all"), scorer.rms_level)
    scoring = window_scoring(scorer, length, hop, share_encoder)
    starts: list[int] = []
    n_scored = 0
    scores: list[NDArray[np.float64]] = []
    stretch: Stretch | None = None
    try:
        for stretch in cut_stretches(samples.blocks(), length, hop, scoring.n_windows, scoring.context):
            starts += stretch.starts
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
    loud.add(name_of(clips[0], 0), samples.peak)
    if note := loud.note(1):
        logger.warning(f"{note}.")
    begins = np.array(starts) / rate
    duration = stretch.n_samples / rate
    return Timeline(
        starts=begins,
        ends=np.minimum(begins + length / rate, duration),
        scores=by_window,
        duration=duration,
        is_calibrated=getattr(scorer, "calibration", None) is not None,
        shared=scoring.shared,
    )


def timeline_windows(
    scorer: SpoofScorer, window_seconds: float | None = None, hop_seconds: float | None = None
) -> tuple[int, int]:
    """Return the length of a timeline's windows and the distance between them, in samples.

    Raises:
        ValueError: If a length is out of range, or the windows would leave gaps.
    """
    chosen = settle_windowing(scorer.feature_extractor, "all", window_seconds, hop_seconds)
    length = scorer.windowing.n_samples if window_seconds is None else chosen.n_samples
    hop = chosen.hop_samples or scorer.windowing.hop_samples
    if hop is None:
        hop = min(round(DEFAULT_HOP_SECONDS * scorer.sampling_rate), length)
    if hop > length:
        hop_text, window = (f"{samples / scorer.sampling_rate:g} s" for samples in (hop, length))
        raise ValueError(f"hop_seconds ({hop_text}) exceeds the window ({window}), so parts would not be scored")
    return length, hop


def _bad_audio(clip: Any, reason: str) -> BadAudioError:
    bad = BadClip(name_of(clip, 0), None, reason)
    return BadAudioError(f"the recording cannot be scored: {bad}", [bad])
