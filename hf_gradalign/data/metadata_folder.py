"""A folder of audio files described by `metadata.csv` or `metadata.jsonl`, in the layout that `audiofolder` reads.

Read here and not by the `audiofolder` builder, which needs torchcodec and with it FFmpeg.
"""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, DatasetDict

from hf_gradalign.data.corpora.protocol_file import read_delimited
from hf_gradalign.data.errors import CorpusError

METADATA_NAMES = ("metadata.csv", "metadata.jsonl")
_FILE_COLUMN = "file_name"
_SPLIT_COLUMN = "split"


def find_metadata(folder: Path) -> dict[str | None, Path]:
    """The metadata files of a folder: its own under None, else those of its subfolders under their names."""
    for name in METADATA_NAMES:
        if (folder / name).is_file():
            return {None: folder / name}
    found: dict[str | None, Path] = {}
    for subfolder in sorted(path for path in folder.iterdir() if path.is_dir()):
        file = next((subfolder / name for name in METADATA_NAMES if (subfolder / name).is_file()), None)
        if file is not None:
            found[subfolder.name] = file
    return found


def read_metadata(files: dict[str | None, Path], *, audio_column: str, train_split: str) -> DatasetDict:
    """Read metadata files into one data set a split.

    The splits are the subfolders that have a metadata file each; for a single file at the root its `split` column;
    without one the first folder in each file name, if one of these folders is called `train_split`; else everything
    is `train_split`.

    Args:
        files: as `find_metadata` gives them.
        audio_column: the name of the column that will hold the audio file's absolute path. Filled from `file_name`
            (relative to the metadata file), or, if there is no such column, from the column of that very name.
        train_split: the training split's name.

    Returns:
        The splits, audio files as plain paths. Values from a CSV file are strings, with None for empty ones.

    Raises:
        CorpusError: if a file is empty, cannot be read, or names no audio files.
    """
    splits: dict[str, list[pa.Table]] = {}
    for subfolder, file in files.items():
        table = read_delimited(file, ",") if file.suffix == ".csv" else _read_jsonl(file)
        names, table = _take_file_names(table, file, audio_column)
        split, table = _splits_of(table, names, subfolder, train_split)
        table = table.add_column(0, audio_column, _absolute(names, file.parent))
        for name in pc.unique(split).to_pylist():
            splits.setdefault(name, []).append(table.filter(pc.equal(split, name)))
    return DatasetDict({name: Dataset(pa.concat_tables(tables)) for name, tables in splits.items()})


def _read_jsonl(file: Path) -> pa.Table:
    try:
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CorpusError(f"Cannot read {file}: {error}") from error
    if not rows:
        raise CorpusError(f"{file} has no rows.")
    if not all(isinstance(row, dict) for row in rows):
        raise CorpusError(f"{file}: each line must be a JSON object.")
    # from_list looks at the first row only for the columns that there are.
    columns = list(dict.fromkeys(column for row in rows for column in row))
    return Dataset.from_list([{column: row.get(column) for column in columns} for row in rows]).data.table


def _take_file_names(table: pa.Table, file: Path, audio_column: str) -> tuple[pa.ChunkedArray, pa.Table]:
    column = next((column for column in (_FILE_COLUMN, audio_column) if column in table.column_names), None)
    if column is None:
        raise CorpusError(
            f"{file} has no column {_FILE_COLUMN!r} with the audio files' names; its columns are "
            f"{', '.join(table.column_names)}. Name the right one with --audio_column_name."
        )
    names = table[column]
    if not pa.types.is_string(names.type) or names.null_count:
        raise CorpusError(f"{file} has rows without a file name in the column {column!r}.")
    if audio_column in table.column_names and column != audio_column:
        table = table.drop_columns(audio_column)
    return pc.replace_substring_regex(names, r"^(\./+)+", ""), table.drop_columns(column)


def _splits_of(
    table: pa.Table, names: pa.ChunkedArray, subfolder: str | None, train_split: str
) -> tuple[pa.ChunkedArray | pa.Array, pa.Table]:
    everything = pa.repeat(subfolder or train_split, len(table))
    if subfolder is not None:
        return everything, table
    if _SPLIT_COLUMN in table.column_names:
        split = table[_SPLIT_COLUMN].cast(pa.string())
        split = pc.if_else(pc.equal(split, ""), None, split)
        return pc.fill_null(split, train_split), table.drop_columns(_SPLIT_COLUMN)
    is_below = pc.match_substring_regex(names, "^[^/]+/")
    folders = pc.if_else(is_below, pc.replace_substring_regex(names, "/.*$", ""), None)
    if not pc.any(pc.equal(folders, train_split)).as_py():
        return everything, table
    return pc.fill_null(folders, train_split), table


def _absolute(names: pa.ChunkedArray, folder: Path) -> pa.ChunkedArray:
    below = pc.binary_join_element_wise(f"{folder}/", names, "")
    return pc.if_else(pc.starts_with(names, "/"), names, below)
