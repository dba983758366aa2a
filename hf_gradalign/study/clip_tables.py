"""The clips of evaluation sets, kept once for all cells."""

import os
from pathlib import Path

import pyarrow as pa
from datasets import Dataset
from pyarrow import parquet

from hf_gradalign.study.definition import EvaluationSet

_COLUMNS = ("speaker", "system", "codec", "condition", "language")
CLIPS_SCHEMA = pa.schema(
    [("evaluation_set", pa.string()), ("utterance_id", pa.string()), ("label", pa.int8())]
    + [(name, pa.string()) for name in _COLUMNS]
)


def write_clips(clips: Dataset, evaluation: EvaluationSet, folder: Path) -> None:
    """Write the table of an evaluation set, whole or not at all."""
    table = pa.table(
        {
            "evaluation_set": [evaluation.name] * len(clips),
            "utterance_id": clips["utterance_id"][:],
            "label": clips["label"][:],
        }
        | {
            name: [None if value is None else str(value) for value in clips[name][:]]
            if name in clips.column_names
            else [None] * len(clips)
            for name in _COLUMNS
        },
        schema=CLIPS_SCHEMA,
    )
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f"{evaluation.name}.{os.getpid()}.draft"  # cells side by side write the same
    parquet.write_table(table, draft)
    os.replace(draft, _path(folder, evaluation))


def read_clips(folder: Path, evaluation: EvaluationSet) -> pa.Table | None:
    """The table of an evaluation set; None where no cell has been scored on it."""
    path = _path(folder, evaluation)
    return parquet.read_table(path) if path.is_file() else None


def _path(folder: Path, evaluation: EvaluationSet) -> Path:
    return folder / f"{evaluation.name}.parquet"


__all__ = ["CLIPS_SCHEMA", "read_clips", "write_clips"]
