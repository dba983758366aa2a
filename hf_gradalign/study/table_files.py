"""The Parquet files of a study: their columns, and how they are read and written."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset
from pyarrow import parquet

from hf_gradalign.study.definition import EvaluationSet, StudyError
from hf_gradalign.utils.files import flush_to_disk

RESULTS_NAME, EPOCHS_NAME, CLIPS_NAME = "results.parquet", "epochs.parquet", "clips.parquet"

SETTINGS: list[tuple[str, pa.DataType]] = [
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
        *SETTINGS,
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
"""One row per trial and evaluation set. `scores` are in the order of the set's clips, null where the audio is bad."""

EPOCHS_SCHEMA = pa.schema(
    [
        *SETTINGS,
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
"""One row per trial and epoch (see `epoch_rows`)."""

CLIP_COLUMNS = ("speaker", "system", "codec", "condition", "language")
CLIPS_SCHEMA = pa.schema(
    [("evaluation_set", pa.string()), ("utterance_id", pa.string()), ("label", pa.int8())]
    + [(name, pa.string()) for name in CLIP_COLUMNS]
)
"""One row per clip of an evaluation set."""

SCHEMAS = {CLIPS_NAME: CLIPS_SCHEMA, EPOCHS_NAME: EPOCHS_SCHEMA, RESULTS_NAME: RESULTS_SCHEMA}


def read_table(path: Path, schema: pa.Schema, remedy: str = "delete it, and run the study again") -> pa.Table | None:
    """Read a table, or return None if there is no such file.

    Args:
        path: The file.
        schema: The columns that it must have.
        remedy: What to do if the file is damaged, for the error message.

    Raises:
        StudyError: If it is damaged, or a different kind of table.
        OSError: If it cannot be read.
    """
    if not path.exists():
        return None
    try:
        table = parquet.read_table(path)
        missing = [name for name in schema.names if name not in table.column_names]
        unknown = [name for name in table.column_names if name not in schema.names]
        if missing or unknown:
            reason = f"it has no column {missing[0]!r}" if missing else f"it has an unknown column {unknown[0]!r:.80}"
        elif table[schema.names[0]].null_count:
            reason = f"it has rows without {schema.names[0]}"
        else:
            return table.select(schema.names).cast(schema)
    except (pa.ArrowException, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = " ".join(str(error).split())[:200]
    raise StudyError(f"{path} is damaged, or not a table of a study ({reason}): {remedy}")


def write_table(path: Path, schema: pa.Schema, rows: Sequence[dict[str, Any]] | pa.Table) -> None:
    """Write a table atomically: a reader sees the old one or the new one.

    Raises:
        OSError: If it cannot be written; with the path.
    """
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows, schema)
    draft = path.with_name(f"{path.name}.{os.getpid()}.draft")  # trials that run in parallel write the same table
    try:
        draft.unlink(missing_ok=True)
        parquet.write_table(table, draft, compression="zstd")
        flush_to_disk(draft)
        os.replace(draft, path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def write_clips(clips: Dataset, evaluation: EvaluationSet, folder: Path) -> None:
    """Write the table of an evaluation set's clips atomically."""
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
    """Check that an evaluation set has the clips that other trials were scored on, in the same order.

    Raises:
        StudyError: If not.
    """
    path = clips_path(folder, evaluation.name)
    table = read_table(path, CLIPS_SCHEMA)
    if table is None:
        return
    earlier = list(zip(table["utterance_id"].to_pylist(), table["label"].to_pylist(), strict=True))
    current = list(zip(clips["utterance_id"][:], clips["label"][:], strict=True))
    if earlier != current:
        raise StudyError(
            f"the evaluation set {evaluation.name} has {len(current):,} clips, and they or their labels differ from "
            f"the {len(earlier):,} in {path}, on which other trials were scored. Give the set another name, or start a "
            "new folder with --output_dir"
        )


def clips_path(folder: Path, name: str) -> Path:
    """Return the path of the table of the evaluation set of this name."""
    return folder / f"{name}.parquet"
