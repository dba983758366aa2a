"""A folder of audio files described by `metadata.csv` or `metadata.jsonl`, in the layout that `audiofolder` reads.

Read here and not by the `audiofolder` builder, which needs torchcodec and with it FFmpeg.
"""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict

from hf_gradalign.data.errors import CorpusError

METADATA_NAMES = ("metadata.csv", "metadata.jsonl")
_FILE_COLUMN = "file_name"
_SPLIT_COLUMN = "split"

Row = dict[str, Any]


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
    splits: dict[str, list[Row]] = defaultdict(list)
    for subfolder, file in files.items():
        rows = _read_rows(file)
        names = _take_file_names(rows, file, audio_column)
        for row, name, split in zip(rows, names, _splits_of(rows, names, subfolder, train_split), strict=True):
            splits[split].append({audio_column: str(file.parent / name), **row})
    return DatasetDict({split: Dataset.from_list(rows) for split, rows in splits.items()})


def _read_rows(file: Path) -> list[Row]:
    try:
        rows = _read_csv(file) if file.suffix == ".csv" else _read_jsonl(file)
    except (UnicodeDecodeError, csv.Error, json.JSONDecodeError) as error:
        raise CorpusError(f"Cannot read {file}: {error}") from error
    if not rows:
        raise CorpusError(f"{file} has no rows.")
    return rows


def _read_csv(file: Path) -> list[Row]:
    with file.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.DictReader(stream, strict=True)
        rows = []
        for row in reader:
            if None in row or None in row.values():
                raise CorpusError(f"{file}, line {reader.line_num}: not {len(reader.fieldnames or ())} values.")
            rows.append({column: value or None for column, value in row.items()})
        return rows


def _read_jsonl(file: Path) -> list[Row]:
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise CorpusError(f"{file}: each line must be a JSON object.")
    # from_list looks at the first row only for the columns that there are.
    columns = list(dict.fromkeys(column for row in rows for column in row))
    return [{column: row.get(column) for column in columns} for row in rows]


def _take_file_names(rows: list[Row], file: Path, audio_column: str) -> list[str]:
    column = next((column for column in (_FILE_COLUMN, audio_column) if column in rows[0]), None)
    if column is None:
        raise CorpusError(
            f"{file} has no column {_FILE_COLUMN!r} with the audio files' names; its columns are "
            f"{', '.join(rows[0])}. Name the right one with --audio_column_name."
        )
    names = [row.pop(column) for row in rows]
    if not all(isinstance(name, str) for name in names):
        raise CorpusError(f"{file} has rows without a file name in the column {column!r}.")
    return names


def _splits_of(rows: list[Row], names: list[str], subfolder: str | None, train_split: str) -> list[str]:
    if subfolder is not None:
        return [subfolder] * len(rows)
    if _SPLIT_COLUMN in rows[0]:
        return [str(row.pop(_SPLIT_COLUMN) or train_split) for row in rows]
    folders = [Path(name).parts[0] if len(Path(name).parts) > 1 else None for name in names]
    return [folder or train_split for folder in folders] if train_split in folders else [train_split] * len(rows)
