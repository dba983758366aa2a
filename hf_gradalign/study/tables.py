"""A study's results as Parquet files: small, tidy, and all that a report or a later start needs."""

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa

from hf_gradalign.scoring import read_score_file
from hf_gradalign.study.cell import AXES, Cell
from hf_gradalign.study.cell_folder import CellFolder, changed_file
from hf_gradalign.study.definition import EvaluationSet, Study
from hf_gradalign.study.errors import StudyError
from hf_gradalign.study.table_files import (
    CLIPS_NAME,
    CLIPS_SCHEMA,
    EPOCHS_NAME,
    EPOCHS_SCHEMA,
    RESULTS_NAME,
    RESULTS_SCHEMA,
    SCHEMAS,
    SETTINGS,
    clips_path,
    read_table,
    write_table,
)
from hf_gradalign.utils.file_locks import hold_lock

CELLS_DIR, CLIPS_DIR, LOCK_NAME = "cells", "evaluation_sets", "study.lock"

RESOURCES = ("seconds_per_update", "peak_memory_mib")
"""Columns in which two studies of the same cells differ."""

Row = dict[str, Any]


class StudyTables:
    """The tables in a study's folder; they need not be there.

    Args:
        folder: The folder.

    Raises:
        StudyError: If a table is damaged, or none of a study's.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.results = self._read(RESULTS_NAME)
        self.epochs = self._read(EPOCHS_NAME)
        self.clips = self._read(CLIPS_NAME)
        self._taken: dict[Path, int] = {}

    def has(self, cell: Cell, evaluation_sets: Iterable[EvaluationSet]) -> bool:
        """Whether a cell's rows are there, for all these sets as they are defined."""
        there = {_set_key(row) for row in self.results.get(cell.id, [])}
        return all(_set_key(_row_of(evaluation)) in there for evaluation in evaluation_sets)

    def refuse_mixing(self, study: Study) -> None:
        """See that a report could tell the study's cells and sets from others that are in the tables.

        Raises:
            StudyError: If not.
        """
        new_folder = "start a new folder with --output_dir"
        own = {cell.id: _alike(settings_row(cell)) for cell in study.cells}
        others = {_alike(rows[0]): cell for cell, rows in self.results.items() if cell not in own}
        for cell in study.cells:
            if own[cell.id] in others:
                raise StudyError(
                    f"{self.folder} has results of a cell with the same settings ({cell.title}), but other options: "
                    f"{others[own[cell.id]]}. To keep both, {new_folder}, or name the option that differs in cells"
                )
        sets = {evaluation.name: _set_key(_row_of(evaluation)) for evaluation in study.evaluation_sets}
        for cell, rows in self.results.items():
            for row in rows:
                if sets.get(row["evaluation_set"], _set_key(row)) != _set_key(row):
                    described = ", ".join(f"{name} {row[name]}" for name in ("corpus", "split", "subset"))
                    raise StudyError(
                        f"{self.folder} has results on another evaluation set of the name {row['evaluation_set']} "
                        f"({described}; cell {cell}): give the new one another name, or {new_folder}"
                    )

    def require_sound(self) -> None:
        """See that every row of results has a score, or a null, for each of its set's clips.

        Raises:
            StudyError: If not.
        """
        for cell, rows in self.results.items():
            for row in rows:
                name, scores = row["evaluation_set"], row["scores"] or []
                n_clips = len(self.clips.get(name, []))
                if len(scores) != n_clips:
                    raise StudyError(
                        f"{self.folder / RESULTS_NAME} has {len(scores):,} scores of the cell {cell} on {name}, and "
                        f"{self.folder / CLIPS_NAME} {n_clips:,} clips of that set: take both from the same study, or "
                        f"make them again: python scripts/report_study.py {self.folder} --rebuild_tables"
                    )

    def update(self, study: Study | None = None) -> list[Path]:
        """Take in what is finished in the cells' folders, and write the tables. No other row is lost.

        Args:
            study: Its cells and sets come first, in its order; cells of others follow.

        Returns:
            Folders of finished cells that nothing says the settings of: a study's file does.

        Raises:
            StudyError: If a file of a cell is damaged, or an evaluation set has changed.
        """
        for path in sorted((self.folder / CLIPS_DIR).glob("*.parquet")):
            if (table := read_table(path, CLIPS_SCHEMA)) is not None:
                self._take_clips(path, table.to_pylist())
        names = [evaluation.name for evaluation in study.evaluation_sets] if study else []
        known = {cell.id: settings_row(cell) for cell in study.cells} if study else {}
        unknown = []
        for path in sorted((self.folder / CELLS_DIR).glob("*/cell.json")):
            folder = CellFolder(path.parent)
            written = path.stat().st_mtime_ns
            if self._taken.get(path) == written:
                continue
            settings = known.get(folder.path.name) or folder.settings()
            if settings is not None and settings.get("cell") == folder.path.name:
                self._take_cell(folder, settings, names)
                if not folder.settings_file.is_file():
                    folder.write_settings(settings)
                self._taken[path] = written
            elif folder.path.name not in self.results:
                unknown.append(folder.path)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write(CLIPS_NAME, self.clips, names)
        self._write(EPOCHS_NAME, self.epochs, known)
        self._write(RESULTS_NAME, self.results, known)  # last, for it says which cells are finished
        return unknown

    def write_clips(self, study: Study) -> None:
        """Have the clips of a study's sets where its cells look, though only the tables came to this machine."""
        folder = self.folder / CLIPS_DIR
        folder.mkdir(parents=True, exist_ok=True)
        for evaluation in study.evaluation_sets:
            path = clips_path(folder, evaluation.name)
            if evaluation.name in self.clips and not path.exists():
                write_table(path, CLIPS_SCHEMA, self.clips[evaluation.name])

    def _take_clips(self, path: Path, rows: list[Row]) -> None:
        name = path.stem
        if any(row["evaluation_set"] != name for row in rows):
            raise StudyError(f"{path} has clips of another evaluation set: give it the name that it had")
        before = self.clips.get(name)
        if before is not None and [_clip_key(row) for row in before] != [_clip_key(row) for row in rows]:
            raise StudyError(
                f"{path} and {self.folder / CLIPS_NAME} have different clips of the evaluation set {name}. Move "
                "away the one that is wrong"
            )
        self.clips[name] = rows

    def _take_cell(self, folder: CellFolder, settings: Row, order: Sequence[str]) -> None:
        outcome = folder.outcome()
        rows = {row["evaluation_set"]: row for row in self.results.get(settings["cell"], [])}
        try:
            described = settings | outcome["run"] | {"versions": json.dumps(outcome["run"]["versions"])}
            for entry in outcome["evaluations"]:
                scores = self._scores(folder, entry)
                if scores is not None:
                    rows[entry["evaluation_set"]] = described | entry | {"scores": scores}
            rows = {name: rows[name] for name in dict.fromkeys([*order, *rows]) if name in rows}
            epochs = [settings | row for row in outcome["epochs"]]
            pa.Table.from_pylist(list(rows.values()), RESULTS_SCHEMA)
            pa.Table.from_pylist(epochs, EPOCHS_SCHEMA)
        except (pa.ArrowException, KeyError, TypeError, OverflowError) as error:
            raise changed_file(folder.outcome_file, f"{type(error).__name__}: {error}") from error
        if rows:
            self.results[settings["cell"]] = list(rows.values())
            self.epochs[settings["cell"]] = epochs

    def _scores(self, folder: CellFolder, entry: Row) -> list[float | None] | None:
        """In the order of the clips; None where the scores or the clips are gone, and what the tables say holds."""
        path, clips = folder.score_file(entry["evaluation_set"]), self.clips.get(entry["evaluation_set"])
        if clips is None or not path.is_file():
            return None
        try:
            by_name = read_score_file(path)
        except (ValueError, KeyError) as error:
            raise changed_file(path, error) from error
        scores = [by_name.get(row["utterance_id"]) for row in clips]
        n_scored = sum(score is not None for score in scores)
        if n_scored != entry["n_clips"] - entry["n_bad_clips"]:
            raise changed_file(path, f"it has scores of {n_scored:,} of {len(clips):,} clips")
        return scores

    def _write(self, name: str, rows: Mapping[str, Sequence[Row]], order: Iterable[str]) -> None:
        listed = [row for key in dict.fromkeys([*order, *rows]) for row in rows.get(key, [])]
        write_table(self.folder / name, SCHEMAS[name], listed)

    def _read(self, name: str) -> dict[str, list[Row]]:
        remedy = (
            f"python scripts/report_study.py {self.folder} --rebuild_tables sets it aside and makes the tables again"
        )
        table = read_table(self.folder / name, SCHEMAS[name], remedy)
        rows: dict[str, list[Row]] = {}
        for row in table.to_pylist() if table is not None else ():
            rows.setdefault(row[SCHEMAS[name].names[0]], []).append(row)
        return rows


def rebuild_tables(folder: str | Path) -> tuple[list[Path], list[Path]]:
    """Make a study's tables again of what its cells' folders hold. Sound rows of other cells stay.

    Args:
        folder: The study's.

    Returns:
        Where damaged tables are now, and folders of finished cells that nothing says the settings of.

    Raises:
        LockHeldError: If a process is running the study.
        StudyError: If there are no cells, or a file of a cell is damaged.
    """
    folder = Path(folder)
    if not any((folder / CELLS_DIR).glob("*/cell.json")):
        raise StudyError(f"{folder / CELLS_DIR} has no finished cells to make tables of")
    aside = []
    with hold_lock(folder / LOCK_NAME, f"the study in {folder}"):
        for name, schema in SCHEMAS.items():
            try:
                read_table(folder / name, schema)
            except StudyError:
                free = (folder / f"{name}.damaged{number or ''}" for number in count())
                aside.append((folder / name).rename(next(path for path in free if not path.exists())))
        return aside, StudyTables(folder).update()


def settings_row(cell: Cell) -> Row:
    """What the tables say of a cell."""
    further = {axis: value for axis, value in cell.settings.items() if axis not in AXES}
    known = {axis: cell.settings[axis] for axis in AXES}
    for name in ("method", "augmentation", "model", "head"):
        known[name] = str(known[name])
    return {"cell": cell.id, **known, "further_settings": json.dumps(further, sort_keys=True) if further else ""}


def _alike(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name, _ in SETTINGS[1:])


def _clip_key(row: Row) -> tuple[Any, ...]:
    return row["utterance_id"], row["label"]


def _row_of(evaluation: EvaluationSet) -> Row:
    return {
        "evaluation_set": evaluation.name,
        "corpus": evaluation.corpus,
        "split": evaluation.split,
        "subset": evaluation.subset,
    }


def _set_key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("evaluation_set", "corpus", "split", "subset"))


__all__ = [
    "CELLS_DIR",
    "CLIPS_DIR",
    "CLIPS_NAME",
    "EPOCHS_NAME",
    "EPOCHS_SCHEMA",
    "LOCK_NAME",
    "RESOURCES",
    "RESULTS_NAME",
    "RESULTS_SCHEMA",
    "StudyTables",
    "rebuild_tables",
    "settings_row",
]
