"""A study's Parquet files, read and written whole."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from hf_gradalign.study.errors import StudyError
from hf_gradalign.training.atomic_writing import flush_to_disk


def read_table(
    path: Path, schema: pa.Schema, remedy: str = "delete it, and the study's command makes it again"
) -> pa.Table | None:
    """Read a table; None where there is none.

    Args:
        path: The file.
        schema: What it must have.
        remedy: What to do where it has not.

    Raises:
        StudyError: If it is damaged, or another kind of table.
        OSError: If it cannot be read.
    """
    if not path.exists():
        return None
    try:
        table = parquet.read_table(path)
        missing = [name for name in schema.names if name not in table.column_names]
        foreign = [name for name in table.column_names if name not in schema.names]
        if missing or foreign:
            reason = f"it has no column {missing[0]!r}" if missing else f"its column {foreign[0]!r:.80} is not known"
        elif table[schema.names[0]].null_count:
            reason = f"rows have no {schema.names[0]}"
        else:
            return table.select(schema.names).cast(schema)
    except (pa.ArrowException, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = " ".join(str(error).split())[:200]
    raise StudyError(f"{path} is damaged or no table of a study ({reason}): {remedy}")


def write_table(path: Path, schema: pa.Schema, rows: Sequence[dict[str, Any]] | pa.Table) -> None:
    """Write a table such that a reader finds the old one or the new.

    Raises:
        OSError: If it cannot be written; with the path.
    """
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows, schema)
    draft = path.with_name(f"{path.name}.{os.getpid()}.draft")  # cells side by side write the same
    try:
        draft.unlink(missing_ok=True)
        parquet.write_table(table, draft, compression="zstd")
        flush_to_disk(draft)
        os.replace(draft, path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


__all__ = ["read_table", "write_table"]
