"""A study's results as Parquet files: everything that a report, or another start of the study, needs."""

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa

from hf_gradalign.scoring import read_score_file
from hf_gradalign.study.definition import AXES, EvaluationSet, Study, StudyError, Trial
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
from hf_gradalign.study.trial_folder import TrialFolder, changed_file_error
from hf_gradalign.utils.file_locks import hold_lock

TRIALS_DIR, CLIPS_DIR, LOCK_NAME = "cells", "evaluation_sets", "study.lock"

TableRow = dict[str, Any]


class StudyTables:
    """The tables in a study's folder. Missing tables are empty.

    Args:
        folder: The folder.

    Attributes:
        results: Rows of `results.parquet` by trial id.
        epochs: Rows of `epochs.parquet` by trial id.
        clips: Rows of `clips.parquet` by evaluation set.

    Raises:
        StudyError: If a table is damaged, or a different kind of table.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.results = self._read(RESULTS_NAME)
        self.epochs = self._read(EPOCHS_NAME)
        self.clips = self._read(CLIPS_NAME)
        self._added: dict[Path, int] = {}

    def has(self, trial: Trial, evaluation_sets: Iterable[EvaluationSet]) -> bool:
        """Return whether there are results of the trial on all these sets, as they are defined now."""
        scored = {_set_key(row) for row in self.results.get(trial.id, [])}
        return all(_set_key(_row_of(evaluation)) in scored for evaluation in evaluation_sets)

    def refuse_mixing(self, study: Study) -> None:
        """Check that a report can distinguish the study's trials and sets from others in the tables.

        Raises:
            StudyError: If not.
        """
        new_folder = "start a new folder with --output_dir"
        own = {trial.id: _settings_key(settings_row(trial)) for trial in study.trials}
        others = {_settings_key(rows[0]): trial for trial, rows in self.results.items() if trial not in own}
        for trial in study.trials:
            if own[trial.id] in others:
                raise StudyError(
                    f"{self.folder} has results of a trial with the same settings ({trial.title}) but other options: "
                    f"{others[own[trial.id]]}. To keep both, {new_folder}, or add the option that differs to cells"
                )
        sets = {evaluation.name: _set_key(_row_of(evaluation)) for evaluation in study.evaluation_sets}
        for trial_id, rows in self.results.items():
            for row in rows:
                if sets.get(row["evaluation_set"], _set_key(row)) != _set_key(row):
                    described = ", ".join(f"{name} {row[name]}" for name in ("corpus", "split", "subset"))
                    raise StudyError(
                        f"{self.folder} has results on a different evaluation set with the name "
                        f"{row['evaluation_set']} ({described}; trial {trial_id}). Rename the new one, or "
                        f"{new_folder}"
                    )

    def require_sound(self) -> None:
        """Check that every row of results has a score, or a null, for each clip of its set.

        Raises:
            StudyError: If not.
        """
        for trial_id, rows in self.results.items():
            for row in rows:
                name, scores = row["evaluation_set"], row["scores"] or []
                n_clips = len(self.clips.get(name, []))
                if len(scores) != n_clips:
                    raise StudyError(
                        f"{self.folder / RESULTS_NAME} has {len(scores):,} scores of the trial {trial_id} on {name}, "
                        f"but {self.folder / CLIPS_NAME} has {n_clips:,} clips of that set. Take both files from the "
                        f"same study, or rebuild them: python scripts/report_study.py {self.folder} --rebuild_tables"
                    )

    def update(self, study: Study | None = None) -> list[Path]:
        """Add the finished trials in the study's folder, and write the tables. All other rows are kept.

        Args:
            study: Its trials and sets come first, in its order, followed by other studies' trials and sets.

        Returns:
            Folders of finished trials with unknown settings. The study file they belong to has the settings.

        Raises:
            StudyError: If a file of a trial is damaged, or an evaluation set has changed.
        """
        for path in sorted((self.folder / CLIPS_DIR).glob("*.parquet")):
            if (table := read_table(path, CLIPS_SCHEMA)) is not None:
                self._add_clips(path, table.to_pylist())
        names = [evaluation.name for evaluation in study.evaluation_sets] if study else []
        known = {trial.id: settings_row(trial) for trial in study.trials} if study else {}
        unknown = []
        for path in sorted((self.folder / TRIALS_DIR).glob("*/cell.json")):
            folder = TrialFolder(path.parent)
            written = path.stat().st_mtime_ns
            if self._added.get(path) == written:
                continue
            settings = known.get(folder.path.name) or folder.settings()
            if settings is not None and settings.get("cell") == folder.path.name:
                self._add_trial(folder, settings, names)
                if not folder.settings_file.is_file():
                    folder.write_settings(settings)
                self._added[path] = written
            elif folder.path.name not in self.results:
                unknown.append(folder.path)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write(CLIPS_NAME, self.clips, names)
        self._write(EPOCHS_NAME, self.epochs, known)
        self._write(RESULTS_NAME, self.results, known)  # last, because this table says which trials are finished
        return unknown

    def write_clips(self, study: Study) -> None:
        """Write the clips of a study's sets to where its trials read them, when only the tables were copied here."""
        folder = self.folder / CLIPS_DIR
        folder.mkdir(parents=True, exist_ok=True)
        for evaluation in study.evaluation_sets:
            path = clips_path(folder, evaluation.name)
            if evaluation.name in self.clips and not path.exists():
                write_table(path, CLIPS_SCHEMA, self.clips[evaluation.name])

    def _add_clips(self, path: Path, rows: list[TableRow]) -> None:
        name = path.stem
        if any(row["evaluation_set"] != name for row in rows):
            raise StudyError(f"{path} has clips of a different evaluation set. Restore its old name")
        before = self.clips.get(name)
        if before is not None and [_clip_key(row) for row in before] != [_clip_key(row) for row in rows]:
            raise StudyError(
                f"{path} and {self.folder / CLIPS_NAME} have different clips of the evaluation set {name}. Move "
                "the wrong one away"
            )
        self.clips[name] = rows

    def _add_trial(self, folder: TrialFolder, settings: TableRow, order: Sequence[str]) -> None:
        outcome = folder.outcome()
        assert outcome is not None, "the caller found the file"
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
            raise changed_file_error(folder.outcome_file, f"{type(error).__name__}: {error}") from error
        if rows:
            self.results[settings["cell"]] = list(rows.values())
            self.epochs[settings["cell"]] = epochs

    def _scores(self, folder: TrialFolder, entry: TableRow) -> list[float | None] | None:
        """Return scores in the order of the clips, or None if the file or the clips are gone."""
        path, clips = folder.score_file(entry["evaluation_set"]), self.clips.get(entry["evaluation_set"])
        if clips is None or not path.is_file():
            return None
        try:
            by_name = read_score_file(path)
        except (ValueError, KeyError) as error:
            raise changed_file_error(path, error) from error
        scores = [by_name.get(row["utterance_id"]) for row in clips]
        n_scored = sum(score is not None for score in scores)
        if n_scored != entry["n_clips"] - entry["n_bad_clips"]:
            raise changed_file_error(path, f"it has scores for {n_scored:,} of {len(clips):,} clips")
        return scores

    def _write(self, name: str, rows: Mapping[str, Sequence[TableRow]], order: Iterable[str]) -> None:
        ordered = [row for key in dict.fromkeys([*order, *rows]) for row in rows.get(key, [])]
        write_table(self.folder / name, SCHEMAS[name], ordered)

    def _read(self, name: str) -> dict[str, list[TableRow]]:
        remedy = f"to move it aside and rebuild it, run python scripts/report_study.py {self.folder} --rebuild_tables"
        table = read_table(self.folder / name, SCHEMAS[name], remedy)
        rows: dict[str, list[TableRow]] = {}
        for row in table.to_pylist() if table is not None else ():
            rows.setdefault(row[SCHEMAS[name].names[0]], []).append(row)
        return rows


def rebuild_tables(folder: str | Path) -> tuple[list[Path], list[Path]]:
    """Rebuild a study's tables from the folders of its trials. Intact rows of other trials are kept.

    Args:
        folder: The study's folder.

    Returns:
        The new paths of damaged tables, and folders of finished trials with unknown settings.

    Raises:
        LockHeldError: If a process is running the study.
        StudyError: If there are no trials, or a file of a trial is damaged.
    """
    folder = Path(folder)
    if not any((folder / TRIALS_DIR).glob("*/cell.json")):
        raise StudyError(f"{folder / TRIALS_DIR} has no finished trials to rebuild tables from")
    aside = []
    with hold_lock(folder / LOCK_NAME, f"the study in {folder}"):
        for name, schema in SCHEMAS.items():
            try:
                read_table(folder / name, schema)
            except StudyError:
                free = (folder / f"{name}.damaged{number or ''}" for number in count())
                aside.append((folder / name).rename(next(path for path in free if not path.exists())))
        return aside, StudyTables(folder).update()


def settings_row(trial: Trial) -> TableRow:
    """Return the trial's columns in the tables."""
    further = {axis: value for axis, value in trial.settings.items() if axis not in AXES}
    known = {axis: trial.settings[axis] for axis in AXES}
    for name in ("method", "augmentation", "model", "head"):
        known[name] = str(known[name])
    return {"cell": trial.id, **known, "further_settings": json.dumps(further, sort_keys=True) if further else ""}


def _settings_key(row: TableRow) -> tuple[Any, ...]:
    return tuple(row[name] for name, _ in SETTINGS[1:])


def _clip_key(row: TableRow) -> tuple[Any, ...]:
    return row["utterance_id"], row["label"]


def _row_of(evaluation: EvaluationSet) -> TableRow:
    return {
        "evaluation_set": evaluation.name,
        "corpus": evaluation.corpus,
        "split": evaluation.split,
        "subset": evaluation.subset,
    }


def _set_key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("evaluation_set", "corpus", "split", "subset"))
