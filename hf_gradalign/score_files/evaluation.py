"""Evaluates countermeasure scores against labels: all metrics, with intervals, breakdowns and paired tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np
from numpy.typing import NDArray

from hf_gradalign.metrics import (
    METRICS,
    Breakdown,
    Comparison,
    Group,
    Metric,
    RankedScores,
    TandemCosts,
    bootstrap_intervals,
    break_down,
    compare_systems,
    decision_metrics,
    detection_cost_metrics,
    score_problems,
    tandem_metric,
)
from hf_gradalign.metrics.functional.cllr import ratio_problems
from hf_gradalign.metrics.functional.eer import official_equal_error
from hf_gradalign.metrics.functional.ranked_scores import CountedScores
from hf_gradalign.metrics.stats.bootstrap import fewest_clusters, make_draws
from hf_gradalign.metrics.stats.breakdown import Against, clips_by_value
from hf_gradalign.metrics.stats.few_errors import one_class_problems, sampling_problems
from hf_gradalign.score_files.clips import Clips, ScoreFileError
from hf_gradalign.score_files.columns import common_name
from hf_gradalign.score_files.results import Evaluation, MetricRow, Settings, clusters_of, column_of

# The metrics in breakdowns.
_IN_BREAKDOWNS = ("eer", "eer_interpolated", "min_dcf", "min_tdcf")


def evaluate_clips(clips: Clips, settings: Settings | None = None, *, progress: bool = False) -> Evaluation:
    """Evaluate a countermeasure.

    Args:
        clips: Clips with scores and labels (`match_keys`).
        settings: The settings of the evaluation.
        progress: As for `bootstrap_intervals`.

    Warns:
        UserWarning: As for `bootstrap_intervals`.

    Raises:
        ScoreFileError: If there is only one class and no threshold, or a column is missing.
        ValueError: As for the metrics.
    """
    settings = settings or Settings()
    scores, labels = clips.scores_and_labels()
    n_bonafide = int(np.count_nonzero(labels == 1))
    if n_bonafide in (0, len(clips)):
        return _evaluate_one_class(clips, settings, progress)
    columns = {name: column_of(clips, name, "--by") for name in settings.by}
    clusters = clusters_of(clips, settings)
    counted = RankedScores(scores, labels).counted()
    metrics = list(metrics_of(settings).values())
    rows = {
        metric.name: MetricRow(metric.title, metric.compute(counted), None, metric.is_percentage) for metric in metrics
    }
    problems = problems_of(counted, clips, settings)
    if settings.n_draws:
        intervals = bootstrap_intervals(
            metrics,
            scores,
            labels,
            clusters=clusters,
            n_draws=settings.n_draws,
            confidence=settings.confidence,
            seed=settings.seed,
            progress=progress,
        )
        rows = {name: replace(row, interval=intervals[name]) for name, row in rows.items()}
    in_breakdowns = [metric for metric in metrics if metric.name in _IN_BREAKDOWNS]
    return Evaluation(
        source=clips.source,
        n_bonafide=n_bonafide,
        n_spoof=len(clips) - n_bonafide,
        rows=rows,
        eer_threshold=official_equal_error(counted).threshold,
        settings=settings,
        breakdowns={
            name: break_down(in_breakdowns, scores, labels, values, against=_against(name, values, labels))
            for name, values in columns.items()
        },
        problems=problems,
        notes=list(clips.notes),
        score_form=clips.score_form,
        costs=_costs_of(settings),
    )


def _evaluate_one_class(clips: Clips, settings: Settings, progress: bool) -> Evaluation:
    """Evaluate clips that are all spoofed, or all bona fide, at a threshold from other data.

    The share of accepted spoofed clips is the Arena's 1 - SRR (`spoof_acceptance_rate`). A verifier and costs do not
    apply.

    Raises:
        ScoreFileError: If there is no threshold, or a column is missing.
    """
    scores, labels = clips.scores_and_labels()
    is_bonafide = bool(labels[0] == 1)
    threshold = settings.threshold
    if threshold is None:
        raise ScoreFileError(
            f"All {len(clips)} clips of {clips.source} are {'bona fide' if is_bonafide else 'spoofed'}, but error "
            f"rates compare the classes. For the share of them that is {'rejected' if is_bonafide else 'accepted'}, "
            "pass a --threshold."
        )
    name = "false_rejection_rate" if is_bonafide else "spoof_acceptance_rate"
    title = "bona fide rejected (FRR)" if is_bonafide else "spoofs accepted (1 - SRR)"

    wrong = (scores < threshold if is_bonafide else scores >= threshold).astype(np.float64)
    breakdowns = {
        column: _by_value(column_of(clips, column, "--by"), wrong, name, is_bonafide) for column in settings.by
    }
    rate = float(wrong.mean())
    clusters = clusters_of(clips, settings)
    interval, problems = None, []
    if settings.n_draws:
        intervals = bootstrap_intervals(
            lambda own, _: float(np.mean(own)),
            wrong,
            labels,
            clusters=clusters,
            n_draws=settings.n_draws,
            confidence=settings.confidence,
            seed=settings.seed,
            progress=progress,
        )
        interval = next(iter(intervals.values()))
        draws = make_draws(labels, clusters, settings.seed, np.arange(len(labels)))
        problems = one_class_problems(int(wrong.sum()), len(clips), fewest_clusters(draws, labels))
    return Evaluation(
        clips.source,
        n_bonafide=len(clips) if is_bonafide else 0,
        n_spoof=0 if is_bonafide else len(clips),
        rows={name: MetricRow(title, rate, interval, True)},
        eer_threshold=None,
        settings=settings,
        breakdowns=breakdowns,
        problems=problems,
        notes=list(clips.notes),
        score_form=clips.score_form,
    )


def _by_value(values: Sequence[str | None], wrong: NDArray[np.float64], metric: str, is_bonafide: bool) -> Breakdown:
    groups = []
    for value, own in clips_by_value(values).items():
        n_bonafide, n_spoof = (len(own), 0) if is_bonafide else (0, len(own))
        groups.append(Group(value, n_bonafide, n_spoof, {metric: float(wrong[own].mean())}))
    return Breakdown("one_class", groups)


def problems_of(counted: CountedScores, clips: Clips, settings: Settings) -> list[str]:
    """Look for reasons to doubt the scores of a countermeasure, or intervals and p-values from them.

    Args:
        counted: The scores, each counted once.
        clips: The clips with these scores, and with labels.
        settings: The settings of the evaluation.

    Returns:
        One or two sentences per problem, from `score_problems`, `ratio_problems` and, with a bootstrap,
        `sampling_problems`.

    Raises:
        ScoreFileError: If a column is missing.
        ValueError: If there are fewer than two speakers to draw.
    """
    problems = [*score_problems(counted), *ratio_problems(counted)]
    if settings.n_draws:
        labels = clips.scores_and_labels()[1]
        draws = make_draws(labels, clusters_of(clips, settings), settings.seed, np.arange(len(labels)))
        problems += sampling_problems(counted, fewest_clusters(draws, labels))
    return problems


def compare_clips(
    clips: Clips, other: NDArray[np.float64], settings: Settings | None = None, *, progress: bool = False
) -> dict[str, Comparison]:
    """Compare two countermeasures with a paired test of all metrics.

    Args:
        clips: Clips with scores of the first system, and labels.
        other: The second system's scores of the same clips, shape (clips,).
        settings: The settings of the evaluation.
        progress: As for `bootstrap_intervals`.

    Warns:
        UserWarning: As for `compare_systems`.

    Raises:
        ScoreFileError: If a column is missing.
        ValueError: As for `compare_systems`.
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
        progress=progress,
    )


def metrics_of(settings: Settings) -> dict[str, Metric]:
    """Return the metrics of a countermeasure by name."""
    metrics = [*{**METRICS, **{metric.name: metric for metric in detection_cost_metrics(settings.costs)}}.values()]
    if settings.asv is not None:
        metrics += [tandem_metric(settings.asv, "2021"), tandem_metric(settings.asv, "2019")]
    if settings.threshold is not None:
        metrics += decision_metrics(settings.threshold)
    return {metric.name: metric for metric in metrics}


def _costs_of(settings: Settings) -> dict[str, dict[str, float]]:
    """Return the priors and costs by metric."""
    detection, tandem = asdict(settings.costs), asdict(TandemCosts())
    costs = {"min_dcf": detection, "act_dcf": detection}
    return costs if settings.asv is None else {**costs, "min_tdcf": tandem, "min_tdcf_2019": tandem}


def _against(column: str, values: Sequence[str | None], labels: NDArray[np.int64]) -> Against | None:
    """Choose the comparison for a column of physical access, where talkers' and replay devices' distances differ.

    Distances of talkers are D1, D2, ..., and those of replay devices d1, d2, ..., so no group has both classes.
    """
    if common_name(column) != "distance_to_asv":
        return None
    of_bonafide = {value for value, label in zip(values, labels, strict=True) if label == 1}
    is_shared = any(label == 0 and value in of_bonafide for value, label in zip(values, labels, strict=True))
    return None if is_shared else "all_bonafide"
