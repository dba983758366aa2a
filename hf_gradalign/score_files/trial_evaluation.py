"""Evaluates speaker verifiers that must also reject spoofs: a-DCF, and equal error rates by type of trial."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from hf_gradalign.metrics import (
    ASVSPOOF5_AGNOSTIC_COSTS,
    TRIAL_TYPES,
    AgnosticCosts,
    Interval,
    RankedScores,
    score_problems,
)
from hf_gradalign.metrics.functional.a_dcf import cheapest_agnostic
from hf_gradalign.metrics.functional.eer import official_equal_error
from hf_gradalign.metrics.functional.ranked_scores import RankedTrials
from hf_gradalign.metrics.stats.bootstrap import draw_order, fewest_clusters, intervals_of, make_draws, require_settings
from hf_gradalign.metrics.stats.few_errors import sampling_problems
from hf_gradalign.score_files.clips import Clips, ScoreFileError
from hf_gradalign.score_files.results import Evaluation, MetricRow, Settings, clusters_of

_COSTS = {"a_dcf": AgnosticCosts(), "a_dcf_asvspoof5": ASVSPOOF5_AGNOSTIC_COSTS}
# Equal error rates of targets against these types of trials (SASV challenge 2022).
_OTHERS = {"sasv_eer": ("nontarget", "spoof"), "sv_eer": ("nontarget",), "spf_eer": ("spoof",)}
_TITLES = {
    "a_dcf": ("min a-DCF", False),
    "a_dcf_asvspoof5": ("min a-DCF (ASVspoof 5)", False),
    "sasv_eer": ("SASV-EER", True),
    "sv_eer": ("SV-EER", True),
    "spf_eer": ("SPF-EER", True),
}


class TrialValues:
    """Computes all metrics of samples of trials. Scores are ranked once.

    Args:
        scores: One number per trial, higher for the claimed speaker's bona fide speech, shape (trials,).
        types: "target", "nontarget" or "spoof" for each trial, shape (trials,).

    Attributes:
        names: The names of the metrics.

    Raises:
        ValueError: As for `RankedTrials`.
    """

    def __init__(self, scores: NDArray[np.float64], types: NDArray) -> None:
        self.names = list(_TITLES)
        self._trials = RankedTrials(scores, types)
        self._compared: dict[str, tuple[NDArray[np.intp], RankedScores]] = {}
        for name, others in _OTHERS.items():
            chosen = np.flatnonzero(np.isin(types, ("target", *others)))
            self._compared[name] = chosen, RankedScores(scores[chosen], (types[chosen] == "target").astype(int))

    def __call__(self, counts: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
        """Return the metrics of a sample (by default all trials), shape (metrics,); NaN if it lacks a type of trial."""
        rejected = self._trials.rejected(counts)
        if not rejected[:, -1].all():
            return np.full(len(self.names), np.nan)
        costs = [cheapest_agnostic(rejected, costs)[0] for costs in _COSTS.values()]
        rates = [
            official_equal_error(ranked.counted(None if counts is None else counts[chosen])).rate
            for chosen, ranked in self._compared.values()
        ]
        return np.array([*costs, *rates])


def evaluate_trials(clips: Clips, settings: Settings | None = None, *, progress: bool = False) -> Evaluation:
    """Evaluate a speaker verifier that must also reject spoofs: a-DCF, and equal error rates against each class.

    Args:
        clips: Clips with scores and trial types.
        settings: The settings of the evaluation. Settings for countermeasures (threshold, verifier, columns) do not
            apply.
        progress: As for `bootstrap_intervals`.

    Raises:
        ScoreFileError: If there are no scores or no trial types.
        ValueError: As for `min_agnostic_detection_cost` and `bootstrap_intervals`.
    """
    settings = settings or Settings()
    scores, types = clips.scores, clips.trial_types
    if scores is None or types is None:
        missing = "scores" if scores is None else "trial types (target, nontarget, spoof)"
        raise ScoreFileError(f"{clips.source} has no {missing}. Use a file that has them.")
    order = draw_order(scores, types)
    measured = TrialValues(scores[order], types[order])
    counted = RankedScores(scores, (types == "target").astype(int)).counted()
    problems = [f"Targets against all other trials: {problem}" for problem in score_problems(counted)]
    intervals: Mapping[str, Interval] = {}
    if settings.n_draws:
        require_settings(settings.n_draws, settings.confidence, settings.seed)
        draws = make_draws(types, clusters_of(clips, settings), settings.seed, order)
        n_clusters = fewest_clusters(draws, types[order])
        problems += sampling_problems(counted, n_clusters, classes=("target", "other"), unit="trials")
        intervals = intervals_of(measured, draws, settings.n_draws, settings.confidence, progress=progress)
    values = dict(zip(measured.names, measured().tolist(), strict=True))
    rows = {
        name: MetricRow(title, values[name], intervals.get(name), is_percentage)
        for name, (title, is_percentage) in _TITLES.items()
    }
    n_trials = {name: int(np.count_nonzero(types == name)) for name in TRIAL_TYPES}
    return Evaluation(
        clips.source,
        n_bonafide=len(clips) - n_trials["spoof"],
        n_spoof=n_trials["spoof"],
        rows=rows,
        eer_threshold=None,
        settings=settings,
        problems=problems,
        notes=list(clips.notes),
        score_form=clips.score_form,
        costs={name: asdict(costs) for name, costs in _COSTS.items()},
        n_trials=n_trials,
    )
