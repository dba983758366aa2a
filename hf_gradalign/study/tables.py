"""A study's results as Parquet files: small, tidy, and all that a report or a later start needs."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from hf_gradalign.scoring import read_score_file
from hf_gradalign.study.cell import AXES, Cell
from hf_gradalign.study.cell_folder import CellFolder
from hf_gradalign.study.clip_tables import CLIPS_SCHEMA, read_clips
from hf_gradalign.study.definition import EvaluationSet, Study

RESULTS_NAME, EPOCHS_NAME, CLIPS_NAME = "results.parquet", "epochs.parquet", "clips.parquet"

_SETTINGS = [
    ("cell", pa.string()),
    ("method", pa.string()),
    ("augmentation", pa.string()),
    ("model", pa.string()),
    ("head", pa.string()),
    ("batch_size", pa.int32()),
    ("epochs", pa.float64()),
    ("seed", pa.int64()),
    ("further_settings", pa.string()),
]
RESULTS_SCHEMA = pa.schema(
    [
        *_SETTINGS,
        ("evaluation_set", pa.string()),
        ("corpus", pa.string()),
        ("split", pa.string()),
        ("subset", pa.string()),
        ("n_clips", pa.int64()),
        ("n_bad_clips", pa.int64()),
        ("eer", pa.float64()),
        ("min_dcf", pa.float64()),
        ("cllr", pa.float64()),
        ("roc_auc", pa.float64()),
        ("n_updates", pa.int64()),
        ("n_forward_passes", pa.int64()),
        ("train_loss", pa.float64()),
        ("validation_loss", pa.float64()),
        ("validation_eer", pa.float64()),
        ("conflict_rate", pa.float64()),
        ("n_nonfinite_updates", pa.int64()),
        ("seconds_per_update", pa.float64()),
        ("peak_memory_mib", pa.float64()),
        ("versions", pa.string()),
        ("scores", pa.list_(pa.float64())),
    ]
)
"""A row a cell and evaluation set; `scores` are in the order of the set's clips, null where the audio is bad."""

EPOCHS_SCHEMA = pa.schema(
    [
        *_SETTINGS,
        ("epoch", pa.int32()),
        ("eval_loss", pa.float64()),
        ("eval_eer", pa.float64()),
        ("n_updates", pa.int64()),
        ("loss_first", pa.float64()),
        ("loss_second", pa.float64()),
        ("grad_norm_first", pa.float64()),
        ("grad_norm_second", pa.float64()),
        ("conflict_rate", pa.float64()),
        ("cosine_mean", pa.float64()),
        ("cosine_quantiles", pa.list_(pa.float64())),
        ("cosine_counts", pa.list_(pa.int64())),
        ("norm_ratio", pa.float64()),
        ("second_loss_larger", pa.float64()),
        ("second_norm_larger", pa.float64()),
        ("module", pa.list_(pa.string())),
        ("module_conflict_rate", pa.list_(pa.float64())),
        ("module_norm_share", pa.list_(pa.float64())),
    ]
)
"""A row a cell and epoch (see `epoch_rows`)."""

RESOURCES = ("seconds_per_update", "peak_memory_mib")
"""Columns in which two studies of the same cells differ."""

Row = dict[str, Any]


class StudyTables:
    """The tables in a study's folder; they need not be there.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.results = self._read(RESULTS_NAME, RESULTS_SCHEMA)
        self.epochs = self._read(EPOCHS_NAME, EPOCHS_SCHEMA)
        self.clips = self._read(CLIPS_NAME, CLIPS_SCHEMA)

    def has(self, cell: Cell, evaluation_sets: Iterable[EvaluationSet]) -> bool:
        """Whether a cell's rows are there, for all these sets as they are defined."""
        there = {_set_key(row) for row in self.results.get(cell.id, [])}
        return all(_set_key(_row_of(evaluation)) in there for evaluation in evaluation_sets)

    def update(self, study: Study, cell_folder: Mapping[str, CellFolder], clips_folder: Path) -> None:
        """Take in what is finished, and write the tables with a study's cells in its order.

        Args:
            study: The study.
            cell_folder: By the cells' ids.
            clips_folder: With the tables of evaluation sets.
        """
        clip_tables = {}
        for evaluation in study.evaluation_sets:
            table = read_clips(clips_folder, evaluation)
            if table is not None:
                self.clips[evaluation.name] = table.to_pylist()
            clip_tables[evaluation.name] = [row["utterance_id"] for row in self.clips.get(evaluation.name, [])]
        for cell in study.cells:
            folder = cell_folder[cell.id]
            outcome = folder.outcome()
            if outcome is None:
                continue
            settings = _settings_row(cell)
            self.results[cell.id] = [
                settings
                | outcome["run"]
                | {"versions": json.dumps(outcome["run"]["versions"])}
                | entry
                | {"scores": _scores(folder, entry["evaluation_set"], clip_tables)}
                for entry in outcome["evaluations"]
            ]
            self.epochs[cell.id] = [settings | row for row in outcome["epochs"]]
        self.folder.mkdir(parents=True, exist_ok=True)
        ids = [cell.id for cell in study.cells]
        names = [evaluation.name for evaluation in study.evaluation_sets]
        self._write(RESULTS_NAME, RESULTS_SCHEMA, self.results, ids)
        self._write(EPOCHS_NAME, EPOCHS_SCHEMA, self.epochs, ids)
        self._write(CLIPS_NAME, CLIPS_SCHEMA, self.clips, names)

    def _read(self, name: str, schema: pa.Schema) -> dict[str, list[Row]]:
        path = self.folder / name
        rows: dict[str, list[Row]] = {}
        if path.is_file():
            for row in parquet.read_table(path).to_pylist():
                rows.setdefault(row[schema.names[0]], []).append(row)
        return rows

    def _write(self, name: str, schema: pa.Schema, rows: Mapping[str, Sequence[Row]], order: Sequence[str]) -> None:
        listed = [row for key in order for row in rows.get(key, [])]
        draft = self.folder / f"{name}.draft"
        parquet.write_table(pa.Table.from_pylist(listed, schema), draft, compression="zstd")
        os.replace(draft, self.folder / name)


def _settings_row(cell: Cell) -> Row:
    further = {axis: value for axis, value in cell.settings.items() if axis not in AXES}
    known = {axis: cell.settings[axis] for axis in AXES}
    for name in ("method", "augmentation", "model", "head"):
        known[name] = str(known[name])
    return {"cell": cell.id, **known, "further_settings": json.dumps(further, sort_keys=True) if further else ""}


def _scores(folder: CellFolder, name: str, clips: Mapping[str, Sequence[str]]) -> list[float | None]:
    scores = read_score_file(folder.score_file(name))
    return [scores.get(utterance) for utterance in clips[name]]


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
    "CLIPS_NAME",
    "EPOCHS_NAME",
    "EPOCHS_SCHEMA",
    "RESOURCES",
    "RESULTS_NAME",
    "RESULTS_SCHEMA",
    "StudyTables",
]
