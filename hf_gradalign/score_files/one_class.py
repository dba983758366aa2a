"""Evaluate clips of a single class: the share that a threshold gets wrong."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hf_gradalign.metrics import Breakdown, Group, bootstrap_intervals
from hf_gradalign.metrics.stats.bootstrap import fewest_clusters, make_draws
from hf_gradalign.metrics.stats.breakdown import clips_by_value
from hf_gradalign.metrics.stats.few_errors import one_class_problems
from hf_gradalign.score_files.clips import Clips, ScoreFileError
from hf_gradalign.score_files.results import Evaluation, MetricRow, Settings, clusters_of, column_of


def evaluate_one_class(clips: Clips, settings: Settings, *, progress: bool = False) -> Evaluation:
    """Evaluate clips that are all spoofed, or all bona fide, at a threshold from other data.

    The share of spoofed clips that are accepted is 1 - SRR of the Arena (`spoof_acceptance_rate`).

    Args:
        clips: Clips with scores and labels.
        settings: The settings of the evaluation, with a threshold. A verifier and costs do not apply.
        progress: As for `bootstrap_intervals`.

    Raises:
        ScoreFileError: If there is no threshold, or a column is missing.
        ValueError: As `bootstrap_intervals`.
    """
    scores, labels = clips.scores_and_labels()
    is_bonafide = bool(labels[0] == 1)
    threshold = settings.threshold
    if threshold is None:
        raise ScoreFileError(
            f"All {len(clips)} clips of {clips.source} are {'bona fide' if is_bonafide else 'spoofed'}, but error "
            f"rates compare the classes. For the share of them that is {'rejected' if is_bonafide else 'accepted'}, "
            "give a --threshold."
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
