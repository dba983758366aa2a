"""The clips of evaluation sets, kept once for all cells."""

from pathlib import Path

import pyarrow as pa
from datasets import Dataset

from hf_gradalign.study.definition import EvaluationSet
from hf_gradalign.study.errors import StudyError
from hf_gradalign.study.schemas import CLIP_COLUMNS, CLIPS_SCHEMA
from hf_gradalign.study.table_files import read_table, write_table


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
            for name in CLIP_COLUMNS
        },
        schema=CLIPS_SCHEMA,
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_table(clips_path(folder, evaluation.name), CLIPS_SCHEMA, table)


def require_same_clips(clips: Dataset, evaluation: EvaluationSet, folder: Path) -> None:
    """See that an evaluation set has the clips that other cells were scored on, in the same order.

    Raises:
        StudyError: If not.
    """
    path = clips_path(folder, evaluation.name)
    table = read_table(path, CLIPS_SCHEMA)
    if table is None:
        return
    there = list(zip(table["utterance_id"].to_pylist(), table["label"].to_pylist(), strict=True))
    given = list(zip(clips["utterance_id"][:], clips["label"][:], strict=True))
    if there != given:
        raise StudyError(
            f"the evaluation set {evaluation.name} has other clips or labels ({len(given):,}) than those in {path} "
            f"({len(there):,}), on which cells were scored: give the set another name, or start a new folder with "
            "--output_dir"
        )


def clips_path(folder: Path, name: str) -> Path:
    """Where the table of an evaluation set of this name is."""
    return folder / f"{name}.parquet"


__all__ = ["clips_path", "require_same_clips", "write_clips"]
