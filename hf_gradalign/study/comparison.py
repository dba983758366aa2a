"""Arranges a study's results for comparison, and computes paired differences between methods.

Trials that differ only in their seed form a group. Groups of the same condition are compared with a baseline.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from hf_gradalign.metrics import RankedScores
from hf_gradalign.metrics.functional.eer import official_equal_error
from hf_gradalign.metrics.stats.bootstrap import draw_order, make_draws, require_settings
from hf_gradalign.study.definition import DUAL_PATH, NO_AUGMENTATION, StudyError
from hf_gradalign.study.table_files import RESULTS_NAME
from hf_gradalign.study.tables import TRIALS_DIR, StudyTables, TableRow
from hf_gradalign.utils.files import require_reachable

_SAME_COST = 0.02  # numbers of forward passes that differ by less than this fraction count as equal
_TITLES = {"clean": "clean only", "augmented": "augmented only", "dual_path": "dual path"}
ONE_SEED = "one seed"
_MAX_EXACT_SEEDS = 13  # the signed-rank test enumerates all signs up to this number of seeds


@dataclass(frozen=True)
class Condition:
    """The settings that compared methods share.

    Attributes:
        augmentation: The recipe of the augmented view.
        model: The model.
        head: The model's head.
        batch_size: Utterances per batch.
        further: Any other settings that the study varies, as JSON.
    """

    augmentation: str
    model: str
    head: str
    batch_size: int
    further: str = ""

    @property
    def title(self) -> str:
        """The condition as text."""
        parts = [self.augmentation, *([self.model] if self.model != "small" else []), self.head]
        parts.append(f"batch {self.batch_size}")
        parts += [f"{name} {value}" for name, value in (json.loads(self.further) if self.further else {}).items()]
        return ", ".join(parts)


@dataclass
class Group:
    """The trials of a method under a condition, one per seed.

    Attributes:
        condition: The condition.
        method: The method.
        epochs: Epochs of training.
        trials: Trial ids by seed.
        results: Rows of results by seed, then by evaluation set.
        history: Rows of epochs by seed.
    """

    condition: Condition
    method: str
    epochs: float
    trials: dict[int, str] = field(default_factory=dict)
    results: dict[int, dict[str, TableRow]] = field(default_factory=dict)
    history: dict[int, list[TableRow]] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The method as text."""
        return _TITLES.get(self.method, self.method)

    @property
    def seeds(self) -> list[int]:
        """The seeds, in order."""
        return sorted(self.results)

    @property
    def passes(self) -> int:
        """Forward passes of single views in training, for the first seed."""
        return next(iter(self.results[self.seeds[0]].values()))["n_forward_passes"]

    def values(self, evaluation_set: str, name: str = "eer") -> dict[int, float]:
        """Return a column of results by seed, without missing values."""
        values = {seed: self.results[seed].get(evaluation_set, {}).get(name) for seed in self.seeds}
        return {seed: float(value) for seed, value in values.items() if value is not None}

    def run_values(self, name: str) -> dict[int, float]:
        """Return a column that is the same for every evaluation set, by seed, without missing values."""
        # Take any set, because some seeds may not have been scored on all sets yet.
        values = {seed: next(iter(self.results[seed].values()))[name] for seed in self.seeds}
        return {seed: float(value) for seed, value in values.items() if value is not None}


class EvaluationClips:
    """The clips of an evaluation set.

    Args:
        rows: Rows of the table of clips.

    Attributes:
        labels: 1 bona fide, 0 spoof, shape (clips,).
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.labels: NDArray[np.int64] = np.array([row["label"] for row in rows])
        self._rows = rows

    def column(self, name: str) -> list[Any]:
        """Return a column, such as `system`.

        Raises:
            StudyError: If there is no such column.
        """
        if self._rows and name not in self._rows[0]:
            raise StudyError(f"clips have no column {name!r}. Available columns: {', '.join(self._rows[0])}")
        return [row[name] for row in self._rows]


class StudyResults:
    """The results of a study, arranged for comparison.

    Args:
        tables: The tables.

    Attributes:
        evaluation_sets: Names of the evaluation sets.
        groups: All groups by condition. Groups that need no augmentation are listed under every augmentation.

    Raises:
        StudyError: If there is no finished trial.
    """

    def __init__(self, tables: StudyTables) -> None:
        require_reachable(tables.folder)
        if not tables.folder.is_dir():
            what = "is a file" if tables.folder.exists() else "does not exist"
            raise StudyError(f"{tables.folder} {what}; pass the folder of a study, such as runs/studies/quick")
        if not tables.results:
            raise StudyError(
                f"{tables.folder} has no results of finished trials. If {RESULTS_NAME} was lost, --rebuild_tables "
                f"rebuilds it from {TRIALS_DIR}/"
            )
        tables.require_sound()
        self._clips = tables.clips
        groups: dict[tuple[Condition, str, float], Group] = {}
        sets: dict[str, None] = {}
        for trial_id, rows in tables.results.items():
            first = rows[0]
            condition = Condition(
                first["augmentation"], first["model"], first["head"], first["batch_size"], first["further_settings"]
            )
            key = (condition, first["method"], first["epochs"])
            group = groups.setdefault(key, Group(*key))
            if first["seed"] in group.trials:
                raise StudyError(
                    f"the trials {group.trials[first['seed']]} and {trial_id} in {tables.folder} have the same "
                    "settings. Keep the results of only one of them in the folder"
                )
            group.trials[first["seed"]] = trial_id
            group.results[first["seed"]] = {row["evaluation_set"]: row for row in rows}
            group.history[first["seed"]] = tables.epochs.get(trial_id, [])
            sets.update(dict.fromkeys(group.results[first["seed"]]))
        self.evaluation_sets = list(sets)
        self.groups = _by_condition(list(groups.values()))

    @cached_property
    def clips(self) -> dict[str, EvaluationClips]:
        """The clips by evaluation set."""
        return {name: EvaluationClips(self._clips[name]) for name in self.evaluation_sets}


def baseline_of(group: Group, groups: Iterable[Group], method: str = DUAL_PATH) -> Group | None:
    """Find the baseline of a group: the method with as many epochs, or if there is none, with as many forward passes.

    Args:
        group: The group.
        groups: All groups of its condition.
        method: The method of the baseline.

    Returns:
        None for the baseline itself, and if there is no baseline.
    """
    if group.method == method:
        return None
    candidates = [other for other in groups if other.method == method]
    same_epochs = [other for other in candidates if other.epochs == group.epochs]
    same_cost = [other for other in candidates if abs(other.passes / group.passes - 1) < _SAME_COST]
    return next(iter(same_epochs + same_cost), None)


@dataclass(frozen=True)
class Difference:
    """The equal error rate of a group minus its baseline's, as fractions.

    Attributes:
        mean: The mean over the seeds that both groups have.
        low: Lower end of the interval.
        high: Upper end.
        p_value: Of Wilcoxon's signed-rank test over seeds, two-sided; None with fewer than two seeds.
        n_seeds: The number of seeds.
    """

    mean: float
    low: float
    high: float
    p_value: float | None
    n_seeds: int

    @property
    def verdict(self) -> str:
        """`lower`, `higher`, `noise` if the interval contains zero, or `one seed`, which says nothing of others."""
        if self.n_seeds < 2:
            return ONE_SEED
        return "noise" if self.low <= 0 <= self.high else ("lower" if self.mean < 0 else "higher")


class PairedBootstrap:
    """Bootstrap of differences over utterances and seeds.

    Each draw takes the clips of each class (or speakers, ...) with replacement, the same for all groups and seeds. It
    also takes the seeds of a comparison with replacement, and the difference is the mean over these seeds. Drawing only
    utterances would tell how the same two trained models differ on other clips. Drawing only seeds would tell how other
    training runs differ on these clips.

    Intervals from few seeds are too narrow. If the spread over seeds dominates, the intervals of equal methods exclude
    zero in 7 % of the cases with 20 seeds, 10 % with 10, 16 % with 5, 26 % with 3 and 48 % with 2 (simulated with
    normally distributed differences).

    Args:
        clips: The evaluation set.
        n_draws: The number of draws.
        over: "utterance", or a column of the clips whose values are drawn, such as "speaker".
        confidence: Coverage of the percentile interval.
        seed: The seed of the draws.

    Raises:
        StudyError: If the clips have no such column.
        ValueError: If `n_draws` or `confidence` is out of range, or the column has fewer than two values.
    """

    def __init__(
        self,
        clips: EvaluationClips,
        *,
        n_draws: int = 1000,
        over: str = "utterance",
        confidence: float = 0.95,
        seed: int = 0,
    ) -> None:
        require_settings(n_draws, confidence, seed)
        self._labels = clips.labels
        self._clusters: Sequence[Any] | None = None if over == "utterance" else clips.column(over)
        self._n_draws = n_draws
        self._tails = [(1 - confidence) / 2, (1 + confidence) / 2]
        self._seed = seed
        self._drawn_rates: dict[str, NDArray[np.float64]] = {}

    def compare(self, group: Group, baseline: Group, evaluation_set: str) -> Difference | None:
        """Compare a group with its baseline; None if they share no seed."""
        ours, theirs = group.values(evaluation_set), baseline.values(evaluation_set)
        seeds = sorted(ours.keys() & theirs.keys())
        if not seeds:
            return None
        observed = np.array([ours[seed] - theirs[seed] for seed in seeds])
        drawn = self._drawn_differences(group, baseline, evaluation_set, seeds)
        generator = np.random.default_rng(self._seed)
        chosen = generator.integers(0, len(seeds), (len(seeds), self._n_draws))
        means = np.take_along_axis(drawn, chosen, axis=0).mean(axis=0)
        low, high = np.nanquantile(means, self._tails)
        return Difference(float(observed.mean()), float(low), float(high), signed_rank_p(observed), len(seeds))

    def clip_error(self, group: Group, baseline: Group, evaluation_set: str) -> float:
        """Return the standard error of the mean difference due to the choice of clips alone, as a fraction.

        More seeds reduce it only if their models make errors on different clips.
        """
        seeds = sorted(group.values(evaluation_set).keys() & baseline.values(evaluation_set).keys())
        return float(np.nanstd(self._drawn_differences(group, baseline, evaluation_set, seeds).mean(axis=0)))

    def _drawn_differences(
        self, group: Group, baseline: Group, evaluation_set: str, seeds: Sequence[int]
    ) -> NDArray[np.float64]:
        pairs = [
            self._rates(group, seed, evaluation_set) - self._rates(baseline, seed, evaluation_set) for seed in seeds
        ]
        return np.array(pairs)

    def _rates(self, group: Group, seed: int, evaluation_set: str) -> NDArray[np.float64]:
        trial_id = group.trials[seed]
        if trial_id not in self._drawn_rates:
            scores = np.array(group.results[seed][evaluation_set]["scores"], dtype=float)
            # One order of the clips for all trials, so that all trials see the same draws.
            order = draw_order(np.zeros(len(scores)), self._labels)
            draws = make_draws(self._labels, self._clusters, self._seed, order)
            is_scored = np.isfinite(scores)[order]
            ranked = RankedScores(scores[order][is_scored], self._labels[order][is_scored])
            rates = np.full(self._n_draws, np.nan)
            for number in range(self._n_draws):
                counted = ranked.counted(draws(number)[is_scored])
                if counted.has_both_classes:
                    rates[number] = official_equal_error(counted).rate
            self._drawn_rates[trial_id] = rates
        return self._drawn_rates[trial_id]


def signed_rank_p(differences: NDArray[np.float64]) -> float | None:
    """Return the two-sided p-value of Wilcoxon's signed-rank test, exact for up to 13 differences, also with ties."""
    if len(differences) < 2:
        return None
    differences = np.round(differences, 12)  # equal rates may differ by rounding errors
    if not differences.any():
        return 1.0
    method = stats.PermutationMethod() if len(differences) <= _MAX_EXACT_SEEDS else "auto"
    return float(stats.wilcoxon(differences, method=method).pvalue)


def _by_condition(groups: Sequence[Group]) -> dict[Condition, list[Group]]:
    conditions: dict[Condition, list[Group]] = {}
    for group in groups:
        if group.condition.augmentation != NO_AUGMENTATION:
            conditions.setdefault(group.condition, []).append(group)
    for group in groups:
        if group.condition.augmentation == NO_AUGMENTATION:
            matches = [
                other for other in conditions if _without_augmentation(other) == _without_augmentation(group.condition)
            ]
            for condition in matches or [group.condition]:
                conditions.setdefault(condition, []).insert(0, group)
    return conditions


def _without_augmentation(condition: Condition) -> tuple[Any, ...]:
    return (condition.model, condition.head, condition.batch_size, condition.further)
