"""A run's conflict record as arrays."""

from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_gradalign.training.conflicts.record import epoch_number, find_conflict_record, read_conflict_rows, views_of

Pair = tuple[str, str]
Floats = NDArray[np.float64]


class ConflictHistory:
    """The conflicts of a run, S recorded updates of K views; NaN where nothing (finite) was recorded.

    Args:
        rows: Rows of a conflict record, as `read_conflict_rows` gives them.

    Attributes:
        views: The K views' names.
        pairs: All pairs of them; empty for a single view.
        steps: Shape (S,), numbers of the updates.
        epochs: Shape (S,), the epoch that each belongs to, counted from 1.
        cosines: For each pair, shape (S,), in [-1, 1].
        norm_ratios: For each pair (a, b), shape (S,), |g_b| / |g_a|.
        modules: Names of the M recorded modules, in the model's order; empty where none were recorded.
        module_cosines: For each pair, shape (S, M).
    """

    def __init__(self, rows: Iterable[dict[str, Any]]) -> None:
        steps, epochs = [], []
        self.modules: list[str] = []
        views: dict[str, None] = {}
        figures: dict[str, dict[int, float | None]] = {}
        by_module: dict[str, list[tuple[int, tuple[str, ...], Floats]]] = {}
        known: dict[tuple[str, ...], tuple[str, ...]] = {}
        for position, row in enumerate(rows):
            steps.append(row["step"])
            epochs.append(epoch_number(row["epoch"]))
            views.update(dict.fromkeys(views_of(row)))
            names = tuple(row.get("module") or ())
            if names not in known:
                known[names] = names
                _merge(self.modules, names)
            for name, value in row.items():
                if name.startswith(("cosine_", "norm_ratio_")):
                    figures.setdefault(name, {})[position] = value
                elif name.startswith("module_cosine_") and names:
                    by_module.setdefault(name, []).append((position, known[names], np.array(value, dtype=float)))
        self.views = list(views)
        self.pairs: list[Pair] = list(combinations(self.views, 2))
        self.steps = np.array(steps, dtype=int)
        self.epochs = np.array(epochs, dtype=int)
        self.cosines = {(a, b): _column(figures.get(f"cosine_{a}_{b}", {}), len(steps)) for a, b in self.pairs}
        self.norm_ratios = {(a, b): _column(figures.get(f"norm_ratio_{b}_{a}", {}), len(steps)) for a, b in self.pairs}
        self.module_cosines: dict[Pair, Floats] = {}
        where = {name: index for index, name in enumerate(self.modules)}
        places = {names: [where[name] for name in names] for names in known}
        for a, b in self.pairs:
            matrix = np.full((len(steps), len(self.modules)), np.nan)
            for position, names, values in by_module.get(f"module_cosine_{a}_{b}", []):
                matrix[position, places[names]] = values
            self.module_cosines[a, b] = matrix

    @classmethod
    def read(cls, source: str | Path) -> "ConflictHistory":
        """Read a run's record.

        Args:
            source: A run's folder, or a record.

        Raises:
            FileNotFoundError: If there is no such path, or the run has no record.
            ValueError: If the file is no record, or has no update yet.
        """
        path = Path(source)
        if not path.exists():
            raise FileNotFoundError(f"there is no {path}")
        if path.is_dir():
            path = find_conflict_record(path)
            if path is None:
                raise FileNotFoundError(
                    f"{source} holds no conflict record (conflicts.jsonl or conflicts.parquet); a run writes it with "
                    "--conflict_record jsonl, and for every module with --conflict_record_modules"
                )
        history = cls(read_conflict_rows(path))
        if not len(history.steps):
            raise ValueError(f"{path} has no update yet; rows are written every fifty updates and with each checkpoint")
        return history

    def conflict_rates(self, pair: Pair) -> tuple[NDArray[np.int64], Floats]:
        """The epochs with a finite update, and in which fraction of these the pair's cosine was negative."""
        cosines = self.cosines[pair]
        finite = np.isfinite(cosines)
        epochs, index = np.unique(self.epochs[finite], return_inverse=True)
        return epochs, np.bincount(index, cosines[finite] < 0) / np.bincount(index)


def _merge(names: list[str], others: Sequence[str]) -> None:
    """Put new names where they stand among the known: layers that were dropped at first come in between."""
    start = 0
    for position, name in enumerate(others):
        if name not in names:
            end = min((names.index(later) for later in others[position + 1 :] if later in names), default=len(names))
            prefix, number = _numbered(name)
            later = (
                place
                for place in range(start, end)
                if _numbered(names[place])[0] == prefix and _numbered(names[place])[1] > number
            )
            names.insert(next(later, end), name)
        start = names.index(name) + 1


def _numbered(name: str) -> tuple[str, int]:
    prefix, _, number = name.rpartition(".")
    return (prefix, int(number)) if number.isdecimal() else (name, 0)


def _column(values: dict[int, float | None], length: int) -> Floats:
    column = np.full(length, np.nan)
    if values:
        column[list(values)] = np.array(list(values.values()), dtype=float)
    return column


__all__ = ["ConflictHistory", "Pair"]
