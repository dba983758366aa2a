"""What an evaluation is made of, and what comes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from hf_gradalign.metrics import AsvErrorRates, Breakdown, Interval
from hf_gradalign.score_files.clips import Clips
from hf_gradalign.score_files.errors import ScoreFileError

UTTERANCE = "utterance"


@dataclass(frozen=True)
class Settings:
    """What an evaluation is made of.

    Attributes:
        threshold: For accuracy and F1; none of these without.
        asv: The verifier for min t-DCF; none of that without.
        by: Columns to break down by.
        n_draws: Bootstrap draws; 0 for no intervals.
        over: What is drawn: "utterance", or the column that says which clips belong together ("speaker").
        confidence: Coverage of intervals.
        seed: The draws' seed.
    """

    threshold: float | None = None
    asv: AsvErrorRates | None = None
    by: Sequence[str] = ()
    n_draws: int = 1000
    over: str = UTTERANCE
    confidence: float = 0.95
    seed: int = 0


@dataclass(frozen=True)
class Row:
    """One metric of a table.

    Attributes:
        title: Its name for people.
        value: Its value.
        interval: How far it would vary; None without a bootstrap.
        is_percentage: Whether it is shown in per cent.
    """

    title: str
    value: float
    interval: Interval | None = None
    is_percentage: bool = False


@dataclass(frozen=True)
class Evaluation:
    """All of one system.

    Attributes:
        source: The score file.
        n_bonafide: Bona fide clips.
        n_spoof: Spoofed clips.
        rows: The metrics by name.
        eer_threshold: The score up to and including which a clip is rejected at the official equal error point.
        settings: What it was made of.
        breakdowns: By column.
        problems: What is odd about the scores.
        notes: What should be told of the files.
    """

    source: str
    n_bonafide: int
    n_spoof: int
    rows: dict[str, Row]
    eer_threshold: float | None
    settings: Settings
    breakdowns: dict[str, Breakdown] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: NaN becomes None, fractions stay fractions."""
        metrics = {}
        for name, row in self.rows.items():
            metrics[name] = {"value": row.value}
            if row.interval is not None:
                metrics[name] |= {key: getattr(row.interval, key) for key in ("low", "high", "standard_error")}
        settings = asdict(self.settings)
        settings["asv"] = None if self.settings.asv is None else self.settings.asv._asdict()
        return _without_nan(
            {
                "scores": self.source,
                "n_bonafide": self.n_bonafide,
                "n_spoof": self.n_spoof,
                "metrics": metrics,
                "eer_threshold": self.eer_threshold,
                "settings": settings,
                "breakdowns": {column: asdict(breakdown) for column, breakdown in self.breakdowns.items()},
                "problems": self.problems,
                "notes": self.notes,
            }
        )


def column_of(clips: Clips, name: str, option: str) -> list[str | None]:
    """A column's values.

    Raises:
        ScoreFileError: If there is no such column; `option` is the one that asked for it.
    """
    if name not in clips.columns:
        there = ", ".join(clips.columns) or "none"
        raise ScoreFileError(f"There is no column {name!r} ({option}) in the score and key files; there are {there}.")
    return clips.columns[name].to_pylist()


def clusters_of(clips: Clips, settings: Settings) -> list[str | None] | None:
    """What the bootstrap draws beside single clips; None if it draws these."""
    return None if settings.over == UTTERANCE else column_of(clips, settings.over, "--bootstrap_over")


def _without_nan(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _without_nan(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_without_nan(value) for value in content]
    return None if isinstance(content, float) and np.isnan(content) else content
