"""Tables of any kind of file, by its name: text, JSON, JSON Lines, parquet."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from hf_gradalign.score_files.clips import flat
from hf_gradalign.score_files.errors import ScoreFileError
from hf_gradalign.score_files.json_table import SUFFIXES, read_json_table
from hf_gradalign.score_files.text_table import TextTable, read_text_table

__all__ = ["TextTable", "read_table"]


def read_table(path: str | Path) -> TextTable:
    """Read a file's columns as strings.

    Raises:
        ScoreFileError: If it cannot be read.
    """
    path = Path(path)
    if path.suffix.lower() in SUFFIXES:
        return read_json_table(path)
    if path.suffix.lower() == ".parquet" and path.is_file():
        return _read_parquet(path)
    return read_text_table(path)


def _read_parquet(path: Path) -> TextTable:
    try:
        names = [field.name for field in pq.read_schema(path) if not pa.types.is_nested(field.type)]
        table = pq.read_table(path, columns=names)
        columns = {name: pa.chunked_array([flat(table[name])]) for name in names}
    except (OSError, pa.ArrowException) as error:
        raise ScoreFileError(f"Cannot read {path}: {error}") from error
    if not columns or table.num_rows == 0:
        raise ScoreFileError(f"{path} has no rows.")
    return TextTable(str(path), columns, has_header=True)
