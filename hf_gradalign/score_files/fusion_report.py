"""Compares a fusion with its best single system on clips that it was not fitted on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from hf_gradalign.metrics import METRICS, Comparison, compare_systems
from hf_gradalign.score_files.fusion import Fusion, fit_ratios
from hf_gradalign.score_files.held_out import N_FOLDS, Folds, ScoreFunction, held_out_scores, make_folds
from hf_gradalign.score_files.joint_scores import JointScores
from hf_gradalign.score_files.report import markdown_table, titled
from hf_gradalign.score_files.results import UTTERANCE, Settings, clusters_of
from hf_gradalign.utils.plain_text import join_words, plain_text

REPORTED = ("cllr", "act_dcf", "eer", "min_dcf")
"""The metrics of the report. Lower is better for all of them."""


@dataclass(frozen=True)
class Rival:
    """The best single system in one metric, and its comparison with the fusion.

    Attributes:
        name: The name of the system.
        comparison: The fusion (first) against that system (second).
    """

    name: str
    comparison: Comparison


@dataclass(frozen=True)
class FusionReport:
    """The results of a fusion and of its systems on held-out clips.

    Each system alone is calibrated in the same way as the fusion, and held out in the same folds.

    Attributes:
        scores: Held-out log-likelihood ratios of the fusion, shape (clips,).
        utterance_ids: The names of the clips.
        systems: The metrics of each system, by its name and theirs.
        fusion: The metrics of the fusion, by name.
        rivals: The best single system in each metric.
        folds: The folds that were held out.
        draws_over: The unit that the paired test draws: "utterance", or a column.
    """

    scores: NDArray[np.float64]
    utterance_ids: pa.Array
    systems: dict[str, dict[str, float]]
    fusion: dict[str, float]
    rivals: dict[str, Rival]
    folds: Folds
    draws_over: str

    def conclusions(self) -> list[str]:
        """Return in which metrics the fusion beats the best single system by more than chance, one sentence each.

        Differences count as chance if the p-value is at least 1 minus the confidence of their interval.
        """
        better, worse, equal = [], [], []
        without_errors = self.fusion["eer"] == 0 == self.systems[self.rivals["cllr"].name]["eer"]
        for metric, rival in self.rivals.items():
            if metric == "cllr" and without_errors:
                continue  # without errors, the confidence of a system follows from the penalty
            result = rival.comparison
            is_chance = result.p_value >= _level(result.confidence)
            kind = equal if is_chance else better if result.difference < 0 else worse
            kind.append(f"{METRICS[metric].title} ({rival.name}, p = {result.p_value:.3g})")
        sentences = []
        if better:
            sentences.append(f"Held out, the fusion beats the best single system in {join_words(better)}.")
        else:
            sentences.append("Held out, the fusion does not beat the best single system in any metric.")
        if worse:
            sentences.append(f"It is worse in {join_words(worse)}.")
        if equal:
            sentences.append(f"The difference may be chance in {join_words(equal)}.")
        if without_errors:
            sentences.append(
                f"Both the fusion and {self.rivals['cllr'].name} separate the classes without errors, so the "
                "difference in Cllr follows from the penalty and means nothing. Use harder clips."
            )
        return sentences

    def describe(self, fusion: Fusion) -> str:
        """Describe the fit, the held-out metrics of all systems and the comparison, with Markdown tables."""
        weights = {system.name: f"{system.weight:.6g}" for system in fusion.systems}
        results = [
            *((name, weights[name], values) for name, values in self.systems.items()),
            ("fusion", "", self.fusion),
        ]
        titles = [titled(METRICS[name].title, METRICS[name].is_percentage) for name in REPORTED]
        rows = [
            [name, weight, *(METRICS[metric].format(values[metric]) for metric in REPORTED)]
            for name, weight, values in results
        ]
        any_result = next(iter(self.rivals.values())).comparison
        interval = f"{100 * any_result.confidence:g} % interval"
        header = ["metric", "best single system", "its value", "fusion", "fusion minus best", interval, "p"]
        comparisons = []
        for metric, rival in self.rivals.items():
            result = rival.comparison
            numbers = (result.second, result.first, result.difference, result.low, result.high)
            second, first, difference, low, high = map(METRICS[metric].format, numbers)
            title = titled(METRICS[metric].title, METRICS[metric].is_percentage)
            row = [title, rival.name, second, first, difference, f"{low} to {high}", f"{result.p_value:.3g}"]
            comparisons.append(row)
        drawn = "clips within each class" if self.draws_over == UTTERANCE else f"the values of {self.draws_over}"
        return "\n\n".join(
            [
                f"The fusion of {len(fusion.systems)} systems is fitted on {fusion.n_bonafide} bona fide and "
                f"{fusion.n_spoof} spoofed clips. Prior {fusion.prior:g}, l2 {fusion.l2:.3g}, offset "
                f"{fusion.offset:.6g}.",
                f"Held out ({self.folds.describe()}), each system calibrated alone, and the fusion:",
                markdown_table(["system", "weight", *titles], rows),
                f"Paired bootstrap of {drawn}, {any_result.n_draws} draws:",
                markdown_table(header, comparisons),
                plain_text(" ".join(self.conclusions())),
            ]
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the results for JSON, without the scores."""
        return {
            "n_folds": self.folds.n_folds,
            "held_out": self.folds.over,
            "draws_over": self.draws_over,
            "systems": self.systems,
            "fusion": self.fusion,
            "best_single_systems": {
                metric: {"name": rival.name, **asdict(rival.comparison)} for metric, rival in self.rivals.items()
            },
        }


def cross_validate_fusion(
    joint: JointScores,
    *,
    prior: float = 0.5,
    l2: float | None = None,
    hold_out: str | None = None,
    n_folds: int = N_FOLDS,
    draws_over: str | None = None,
    n_draws: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> FusionReport:
    """Evaluate a fusion on clips that it was not fitted on, and test whether it beats the best single system.

    Each fold is scored by a fusion that was fitted on the others. Each single system is calibrated by the same
    regression, as a fusion of copies of itself, so that it is as good as such a fusion. Then, for each metric, the
    fusion is compared with the best system by a paired bootstrap (`compare_systems`). Because the best system is chosen
    on the same clips, the test favors it.

    Args:
        joint: Scores of at least two systems, with labels.
        prior: See `fit_fusion`.
        l2: See `fit_fusion`.
        hold_out: The unit that is held out as a whole; see `make_folds`.
        n_folds: See `make_folds`.
        draws_over: The unit that the bootstrap draws: "utterance", or a column. By default, the same as is held out.
        n_draws: The number of bootstrap draws, large enough for a p-value below 1 minus the confidence.
        confidence: The coverage of the intervals. A p-value of at least 1 minus this counts as chance.
        seed: The seed of the folds and of the draws.

    Raises:
        ScoreFileError: As for `make_folds`.
        ValueError: If there are too few draws; also as for `fit_fusion` and `compare_systems`.
    """
    if (lowest := 1 / (1 + n_draws)) >= _level(confidence):
        raise ValueError(
            f"With {n_draws} draws, no p-value is below {lowest:.2g}, so no difference would count at a confidence of "
            f"{confidence:g}. Use more draws."
        )
    labels = joint.labels
    folds = make_folds(joint.clips, over=hold_out, n_folds=n_folds, seed=seed)
    draws_over = draws_over or folds.over
    clusters = clusters_of(joint.clips, Settings(over=draws_over))

    n_systems = len(joint.sources)

    def held_out(columns: Sequence[int]) -> NDArray[np.float64]:
        def fit(scores: NDArray[np.float64], own: NDArray[np.int64]) -> ScoreFunction:
            return fit_ratios(scores, own, prior=prior, l2=l2, copies=n_systems // len(columns))

        return held_out_scores(fit, joint.scores[:, columns], labels, folds)

    singles = [held_out([column]) for column in range(n_systems)]
    fused = held_out(range(n_systems))
    systems = dict(zip(joint.names, (_metrics(scores, labels) for scores in singles), strict=True))
    rivals = {}
    best = {metric: int(np.argmin([systems[name][metric] for name in joint.names])) for metric in REPORTED}
    for column in sorted(set(best.values())):
        metrics = [metric for metric in REPORTED if best[metric] == column]
        comparisons = compare_systems(
            fused,
            singles[column],
            labels,
            metrics,
            clusters=clusters,
            n_draws=n_draws,
            confidence=confidence,
            seed=seed,
        )
        rivals |= {metric: Rival(joint.names[column], comparisons[metric]) for metric in metrics}
    return FusionReport(
        scores=fused,
        utterance_ids=joint.clips.utterance_ids,
        systems=systems,
        fusion=_metrics(fused, labels),
        rivals={metric: rivals[metric] for metric in REPORTED},
        folds=folds,
        draws_over=draws_over,
    )


def _level(confidence: float) -> float:
    """Return the smallest p-value that counts as chance, rounded: 0.05, not 0.05000000000000004."""
    return round(1 - confidence, 12)


def _metrics(scores: NDArray[np.float64], labels: NDArray[np.int64]) -> dict[str, float]:
    return {metric: METRICS[metric](scores, labels) for metric in REPORTED}
