"""Calibration of a system's scores, with metrics on clips that it was not fitted on."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_gradalign.metrics import (
    METRICS,
    Calibration,
    CalibrationMethod,
    Interval,
    Metric,
    RankedScores,
    bootstrap_intervals,
    fit_calibration,
    score_problems,
)
from hf_gradalign.metrics.functional.calibration import fit_unchecked, min_ratio_cost
from hf_gradalign.score_files.clips import Clips
from hf_gradalign.score_files.held_out import N_FOLDS, Folds, held_out_scores, make_folds
from hf_gradalign.score_files.report import markdown_table
from hf_gradalign.score_files.results import UTTERANCE, Settings, clusters_of
from hf_gradalign.utils.plain_text import plain_text

REPORTED = {
    metric.name: metric
    for metric in (
        METRICS["cllr"],
        Metric("min_cllr", "min Cllr", min_ratio_cost),
        METRICS["min_dcf"],
        METRICS["act_dcf"],
    )
}
"""The metrics of the report. Lower is better for all of them."""


@dataclass(frozen=True)
class CalibrationReport:
    """A calibration, and the metrics before and after it.

    Attributes:
        calibration: Fitted on all clips.
        source: The score file.
        n_bonafide: The number of bona fide clips.
        n_spoof: The number of spoofed clips.
        before: The metrics of the original scores, with intervals if there was a bootstrap.
        after: The metrics of `held_out`.
        held_out: Log-likelihood ratios of the clips, each by a calibration that was fitted on other clips, shape
            (clips,).
        folds: The folds of clips that were held out together.
        settings: The settings of the bootstrap.
        problems: Warnings about suspicious but valid scores, and about a calibration that does not generalize.
    """

    calibration: Calibration
    source: str
    n_bonafide: int
    n_spoof: int
    before: dict[str, float | Interval]
    after: dict[str, float | Interval]
    held_out: NDArray[np.float64]
    folds: Folds
    settings: Settings
    problems: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Return the report for JSON, without the calibration."""
        return {
            "before": {name: _as_json(value) for name, value in self.before.items()},
            "after": {name: _as_json(value) for name, value in self.after.items()},
            "held_out": self.folds.describe(),
            "settings": {name: getattr(self.settings, name) for name in ("n_draws", "over", "confidence", "seed")},
        }

    def table(self) -> str:
        """Format the metrics before and after as a Markdown table."""
        has_intervals = self.settings.n_draws > 0
        interval = f"{100 * self.settings.confidence:g} % interval"
        header = ["metric", "before", interval, "after", interval] if has_intervals else ["metric", "before", "after"]
        rows = []
        for name, metric in REPORTED.items():
            cells = [metric.title]
            for value in (self.before[name], self.after[name]):
                if isinstance(value, Interval):
                    cells += [metric.format(value.value), f"{metric.format(value.low)} to {metric.format(value.high)}"]
                else:
                    cells.append(metric.format(value))
            rows.append(cells)
        return markdown_table(header, rows)

    def describe(self) -> str:
        """Describe the calibration and its effect on held-out clips."""
        calibration = self.calibration
        if calibration.method == "affine":
            what = f"log-likelihood ratio = {calibration.slope:.6g} * score {calibration.offset:+.6g}"
        else:
            what = f"PAV, {len(calibration.knots)} knots"
        text = (
            f"{plain_text(self.source)}: {what}\n"
            f"Fitted on {self.n_bonafide} bona fide and {self.n_spoof} spoofed clips, with a prior of "
            f"{calibration.prior:g} for bona fide. After: held out ({self.folds.describe()})."
        )
        if self.settings.n_draws:
            drawn = "clips within each class" if self.settings.over == UTTERANCE else f"each {self.settings.over}"
            text += f" Intervals: bootstrap of {drawn}, {self.settings.n_draws} draws, seed {self.settings.seed}"
            text += "; those of min Cllr and minDCF tend to be too narrow."
        return f"{text}\n\n{self.table()}"


def calibrate_scores(
    clips: Clips,
    *,
    method: CalibrationMethod = "affine",
    prior: float = 0.5,
    hold_out: str | None = None,
    n_folds: int = N_FOLDS,
    draws_over: str | None = None,
    n_draws: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    progress: bool = False,
) -> CalibrationReport:
    """Fit a calibration to all clips, and report its effect on clips that it was not fitted on.

    For the report, clips are divided into folds, and the clips of each fold are calibrated by a fit on the others. The
    metrics are computed on all clips together, before and after.

    Args:
        clips: Clips with scores and labels (`match_keys`).
        method: As for `fit_calibration`.
        prior: As for `fit_calibration`.
        hold_out: The unit that is held out as a whole, as for `make_folds`: by default speakers, if the clips have any.
        n_folds: As for `make_folds`.
        draws_over: The unit that the bootstrap draws: "utterance", or a column. By default, the same as is held out.
        n_draws: The number of bootstrap draws; 0 for no intervals.
        confidence: Coverage of the intervals.
        seed: The seed of folds and draws.
        progress: As for `bootstrap_intervals`.

    Warns:
        UserWarning: As for `fit_calibration` and `make_folds`.

    Raises:
        ScoreFileError: If there are no scores or labels, no such column, or no such folds.
        ValueError: As for `fit_calibration` and `bootstrap_intervals`.
    """
    scores, labels = clips.scores_and_labels()
    calibration = fit_calibration(scores, labels, method=method, prior=prior)
    folds = make_folds(clips, over=hold_out, n_folds=n_folds, seed=seed)

    def fit(own_scores: NDArray[np.float64], own_labels: NDArray[np.int64]) -> Calibration:
        return fit_unchecked(own_scores, own_labels == 1, method, prior)

    held_out = held_out_scores(fit, scores, labels, folds)
    settings = Settings(n_draws=n_draws, over=draws_over or folds.over, confidence=confidence, seed=seed)
    clusters = clusters_of(clips, settings)

    def measured(values: NDArray[np.float64]) -> dict[str, float | Interval]:
        if not n_draws:
            counted = RankedScores(values, labels).counted()
            return {name: metric.compute(counted) for name, metric in REPORTED.items()}
        options = {"n_draws": n_draws, "confidence": confidence, "seed": seed, "progress": progress}
        return {**bootstrap_intervals(list(REPORTED.values()), values, labels, clusters=clusters, **options)}

    before, after = measured(scores), measured(held_out)
    problems = score_problems(RankedScores(scores, labels).counted())
    if (was := _value(before["cllr"])) <= (became := _value(after["cllr"])):
        more = "clips" if folds.over == UTTERANCE else f"clips and {folds.over}s"
        problems.append(
            f"On held-out clips, the calibration does not lower the Cllr ({was:.3f}, then {became:.3f}), so it does "
            f"not generalize. Fit on more {more} like those that you will score."
        )
    n_bonafide = int(np.count_nonzero(labels == 1))
    return CalibrationReport(
        calibration,
        clips.source,
        n_bonafide,
        len(clips) - n_bonafide,
        before=before,
        after=after,
        held_out=held_out,
        folds=folds,
        settings=settings,
        problems=problems,
    )


def _value(value: float | Interval) -> float:
    return value.value if isinstance(value, Interval) else value


def _as_json(value: float | Interval) -> dict[str, Any]:
    return asdict(value) if isinstance(value, Interval) else {"value": value}
