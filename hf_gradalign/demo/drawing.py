"""The waveform and the scores over time, as numbers for an SVG drawing."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hf_gradalign.demo.judging import Judgment
from hf_gradalign.demo.recording import Recording
from hf_gradalign.demo.wording import clock, threshold_of
from hf_gradalign.scoring.timeline import Timeline

# The drawing has its own units, and is stretched to the width of the page.
WIDTH, HEIGHT = 1000.0, 100.0
# Scores this far from the threshold reach the edge of the drawing, unless all are closer.
_EDGE = 8.0
_LEAST_EDGE = 2.0
_TABLE_ROWS = 200
_SHORT = 20.0  # seconds, below which the time axis shows tenths


@dataclass(frozen=True)
class Bar:
    """One window's score in the drawing: a rectangle from the threshold, up for genuine and down for fake."""

    x: float
    y: float
    width: float
    height: float
    is_spoof: bool


@dataclass(frozen=True)
class Drawing:
    """A timeline as the page shows it.

    Attributes:
        waveform: The points of the waveform's outline, for an SVG polygon.
        bars: The scores.
        ticks: Times below the drawing.
        summary: The drawing in words.
        rows: Start, end, score and leaning of windows, for the table.
        n_hidden: The number of windows that the table leaves out.
    """

    waveform: str
    bars: Sequence[Bar]
    ticks: Sequence[str]
    summary: str
    rows: Sequence[tuple[str, str, str, str]]
    n_hidden: int


def draw(recording: Recording, judgment: Judgment) -> Drawing:
    """Draw a judgment's timeline under the recording's waveform."""
    timeline, threshold = judgment.timeline, threshold_of(judgment)
    above = timeline.scores - threshold
    edge = min(max(float(np.abs(above).max()), _LEAST_EDGE), _EDGE)
    heights = np.clip(np.abs(above) / edge, 0.02, 1) * HEIGHT / 2
    edges = _edges(timeline) / timeline.duration * WIDTH
    bars = [
        Bar(
            round(float(left), 2),
            round(HEIGHT / 2 if score < 0 else HEIGHT / 2 - float(height), 2),
            round(float(right - left), 2),
            round(float(height), 2),
            bool(score < 0),
        )
        for left, right, score, height in zip(edges[:-1], edges[1:], above, heights, strict=True)
    ]
    rows = [
        (clock(start), clock(end), f"{score:+.2f}".replace("-", "\u2212"), "fake" if score < threshold else "genuine")
        for start, end, score in zip(timeline.starts, timeline.ends, timeline.scores, strict=True)
    ]
    is_short = timeline.duration < _SHORT
    ticks = [clock(part * timeline.duration, tenths=is_short) for part in (0, 0.25, 0.5, 0.75, 1)]
    return Drawing(
        waveform=_outline(recording),
        bars=bars,
        ticks=ticks,
        summary=_summary(timeline, threshold),
        rows=rows[:_TABLE_ROWS],
        n_hidden=max(len(rows) - _TABLE_ROWS, 0),
    )


def _edges(timeline: Timeline) -> np.ndarray:
    """Return the bounds of the bars in seconds: halfway between the centers of overlapping windows."""
    centers = (timeline.starts + timeline.ends) / 2
    return np.concatenate([[0.0], (centers[1:] + centers[:-1]) / 2, [timeline.duration]])


def _outline(recording: Recording) -> str:
    envelope = recording.envelope
    x = np.linspace(0, WIDTH, len(envelope)) if len(envelope) > 1 else np.array([WIDTH / 2])
    reach = np.maximum(envelope, 0.01) * HEIGHT / 2
    upper = zip(x, HEIGHT / 2 - reach, strict=True)
    lower = zip(x[::-1], (HEIGHT / 2 + reach)[::-1], strict=True)
    return " ".join(f"{left:.1f},{top:.1f}" for left, top in [*upper, *lower])


def _summary(timeline: Timeline, threshold: float) -> str:
    n_spoof, total = int((timeline.scores < threshold).sum()), len(timeline.scores)
    if total == 1:
        return f"One window, which leans {'fake' if n_spoof else 'genuine'}."
    if n_spoof in (0, total):
        return f"All {total:,} windows lean {'fake' if n_spoof else 'genuine'}."
    lowest = int(np.argmin(timeline.scores))
    at = f"{clock(timeline.starts[lowest])} to {clock(timeline.ends[lowest])}"
    return f"{n_spoof:,} of {total:,} windows {'leans' if n_spoof == 1 else 'lean'} fake, most of all from {at}."
