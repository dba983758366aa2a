"""A study's results arranged for comparison: conditions, arms and seeds."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_gradalign.study.cell import DUAL_PATH, NO_AUGMENTATION
from hf_gradalign.study.errors import StudyError
from hf_gradalign.study.table_files import RESULTS_NAME
from hf_gradalign.study.tables import CELLS_DIR, StudyTables

_ALIKE = 0.02  # forward passes that differ by less count as as many
_TITLES = {"clean": "clean only", "augmented": "augmented only", "dual_path": "dual path"}


@dataclass(frozen=True)
class Condition:
    """What methods are compared under.

    Attributes:
        augmentation: The augmented view's recipe.
        model: The model.
        head: Its head.
        batch_size: Utterances a batch.
        further: Other settings that the study varies, as JSON.
    """

    augmentation: str
    model: str
    head: str
    batch_size: int
    further: str = ""

    @property
    def title(self) -> str:
        """For people."""
        parts = [self.augmentation, *([self.model] if self.model != "small" else []), self.head]
        parts.append(f"batch {self.batch_size}")
        parts += [f"{name} {value}" for name, value in (json.loads(self.further) if self.further else {}).items()]
        return ", ".join(parts)


@dataclass
class Arm:
    """A method under a condition, over its seeds.

    Attributes:
        condition: The condition.
        method: The method.
        epochs: Epochs of training.
        cells: Each seed's cell.
        results: Each seed's rows of results by evaluation set.
        history: Each seed's rows of epochs.
    """

    condition: Condition
    method: str
    epochs: float
    cells: dict[int, str] = field(default_factory=dict)
    results: dict[int, dict[str, dict[str, Any]]] = field(default_factory=dict)
    history: dict[int, list[dict[str, Any]]] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The method for people."""
        return _TITLES.get(self.method, self.method)

    @property
    def seeds(self) -> list[int]:
        """Its seeds, in order."""
        return sorted(self.results)

    @property
    def passes(self) -> int:
        """Forward passes of single views in training, of the first seed."""
        return next(iter(self.results[self.seeds[0]].values()))["n_forward_passes"]

    def values(self, evaluation_set: str, name: str = "eer") -> dict[int, float]:
        """A column of results by seed, where there is a number."""
        found = {seed: self.results[seed].get(evaluation_set, {}).get(name) for seed in self.seeds}
        return {seed: float(value) for seed, value in found.items() if value is not None}

    def run_values(self, name: str) -> dict[int, float]:
        """A column that is the same for every evaluation set, by seed."""
        return self.values(next(iter(self.results[self.seeds[0]])), name)


class Clips:
    """An evaluation set's clips.

    Args:
        rows: Of the table of clips.

    Attributes:
        labels: 1 bona fide, 0 spoof, shape (clips,).
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.labels: NDArray[np.int64] = np.array([row["label"] for row in rows])
        self._rows = rows

    def column(self, name: str) -> list[Any]:
        """A column, such as `system`.

        Raises:
            StudyError: If there is none.
        """
        if self._rows and name not in self._rows[0]:
            raise StudyError(f"clips have no column {name!r}; there are {', '.join(self._rows[0])}")
        return [row[name] for row in self._rows]


class StudyResults:
    """A study's results.

    Args:
        tables: The tables.

    Attributes:
        evaluation_sets: Their names.
        arms: All arms, by condition; a condition with an augmentation has the arms that need none, too.

    Raises:
        StudyError: If there is no finished cell.
    """

    def __init__(self, tables: StudyTables) -> None:
        if not tables.results:
            raise StudyError(
                f"{tables.folder} has no results of finished cells. If {RESULTS_NAME} was lost, --rebuild_tables makes "
                f"it of what is in {CELLS_DIR}/"
            )
        tables.require_sound()
        self._clips = tables.clips
        arms: dict[tuple[Condition, str, float], Arm] = {}
        sets: dict[str, None] = {}
        for cell, rows in tables.results.items():
            first = rows[0]
            condition = Condition(
                first["augmentation"], first["model"], first["head"], first["batch_size"], first["further_settings"]
            )
            key = (condition, first["method"], first["epochs"])
            arm = arms.setdefault(key, Arm(*key))
            if first["seed"] in arm.cells:
                raise StudyError(
                    f"the cells {arm.cells[first['seed']]} and {cell} in {tables.folder} have the same settings: keep "
                    "the results of only one of them in the folder"
                )
            arm.cells[first["seed"]] = cell
            arm.results[first["seed"]] = {row["evaluation_set"]: row for row in rows}
            arm.history[first["seed"]] = tables.epochs.get(cell, [])
            sets.update(dict.fromkeys(arm.results[first["seed"]]))
        self.evaluation_sets = list(sets)
        self.arms = _by_condition(list(arms.values()))

    @cached_property
    def clips(self) -> dict[str, Clips]:
        """The clips by evaluation set."""
        return {name: Clips(self._clips[name]) for name in self.evaluation_sets}


def baseline_of(arm: Arm, arms: Iterable[Arm], method: str = DUAL_PATH) -> Arm | None:
    """What an arm is compared with: the method for as many epochs, or else for as many forward passes.

    Args:
        arm: The arm.
        arms: All arms of its condition.
        method: The baseline's method.

    Returns:
        None for the baseline itself, and where there is neither.
    """
    if arm.method == method:
        return None
    others = [other for other in arms if other.method == method]
    same = [other for other in others if other.epochs == arm.epochs]
    alike = [other for other in others if abs(other.passes / arm.passes - 1) < _ALIKE]
    return next(iter(same + alike), None)


def _by_condition(arms: Sequence[Arm]) -> dict[Condition, list[Arm]]:
    conditions: dict[Condition, list[Arm]] = {}
    for arm in arms:
        if arm.condition.augmentation != NO_AUGMENTATION:
            conditions.setdefault(arm.condition, []).append(arm)
    for arm in arms:
        if arm.condition.augmentation == NO_AUGMENTATION:
            fitting = [other for other in conditions if _but_augmentation(other) == _but_augmentation(arm.condition)]
            for condition in fitting or [arm.condition]:
                conditions.setdefault(condition, []).insert(0, arm)
    return conditions


def _but_augmentation(condition: Condition) -> tuple[Any, ...]:
    return (condition.model, condition.head, condition.batch_size, condition.further)


__all__ = ["Arm", "Clips", "Condition", "StudyResults", "baseline_of"]
