"""Evaluate scores against labels: all metrics of countermeasures and of speaker verifiers, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_gradalign.metrics import (
    ASVSPOOF5_AGNOSTIC_COSTS,
    METRICS,
    AsvErrorRates,
    Breakdown,
    Comparison,
    Interval,
    Metric,
    RankedScores,
    bootstrap_intervals,
    break_down,
    compare_systems,
    decision_metrics,
    min_agnostic_detection_cost,
    score_problems,
    spoof_acceptance_rate,
    tandem_metric,
)
from hf_gradalign.metrics.functional.eer import official_equal_error
from hf_gradalign.metrics.stats.breakdown import Against
from hf_gradalign.score_files.clips import Clips, ScoreFileError, ScoreForm

UTTERANCE = "utterance"

# The metrics in breakdowns.
_IN_BREAKDOWNS = ("eer", "eer_interpolated", "min_dcf", "min_tdcf")


@dataclass(frozen=True)
class Settings:
    """The settings of an evaluation.

    Attributes:
        threshold: For accuracy and F1, which are skipped without it.
        asv: The speaker verifier for min t-DCF, which is skipped without it.
        by: Columns to break down by.
        n_draws: The number of bootstrap draws; 0 for no intervals.
        over: What is drawn: "utterance", or a column whose values are drawn, such as "speaker".
        confidence: Coverage of the intervals.
        seed: The seed of the draws.
    """

    threshold: float | None = None
    asv: AsvErrorRates | None = None
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
        value: Its value.
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

    def as_dict(self) -> dict[str, Any]:
        """Return the results for JSON. NaN becomes None, and fractions stay fractions."""
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
                "score_form": self.score_form,
                "settings": settings,
                "breakdowns": {column: asdict(breakdown) for column, breakdown in self.breakdowns.items()},
                "problems": self.problems,
                "notes": self.notes,
            }
        )


def evaluate_clips(clips: Clips, settings: Settings | None = None) -> Evaluation:
    """Evaluate a countermeasure.

    Args:
        clips: Clips with scores and labels (`match_keys`).
        settings: The settings of the evaluation.

    Raises:
        ScoreFileError: If there is only one class and no threshold, or a column is missing.
        ValueError: As the metrics.
    """
    settings = settings or Settings()
    scores, labels = clips.scores_and_labels()
    n_bonafide = int(np.count_nonzero(labels == 1))
    n_spoof = len(clips) - n_bonafide
    columns = {name: column_of(clips, name, "--by") for name in settings.by}
    clusters = clusters_of(clips, settings)
    if not n_bonafide or not n_spoof:
        rows = _rows_of_spoofs(clips, settings, n_spoof)
        return Evaluation(
            clips.source,
            n_bonafide,
            n_spoof,
            rows,
            None,
            settings,
            notes=list(clips.notes),
            score_form=clips.score_form,
        )
    counted = RankedScores(scores, labels).counted()
    metrics = list(metrics_of(settings).values())
    rows = {
        metric.name: MetricRow(metric.title, metric.compute(counted), None, metric.is_percentage) for metric in metrics
    }
    if settings.n_draws:
        intervals = bootstrap_intervals(
            metrics,
            scores,
            labels,
            clusters=clusters,
            n_draws=settings.n_draws,
            confidence=settings.confidence,
            seed=settings.seed,
        )
        rows = {name: replace(row, interval=intervals[name]) for name, row in rows.items()}
    in_breakdowns = [metric for metric in metrics if metric.name in _IN_BREAKDOWNS]
    return Evaluation(
        source=clips.source,
        n_bonafide=n_bonafide,
        n_spoof=n_spoof,
        rows=rows,
        eer_threshold=official_equal_error(counted).threshold,
        settings=settings,
        breakdowns={
            name: break_down(in_breakdowns, scores, labels, values, against=_against(name, values, labels))
            for name, values in columns.items()
        },
        problems=score_problems(counted),
        notes=list(clips.notes),
        score_form=clips.score_form,
    )


def compare_clips(clips: Clips, other: NDArray[np.float64], settings: Settings | None = None) -> dict[str, Comparison]:
    """Compare two countermeasures with a paired test of all metrics.

    Args:
        clips: Clips with scores of the first system, and labels.
        other: The second system's scores of the same clips, shape (clips,).
        settings: The settings of the evaluation.
    """
    settings = settings or Settings()
    scores, labels = clips.scores_and_labels()
    return compare_systems(
        scores,
        other,
        labels,
        list(metrics_of(settings).values()),
        clusters=clusters_of(clips, settings),
        n_draws=max(settings.n_draws, 2),
        confidence=settings.confidence,
        seed=settings.seed,
    )


def metrics_of(settings: Settings) -> dict[str, Metric]:
    """Return the metrics of a countermeasure by name."""
    metrics = list(METRICS.values())
    if settings.asv is not None:
        metrics += [tandem_metric(settings.asv, "2021"), tandem_metric(settings.asv, "2019")]
    if settings.threshold is not None:
        metrics += decision_metrics(settings.threshold)
    return {metric.name: metric for metric in metrics}


def evaluate_trials(clips: Clips, settings: Settings | None = None) -> Evaluation:
    """Evaluate a speaker verifier that must also reject spoofs: a-DCF, and equal error rates against each class.

    Args:
        clips: Clips with scores and trial types.
        settings: The settings of the evaluation. Those for countermeasures (threshold, verifier, columns) do not apply.

    Raises:
        ScoreFileError: If there are no scores or no trial types.
        ValueError: As `min_agnostic_detection_cost`.
    """
    settings = settings or Settings()
    scores, types = clips.scores, clips.trial_types
    if scores is None or types is None:
        missing = "scores" if scores is None else "trial types (target, nontarget, spoof)"
        raise ScoreFileError(f"{clips.source} has no {missing}. Give a file that has them.")
    intervals: Mapping[str, Interval] = {}
    if settings.n_draws:
        intervals = bootstrap_intervals(
            [metric for metric, _, _ in _TRIAL_METRICS.values()],
            scores,
            types,
            clusters=clusters_of(clips, settings),
            n_draws=settings.n_draws,
            confidence=settings.confidence,
            seed=settings.seed,
        )
    rows = {
        name: MetricRow(title, metric(scores, types), intervals.get(name), is_percentage)
        for name, (metric, title, is_percentage) in _TRIAL_METRICS.items()
    }
    n_spoof = int(np.count_nonzero(types == "spoof"))
    return Evaluation(
        clips.source,
        len(clips) - n_spoof,
        n_spoof,
        rows,
        None,
        settings,
        notes=list(clips.notes),
        score_form=clips.score_form,
    )


def a_dcf(scores: NDArray[np.float64], types: NDArray[np.str_]) -> float:
    """Compute the minimum a-DCF with the paper's costs."""
    return min_agnostic_detection_cost(scores, types)["a_dcf"]


def a_dcf_asvspoof5(scores: NDArray[np.float64], types: NDArray[np.str_]) -> float:
    """Compute the minimum a-DCF with the costs of ASVspoof 5, track 2."""
    return min_agnostic_detection_cost(scores, types, costs=ASVSPOOF5_AGNOSTIC_COSTS)["a_dcf"]


def sasv_eer(scores: NDArray[np.float64], types: NDArray[np.str_]) -> float:
    """Compute the equal error rate of targets against all others (SASV challenge 2022)."""
    return METRICS["eer"](scores, (types == "target").astype(int))


def sv_eer(scores: NDArray[np.float64], types: NDArray[np.str_]) -> float:
    """Compute the equal error rate of targets against non-targets."""
    return sasv_eer(scores[types != "spoof"], types[types != "spoof"])


def spf_eer(scores: NDArray[np.float64], types: NDArray[np.str_]) -> float:
    """Compute the equal error rate of targets against spoofs."""
    return sasv_eer(scores[types != "nontarget"], types[types != "nontarget"])


# By the name of the function, which `bootstrap_intervals` uses too.
_TRIAL_METRICS: dict[str, tuple[Callable[[NDArray, NDArray], float], str, bool]] = {
    "a_dcf": (a_dcf, "min a-DCF", False),
    "a_dcf_asvspoof5": (a_dcf_asvspoof5, "min a-DCF (ASVspoof 5)", False),
    "sasv_eer": (sasv_eer, "SASV-EER", True),
    "sv_eer": (sv_eer, "SV-EER", True),
    "spf_eer": (spf_eer, "SPF-EER", True),
}


def column_of(clips: Clips, name: str, option: str) -> list[str | None]:
    """Return the values of a column.

    Raises:
        ScoreFileError: If there is no such column. The message names `option`, which asked for it.
    """
    if name not in clips.columns:
        available = ", ".join(clips.columns) or "none"
        raise ScoreFileError(
            f"There is no column {name!r} ({option}) in the score and key files. Available columns: {available}."
        )
    return clips.columns[name].to_pylist()


def clusters_of(clips: Clips, settings: Settings) -> list[str | None] | None:
    """Return the column that the bootstrap draws; None if it draws single clips."""
    return None if settings.over == UTTERANCE else column_of(clips, settings.over, "--bootstrap_over")


def _against(column: str, values: Sequence[str | None], labels: NDArray[np.int64]) -> Against | None:
    """Choose the comparison for a column of physical access, where talkers' and replay devices' distances differ.

    Distances of talkers are D1, D2, ..., and those of replay devices d1, d2, ..., so no group has both classes.
    """
    if column != "distance_to_asv":
        return None
    of_bonafide = {value for value, label in zip(values, labels, strict=True) if label == 1}
    is_shared = any(label == 0 and value in of_bonafide for value, label in zip(values, labels, strict=True))
    return None if is_shared else "all_bonafide"


def _rows_of_spoofs(clips: Clips, settings: Settings, n_spoof: int) -> dict[str, MetricRow]:
    if settings.threshold is None or not n_spoof:
        present = "spoofed" if n_spoof else "bona fide"
        raise ScoreFileError(
            f"All {len(clips)} clips of {clips.source} are {present}, but error rates compare the classes."
            + (" For the share of spoofed clips that are accepted, give a --threshold." if n_spoof else "")
        )
    rate = spoof_acceptance_rate(*clips.scores_and_labels(), settings.threshold)["spoof_acceptance_rate"]
    return {"spoof_acceptance_rate": MetricRow("spoofs accepted (1 - SRR)", rate, None, True)}


def _without_nan(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _without_nan(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_without_nan(value) for value in content]
    return None if isinstance(content, float) and np.isnan(content) else content
