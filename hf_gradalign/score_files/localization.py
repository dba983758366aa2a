"""Evaluates timelines against labels over time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from hf_gradalign.metrics import Interval, Ranges, cells_of_windows
from hf_gradalign.metrics.functional.localization import (
    ErrorOfSample,
    Pieces,
    cut_pieces,
    cut_segments,
    error_of_segments,
    error_of_time,
)
from hf_gradalign.metrics.stats.bootstrap import ClusterDraws, require_settings
from hf_gradalign.metrics.stats.few_errors import FEW_CLUSTERS
from hf_gradalign.score_files.clips import ScoreFileError
from hf_gradalign.score_files.matching import MAX_MISSING, examples, match_names
from hf_gradalign.score_files.report import markdown_table
from hf_gradalign.score_files.segment_labels import FOREVER, SegmentLabels
from hf_gradalign.utils.table_bounds import parse_json, require_lines

RESOLUTIONS = (0.02, 0.04, 0.08, 0.16, 0.32, 0.64)
"""Lengths of segments in PartialSpoof, in seconds."""

# How much longer labels may be than scores, or how much shorter if they should cover the whole recording.
_TOLERANCE = 0.1
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Timelines:
    """Scores over time of several recordings.

    Attributes:
        source: The name of the folder or file, for messages.
        recordings: Scores by recording.
    """

    source: str
    recordings: dict[str, Ranges]


@dataclass(frozen=True)
class LocalizationRow:
    """An equal error rate.

    Attributes:
        title: Name of the rate.
        value: A fraction in [0, 1].
        threshold: The threshold at this rate. Time with scores up to and including it counts as spoof.
        interval: The bootstrap interval over recordings; None if there is none.
    """

    title: str
    value: float
    threshold: float
    interval: Interval | None


@dataclass(frozen=True)
class LocalizationEvaluation:
    """How well timelines locate spoofed speech.

    Attributes:
        rows: Equal error rates by name.
        n_recordings: The number of recordings with scores and labels.
        bonafide_seconds: Bona fide time that was scored.
        spoof_seconds: Spoofed time that was scored.
        notes: Notes for the user.
    """

    rows: dict[str, LocalizationRow]
    n_recordings: int
    bonafide_seconds: float
    spoof_seconds: float
    notes: tuple[str, ...]

    def table(self) -> str:
        """Format the rates as a Markdown table, in percent."""
        header, rows = ["", "EER (%)", "threshold"], []
        for row in self.rows.values():
            cells = [row.title, f"{100 * row.value:.3f}", f"{row.threshold:.6g}"]
            if (interval := row.interval) is not None:
                cells.append(f"{100 * interval.low:.3f} to {100 * interval.high:.3f}")
                header = [*header[:3], f"{100 * interval.confidence:g} % interval (%)"]
            rows.append(cells)
        return markdown_table(header, rows)

    def describe(self) -> str:
        """Describe the evaluated data and how the intervals were computed."""
        text = (
            f"{self.n_recordings} recordings, {self.bonafide_seconds:.1f} s bona fide and {self.spoof_seconds:.1f} s "
            "spoofed."
        )
        intervals = [row.interval for row in self.rows.values() if row.interval is not None]
        return f"{text} Intervals: bootstrap of recordings, {intervals[0].n_draws} draws." if intervals else text

    def as_dict(self) -> dict[str, Any]:
        """Return the evaluation for JSON."""
        return asdict(self)


def read_timelines(path: str | Path) -> Timelines:
    """Read scores over time: a folder of `hf-gradalign score --timeline`, or one JSON Lines file of any system.

    A line has `utterance_id`, `start` and `end` of a window in seconds, and its `score`, higher for bona fide. Windows
    may overlap.

    Raises:
        ScoreFileError: If there are no such files, or a line does not have this form; the message names the line.
    """
    path = Path(path)
    files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    if not files:
        raise ScoreFileError(f"{path} has no .jsonl files. Write them with hf-gradalign score --timeline.")
    windows: dict[str, list[tuple[float, float, float]]] = {}
    for file in files:
        try:
            require_lines(file)
            lines = file.read_text(encoding="utf-8").split("\n")
        except ValueError as error:
            raise ScoreFileError(f"{file} is not a JSON Lines file: {error}") from error
        for number, line in enumerate(lines, 1):
            if line.strip():
                name, window = _window(line, f"{file}, line {number}")
                windows.setdefault(name, []).append(window)
    if not windows:
        raise ScoreFileError(f"{path} has no windows.")
    recordings = {}
    for name, of_recording in windows.items():
        starts, ends, scores = np.array(sorted(of_recording)).T
        try:
            recordings[name] = cells_of_windows(starts, ends, scores)
        except ValueError as error:
            raise ScoreFileError(f"{path}: the windows of {name!r} cannot be used: {error}") from error
    return Timelines(str(path), recordings)


def _window(line: str, where: str) -> tuple[str, tuple[float, float, float]]:
    try:
        row = parse_json(line)
        name = row["utterance_id"]
        start, end, score = (float(row[key]) for key in ("start", "end", "score"))
    except (ValueError, KeyError, TypeError) as error:
        raise ScoreFileError(
            f'{where} is not a window like {{"utterance_id": "a", "start": 0, "end": 2, "score": 1.5}} ({error!r})'
        ) from error
    if not (np.isfinite([start, end, score]).all() and 0 <= start < end and isinstance(name, str)):
        raise ScoreFileError(f"{where}: times must ascend, all numbers must be finite, and the id must be text.")
    return name, (start, end, score)


def evaluate_localization(
    timelines: Timelines,
    labels: SegmentLabels,
    *,
    resolutions: Sequence[float] | None = None,
    allow_missing: bool = False,
    n_draws: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> LocalizationEvaluation:
    """Compute range-based and segment equal error rates.

    Args:
        timelines: Scores over time.
        labels: Labels over time.
        resolutions: Lengths of segments in seconds. Defaults to those of PartialSpoof, except any shorter than a label.
        allow_missing: Whether more than 5 % of the labeled recordings may have no scores.
        n_draws: Bootstrap samples of recordings for the intervals; 0 for none.
        confidence: Coverage of the intervals.
        seed: The same seed gives the same intervals.

    Raises:
        ScoreFileError: If no recording, or too few, have both, or labels and scores differ in length.
        ValueError: If a resolution is finer than the labels, or there are too few recordings for a bootstrap; also as
            for the metrics.
    """
    if n_draws:
        require_settings(n_draws, confidence, seed)
    finest = labels.resolution or 0.0
    if resolutions is None:
        resolutions = [each for each in RESOLUTIONS if each >= finest - 1e-9] or [finest]
    if too_fine := [each for each in resolutions if each < finest - 1e-9]:
        raise ValueError(
            f"the labels in {labels.source} last {finest:g} s each, so segments of {too_fine[0]:g} s do not have "
            "their own labels: choose a coarser --resolution"
        )
    scored, labeled, notes = _matched(timelines, labels, allow_missing)
    if n_draws and len(scored) < 2:
        raise ValueError("intervals are drawn over recordings, and there is only one: set --bootstrap 0")
    pieces = cut_pieces(scored, labeled)
    measured: dict[str, tuple[str, Pieces, ErrorOfSample]] = {
        "range_eer": ("range-based EER", pieces, error_of_time(pieces))
    }
    for resolution in resolutions:
        segments = cut_segments(scored, labeled, resolution)
        title = f"segment EER at {resolution:g} s"
        measured[f"segment_eer_{resolution:g}"] = (title, segments, error_of_segments(segments))
    rows = {}
    for name, (title, pooled, compute) in measured.items():
        rate, threshold = compute()
        interval = _interval(pooled, compute, len(scored), n_draws, confidence, seed) if n_draws else None
        rows[name] = LocalizationRow(title, rate, threshold, interval)
    if n_draws:
        notes += _problems_of_draws(pieces, list(rows.values()))
    seconds = [float(pieces.durations[pieces.is_bonafide == is_bonafide].sum()) / 1e6 for is_bonafide in (True, False)]
    return LocalizationEvaluation(rows, len(scored), *seconds, tuple(notes))


def _matched(
    timelines: Timelines, labels: SegmentLabels, allow_missing: bool
) -> tuple[list[Ranges], list[Ranges], list[str]]:
    """Return scores and labels of recordings that have both. A file of spoofed turns need not name a recording."""
    labeled_ids, scored_ids = pa.array(list(labels.recordings)), pa.array(list(timelines.recordings))
    indices, how = match_names(labeled_ids, scored_ids, labels.source, timelines.source)
    if not (indices >= 0).any():
        raise ScoreFileError(
            f"No recording of {timelines.source} ({examples(scored_ids)}) is in {labels.source} "
            f"({examples(labeled_ids)})."
        )
    notes = [how] if how else []
    missing = labeled_ids.filter(pa.array(indices < 0))
    if len(missing):
        text = (
            f"{len(missing)} of {len(labeled_ids)} recordings of {labels.source} have no scores ({examples(missing)})"
        )
        if len(missing) > MAX_MISSING * len(labeled_ids) and not allow_missing:
            raise ScoreFileError(
                f"{text}. That is more than {MAX_MISSING:.0%}: score them, or skip them with --partial."
            )
        notes.append(f"{text}. They are skipped.")
    names = scored_ids.to_pylist()
    pairs: dict[str, str | None] = {
        names[index]: labeled_ids[number].as_py() for number, index in enumerate(indices) if index >= 0
    }
    rest = [name for name in names if name not in pairs]
    if rest and labels.rest_is_bonafide:
        notes.append(f"{len(rest)} recordings without a spoofed turn in {labels.source} count as bona fide.")
        pairs |= dict.fromkeys(rest)
    elif rest:
        notes.append(f"{len(rest)} recordings of {timelines.source} have no labels ({examples(pa.array(rest))}).")
    scored = [timelines.recordings[name] for name in pairs]
    labeled = [_checked(pairs[name], timelines.recordings[name], labels) for name in pairs]
    return scored, labeled, notes


def _checked(labeled_name: str | None, scored: Ranges, labels: SegmentLabels) -> Ranges:
    """Return a recording's labels after checking that they end with its scores."""
    if labeled_name is None:
        return Ranges([0.0], [FOREVER], [1])
    duration, last = float(np.asarray(scored.ends)[-1]), labels.ends[labeled_name]
    tolerance = max(_TOLERANCE, labels.resolution or 0.0) + _ROUNDING
    if last > duration + tolerance or (labels.resolution is not None and last < duration - tolerance):
        raise ScoreFileError(
            f"The labels of {labeled_name!r} in {labels.source} end at {last:.3f} s, but its scores end at "
            f"{duration:.3f} s: they are from different recordings, or a label lasts longer or shorter than assumed."
        )
    return labels.recordings[labeled_name]


def _problems_of_draws(pieces: Pieces, rows: Sequence[LocalizationRow]) -> list[str]:
    """Say why bootstrap intervals may be wrong."""
    fewest = min(len(np.unique(pieces.recordings[pieces.is_bonafide == kind])) for kind in (True, False))
    problems = []
    if fewest < FEW_CLUSTERS:
        problems.append(
            f"Recordings with time of one of the classes: {fewest}. With fewer than {FEW_CLUSTERS}, bootstrap "
            "intervals are too narrow."
        )
    if without_errors := [row.title for row in rows if row.value in (0.0, 1.0)]:
        problems.append(f"The scores separate the classes, so intervals of {', '.join(without_errors)} mean nothing.")
    return problems


def _interval(
    pieces: Pieces, compute: ErrorOfSample, n_recordings: int, n_draws: int, confidence: float, seed: int
) -> Interval:
    draw = ClusterDraws([str(index) for index in range(n_recordings)], seed)
    values = []
    for number in range(n_draws):
        counts = draw(number)
        kept = counts[pieces.recordings] > 0
        if len(np.unique(pieces.is_bonafide[kept])) == 2:
            values.append(compute(counts).rate)
    if 2 * len(values) <= n_draws:
        raise ValueError("most bootstrap draws lack one class, because too few recordings have it: set --bootstrap 0")
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    error = float(np.std(values, ddof=1))
    return Interval(compute().rate, float(low), float(high), error, confidence, len(values))
