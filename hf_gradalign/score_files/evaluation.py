"""All that is said of a countermeasure's scores, and of two countermeasures against each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hf_gradalign.metrics import (
    MEASURES,
    Comparison,
    Measure,
    RankedScores,
    bootstrap_intervals,
    break_down,
    compare_systems,
    decision_measures,
    score_problems,
    spoof_acceptance_rate,
    tandem_measure,
)
from hf_gradalign.metrics.breakdown import Against
from hf_gradalign.metrics.equal_error import official_equal_error
from hf_gradalign.score_files.clips import Clips
from hf_gradalign.score_files.errors import ScoreFileError
from hf_gradalign.score_files.results import Evaluation, Row, Settings, clusters_of, column_of

# What breakdowns show.
_BY_GROUP = ("eer", "eer_interpolated", "min_dcf", "min_tdcf")


def evaluate_clips(clips: Clips, settings: Settings | None = None) -> Evaluation:
    """Evaluate a countermeasure.

    Args:
        clips: With scores and labels (`match_keys`).
        settings: What to compute.

    Raises:
        ScoreFileError: If there is one class only and no threshold, or a column is not there.
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
        return Evaluation(clips.source, n_bonafide, n_spoof, rows, None, settings, notes=list(clips.notes))
    counted = RankedScores(scores, labels).counted()
    measures = _measures(settings)
    rows = {measure.name: Row(measure.title, measure.of(counted), None, measure.is_percentage) for measure in measures}
    if settings.n_draws:
        intervals = bootstrap_intervals(
            measures,
            scores,
            labels,
            clusters=clusters,
            n_draws=settings.n_draws,
            confidence=settings.confidence,
            seed=settings.seed,
        )
        rows = {name: replace(row, interval=intervals[name]) for name, row in rows.items()}
    shown = [measure for measure in measures if measure.name in _BY_GROUP]
    return Evaluation(
        source=clips.source,
        n_bonafide=n_bonafide,
        n_spoof=n_spoof,
        rows=rows,
        eer_threshold=official_equal_error(counted).threshold,
        settings=settings,
        breakdowns={
            name: break_down(shown, scores, labels, values, against=_against(name, values, labels))
            for name, values in columns.items()
        },
        problems=score_problems(counted),
        notes=list(clips.notes),
    )


def compare_clips(clips: Clips, other: NDArray[np.float64], settings: Settings | None = None) -> dict[str, Comparison]:
    """The paired test of all metrics of a countermeasure between two systems.

    Args:
        clips: With scores and labels.
        other: The other system's scores of the same clips, shape (clips,).
        settings: What to compute.
    """
    settings = settings or Settings()
    scores, labels = clips.scores_and_labels()
    return compare_systems(
        scores,
        other,
        labels,
        _measures(settings),
        clusters=clusters_of(clips, settings),
        n_draws=max(settings.n_draws, 2),
        confidence=settings.confidence,
        seed=settings.seed,
    )


def _against(column: str, values: Sequence[str | None], labels: NDArray[np.int64]) -> Against | None:
    """What to say to `break_down`: in physical access talkers' distances (D1) and replay devices' (d1) never meet."""
    if column != "distance_to_asv":
        return None
    of_bonafide = {value for value, label in zip(values, labels, strict=True) if label == 1}
    return (
        None
        if any(label == 0 and value in of_bonafide for value, label in zip(values, labels, strict=True))
        else ("all_bonafide")
    )


def measures_of(settings: Settings) -> dict[str, Measure]:
    """The metrics of a countermeasure by name."""
    return {measure.name: measure for measure in _measures(settings)}


def _measures(settings: Settings) -> list[Measure]:
    measures = list(MEASURES.values())
    if settings.asv is not None:
        measures += [tandem_measure(settings.asv, form) for form in ("2021", "2019")]
    if settings.threshold is not None:
        measures += decision_measures(settings.threshold)
    return measures


def _rows_of_spoofs(clips: Clips, settings: Settings, n_spoof: int) -> dict[str, Row]:
    if settings.threshold is None or not n_spoof:
        present = "spoofed" if n_spoof else "bona fide"
        raise ScoreFileError(
            f"All {len(clips)} clips of {clips.source} are {present}, and error rates compare the classes."
            + (" The share of spoofed clips that are accepted needs a --threshold." if n_spoof else "")
        )
    rate = spoof_acceptance_rate(*clips.scores_and_labels(), settings.threshold)["spoof_acceptance_rate"]
    return {"spoof_acceptance_rate": Row("spoofs accepted (1 - SRR)", rate, None, True)}
