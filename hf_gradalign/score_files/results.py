"""The settings and the results of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from hf_gradalign.metrics import AsvErrorRates, Breakdown, DetectionCosts, Interval
from hf_gradalign.score_files.clips import Clips, ScoreFileError, ScoreForm
from hf_gradalign.score_files.columns import common_name

UTTERANCE = "utterance"


@dataclass(frozen=True)
class Settings:
    """The settings of an evaluation.

    Attributes:
        threshold: The threshold for accuracy and F1, which are skipped without it.
        asv: The speaker verifier for min t-DCF, which is skipped without it.
        costs: The prior and the costs of minDCF and actDCF.
        by: Columns to break down by.
        n_draws: The number of bootstrap draws; 0 for no intervals.
        over: The unit that is drawn: "utterance", or a column whose values are drawn, such as "speaker".
        confidence: Coverage of the intervals.
        seed: The seed of the draws.
    """

    threshold: float | None = None
    asv: AsvErrorRates | None = None
    costs: DetectionCosts = field(default_factory=DetectionCosts)
    by: Sequence[str] = ()
    n_draws: int = 1000
    over: str = UTTERANCE
    confidence: float = 0.95
    seed: int = 0


@dataclass(frozen=True)
class MetricRow:
    """One metric of a table.

    Attributes:
        title: The name of the metric in tables.
        value: The metric's value.
        interval: The confidence interval; None without a bootstrap.
        is_percentage: Whether the value is displayed as a percentage.
    """

    title: str
    value: float
    interval: Interval | None = None
    is_percentage: bool = False


@dataclass(frozen=True)
class Evaluation:
    """The results of one system.

    Attributes:
        source: The score file.
        n_bonafide: The number of bona fide clips.
        n_spoof: The number of spoofed clips.
        rows: The metrics by name.
        eer_threshold: The score up to and including which a clip is rejected at the official equal error point.
        settings: The settings of the evaluation.
        breakdowns: Metrics by the values of a column, for each column.
        problems: Warnings for suspicious but valid scores.
        notes: What the user should know about how the files were read.
        score_form: How the scores were made from those in the file.
        costs: Priors and costs of errors by metric.
        n_trials: The number of trials of each type, for speaker verification.
    """

    source: str
    n_bonafide: int
    n_spoof: int
    rows: dict[str, MetricRow]
    eer_threshold: float | None
    settings: Settings
    breakdowns: dict[str, Breakdown] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    score_form: ScoreForm = "as written"
    costs: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    n_trials: Mapping[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the results for JSON. NaN becomes None, and fractions stay fractions."""
        metrics = {}
        for name, row in self.rows.items():
            metrics[name] = {"value": row.value}
            if row.interval is not None:
                metrics[name] |= {key: getattr(row.interval, key) for key in ("low", "high", "standard_error")}
        settings = asdict(self.settings)
        del settings["costs"]  # those of each metric are in the results
        settings["asv"] = None if self.settings.asv is None else self.settings.asv._asdict()
        return _without_nan(
            {
                "scores": self.source,
                "n_bonafide": self.n_bonafide,
                "n_spoof": self.n_spoof,
                **({"n_trials": dict(self.n_trials)} if self.n_trials else {}),
                "metrics": metrics,
                "eer_threshold": self.eer_threshold,
                "score_form": self.score_form,
                "settings": settings,
                "costs": {name: dict(costs) for name, costs in self.costs.items()},
                "breakdowns": {
                    column: {**asdict(breakdown), "means": breakdown.means}
                    for column, breakdown in self.breakdowns.items()
                },
                "problems": self.problems,
                "notes": self.notes,
            }
        )


def column_of(clips: Clips, name: str, option: str) -> list[str | None]:
    """Return the values of a column, which may be named as in the file (`attack`) or as here (`system`).

    Raises:
        ScoreFileError: If there is no such column. The message names `option`, which asked for it.
    """
    column = name if name in clips.columns else common_name(name)
    if column not in clips.columns:
        available = ", ".join(clips.columns) or "none"
        raise ScoreFileError(
            f"There is no column {name!r} ({option}) in the score and key files. Available columns: {available}."
        )
    return clips.columns[column].to_pylist()


def clusters_of(clips: Clips, settings: Settings) -> list[str | None] | None:
    """Return the column that the bootstrap draws; None if it draws single clips."""
    return None if settings.over == UTTERANCE else column_of(clips, settings.over, "--bootstrap_over")


def _without_nan(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _without_nan(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_without_nan(value) for value in content]
    return None if isinstance(content, float) and np.isnan(content) else content
