"""Draws a recording over time: waveform, spectrogram and window scores (matplotlib, the extra `plots`)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_gradalign.scoring.chunks import as_clips
from hf_gradalign.scoring.timeline import Timeline
from hf_gradalign.scoring.verdict import DecisionRule
from hf_gradalign.scoring.windowing import ClipWindows, Windowing
from hf_gradalign.utils.figure_style import BLUE, GRAY, STYLE, VERMILION, import_matplotlib
from hf_gradalign.utils.plain_text import one_line

_RATE = 16_000
_FRAME = 512
_COLUMNS = 1000  # about a pixel each
_RANGE = 70.0  # of the spectrogram, in decibels
_MAX_TITLE = 100


def draw_timeline(
    timeline: Timeline,
    clip: Any,
    sampling_rate: int | None = None,
    *,
    threshold: float | None = None,
    title: str = "",
) -> Any:
    """Draw a recording's waveform and spectrogram with the scores of its windows below.

    Each score is drawn at the center of its window. Spoofed segments have a colored background. Recordings of hours are
    read piece by piece.

    Args:
        timeline: The recording's timeline.
        clip: The recording, as for `SpoofScorer.timeline`.
        sampling_rate: A waveform's sampling rate in Hz. Defaults to 16,000.
        threshold: As for `Timeline.segments`.
        title: Title of the figure.

    Returns:
        A matplotlib `Figure`, which can be saved or shown and does not belong to a window.

    Raises:
        ImportError: If matplotlib is not installed; the message says how to install it.
        AudioDecodingError: If the recording cannot be decoded.
    """
    matplotlib = import_matplotlib()
    from matplotlib.figure import Figure

    threshold = DecisionRule(timeline.is_calibrated).threshold if threshold is None else threshold
    blocks = ClipWindows(as_clips(clip, sampling_rate)[0], _RATE, Windowing(_FRAME, "all")).blocks()
    low, high, power = _columns(blocks, round(timeline.duration * _RATE))
    times = np.linspace(0, timeline.duration, len(low), endpoint=False)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8, 5), layout="constrained")
        wave, spectrogram, scores = figure.subplots(3, sharex=True, height_ratios=[1, 2, 2])
        wave.fill_between(times, low, high, color=BLUE, linewidth=0)
        wave.set(ylabel="amplitude", yticks=[])
        decibels = 10 * np.log10(np.maximum(power, 1e-12))
        extent = (0, timeline.duration, 0, _RATE / 2000)
        spectrogram.imshow(
            decibels.T, origin="lower", aspect="auto", extent=extent, cmap="magma", vmin=decibels.max() - _RANGE
        )
        spectrogram.set_ylabel("frequency (kHz)")
        scores.plot(timeline.centers, timeline.scores, color="black", linewidth=1, marker="." * (len(timeline) < 60))
        scores.axhline(threshold, color=GRAY, linestyle="--", linewidth=1, label=f"threshold {threshold:.2f}")
        labeled = False
        for segment in timeline.segments(threshold):
            if segment.label == "spoof":
                name = None if labeled else "spoof"
                scores.axvspan(segment.start, segment.end, color=VERMILION, alpha=0.2, linewidth=0, label=name)
                labeled = True
        window = timeline.ends[0] - timeline.starts[0]
        unit = "log-likelihood ratio" if timeline.is_calibrated else "score"
        scores.set(xlabel=f"time (s), windows of {window:g} s", ylabel=unit, xlim=(0, timeline.duration))
        scores.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2)  # above, where it hides no scores
        if title:
            wave.set_title(one_line(title)[:_MAX_TITLE])
    return figure


def _columns(
    blocks: Iterable[NDArray[np.float32]], n_samples: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float64]]:
    """Return the lowest and highest sample and the mean power spectrum for each column of a figure."""
    n_columns = max(1, min(_COLUMNS, n_samples // _FRAME))
    low, high = np.zeros(n_columns, np.float32), np.zeros(n_columns, np.float32)
    power, counts = np.zeros((n_columns, _FRAME // 2 + 1)), np.zeros(n_columns)
    window = np.hanning(_FRAME).astype(np.float32)
    first = 0
    held = np.zeros(0, np.float32)
    for block in blocks:
        held = np.concatenate([held, block])
        n_frames = len(held) // _FRAME
        frames, held = held[: n_frames * _FRAME].reshape(n_frames, _FRAME), held[n_frames * _FRAME :]
        for begin in range(0, n_frames, _COLUMNS):
            part = frames[begin : begin + _COLUMNS]
            positions = first + _FRAME * (begin + np.arange(len(part)))
            column = np.minimum(positions * n_columns // max(n_samples, 1), n_columns - 1)
            np.minimum.at(low, column, part.min(1))
            np.maximum.at(high, column, part.max(1))
            np.add.at(power, column, np.abs(np.fft.rfft(part * window)) ** 2)
            np.add.at(counts, column, 1)
        first += n_frames * _FRAME
    return low, high, power / np.maximum(counts, 1)[:, None]
