"""Reads audio files with `metadata.csv` or `metadata.jsonl`, the layout of `audiofolder`.

The `audiofolder` builder is not used, because it needs torchcodec and FFmpeg.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from hf_gradalign.data.arrow import with_slashes
from hf_gradalign.data.corpora.protocol_file import read_delimited
from hf_gradalign.data.readers.class_folders import split_word
from hf_gradalign.data.request import CorpusError
from hf_gradalign.utils.folder_listing import FolderListing
from hf_gradalign.utils.messages import first_few
from hf_gradalign.utils.plain_text import BLANKS, stripped_column, stripped_text
from hf_gradalign.utils.table_bounds import MAX_LINE_BYTES, columns_of, parse_json, require_lines

logger = logging.getLogger(__name__)

METADATA_NAMES = ("metadata.csv", "metadata.jsonl")
_FILE_COLUMN = "file_name"
_SPLIT_COLUMN = "split"
# A column with more values than this does not contain splits.
_MOST_SPLITS = 10
_DELIMITERS = ",;\t|"
_ROOT = r"^([A-Za-z]:)?/" if sys.platform == "win32" else "^/"


@dataclass(frozen=True)
class Metadata:
    """A metadata file.

    Attributes:
        file: The file's path.
        split: The split that its folder means; None if the file itself contains the split.
    """

    file: Path
    split: str | None = None


def find_metadata(
    listing: FolderListing, split_names: Sequence[str] = (), columns: Collection[str] = ()
) -> list[Metadata]:
    """Find the metadata files of a folder, at any depth. Folders below one with a metadata file are not searched.

    If any metadata file is below a folder with the name of a split, it belongs to that split, and the others belong to
    splits with the names of their own folders. Otherwise the files themselves contain the splits.

    Args:
        listing: The folder's files.
        split_names: Names that always mean a split.
        columns: Column names, case-insensitive. A CSV file whose header has none of them is something else, such as the
            transcripts of LJSpeech and M-AILABS. It is left out with a warning, unless its header cannot be read.
    """
    by_folder: dict[Path, list[Path]] = {}
    foreign = []
    for file in listing.others:
        if file.name.lower() in METADATA_NAMES:
            # Without audio files, there is nothing else to read, and the error says what is wrong with this file.
            can_be_foreign = columns and listing.audio and file.suffix.lower() == ".csv"
            if can_be_foreign and _is_foreign(file, columns):
                foreign.append(file)
            else:
                by_folder.setdefault(file.parent, []).append(file)
    if foreign:
        logger.warning(
            "Not read, because the first line has none of the columns %s: %s. If a column names audio files, choose it "
            "with --audio_column_name.",
            *(", ".join(dict.fromkeys(columns)), first_few(foreign)),
        )
    chosen = {}
    skipped = []
    for folder in sorted(by_folder, key=lambda folder: (len(folder.parts), folder)):
        first, *others = sorted(by_folder[folder], key=lambda file: METADATA_NAMES.index(file.name.lower()))
        if any(above in chosen for above in folder.parents):
            skipped.append(first)
        else:
            chosen[folder] = first
        skipped += others
    if skipped:
        logger.warning("Not read, because there is another metadata file for the same folder: %s.", first_few(skipped))
    below = {folder: folder.relative_to(listing.folder).parts for folder in chosen}
    words = {
        folder: next((word for part in reversed(parts) if (word := _split_of_folder(part, split_names))), None)
        for folder, parts in below.items()
    }
    tells_splits = any(words.values())
    return [
        Metadata(file, words[folder] or (folder.name if tells_splits and below[folder] else None))
        for folder, file in sorted(chosen.items())
    ]


def _split_of_folder(name: str, split_names: Sequence[str]) -> str | None:
    # Keep the folder's name, which --train_split_name and similar options refer to.
    word = split_word(name, split_names)
    return name if word is not None and word == name.lower() else word


def read_metadata(files: Sequence[Metadata], *, audio_column: str, train_split: str) -> dict[str, Dataset]:
    """Read metadata files into one data set per split.

    The split is that of the file's folder, otherwise the column `split`, otherwise the first folder of each file name
    if one of these folders is called `train_split`. Otherwise all rows belong to `train_split`.

    Args:
        files: From `find_metadata`.
        audio_column: The name of the column for the audio files' absolute paths. They are from the column `file_name`
            (relative to the metadata file), otherwise from the column with the given name.
        train_split: The training split's name.

    Returns:
        The splits, with audio files as plain paths. Values from CSV files are strings, with None for empty ones.

    Raises:
        CorpusError: If a file is empty, cannot be read, or names no audio files.
    """
    splits: dict[str, list[pa.Table]] = {}
    for metadata in files:
        file = metadata.file
        is_csv = file.suffix.lower() != ".jsonl"
        table = read_delimited(file, _delimiter_of(file, audio_column)) if is_csv else _read_jsonl(file)
        names, table = _take_file_names(_strip_blanks(table, file), file, audio_column)
        split, table = _splits_of(table, names, metadata, train_split)
        table = table.add_column(0, audio_column, _to_absolute(names, file.parent))
        for name in pc.unique(split).to_pylist():
            splits.setdefault(name, []).append(table.filter(pc.equal(split, name)))
    return {name: Dataset(concatenate(tables)) for name, tables in splits.items()}


def warn_about_unnamed_files(listing: FolderListing, corpus: Mapping[str, Dataset], audio_column: str) -> None:
    """Warn about a folder's audio files that no metadata file names, and about other files, which are not read."""
    listing.log_left_out([file for file in listing.others if file.name.lower() in METADATA_NAMES])
    named = {_plain(path) for dataset in corpus.values() for path in dataset[audio_column][:]}
    unnamed = [str(file) for file in listing.audio if _plain(str(file)) not in named]
    if unnamed:  # perhaps named with another path
        real = {_plain(os.path.realpath(path)) for path in named}
        unnamed = [file for file in unnamed if _plain(os.path.realpath(file)) not in real]
    if unnamed:
        logger.warning(
            "%s: %d of %d audio files are in no metadata file and are left out: %s.",
            listing.folder,
            len(unnamed),
            len(listing.audio),
            first_few(unnamed),
        )


def _plain(path: str) -> str:
    return unicodedata.normalize("NFC", os.path.abspath(path))


def _is_foreign(file: Path, columns: Collection[str]) -> bool:
    header, second = _first_lines(file)
    if _is_excel_separator(header):
        header = second
    # The first line may be blank, or not UTF-8: UTF-16 can look like ASCII with zeros in between.
    if not header.strip() or "\ufffd" in header or "\0" in header:
        return False
    wanted = {column.lower() for column in columns}
    return not any(wanted & set(map(stripped_text, header.lower().split(delimiter))) for delimiter in _DELIMITERS)


def _first_lines(file: Path) -> tuple[str, str]:
    with file.open(encoding="utf-8-sig", errors="replace") as lines:  # `read_delimited` reports errors
        return lines.readline(MAX_LINE_BYTES), lines.readline(MAX_LINE_BYTES)


def _is_excel_separator(line: str) -> bool:
    """Return whether a line sets Excel's delimiter, such as `sep=;`."""
    return stripped_text(line).lower().startswith("sep=")


def _delimiter_of(file: Path, audio_column: str) -> str:
    """Return the delimiter of a CSV file. Excel writes semicolons in countries with decimal commas.

    The delimiter is the one with which the header names the audio files, otherwise the most frequent one in the header.
    """
    header, _ = _first_lines(file)
    if _is_excel_separator(header):
        raise CorpusError(f"{file}: the first line, {stripped_text(header)!r}, is only for Excel. Remove this line.")
    for delimiter in _DELIMITERS:
        if {_FILE_COLUMN, audio_column} & set(map(stripped_text, header.split(delimiter))):
            return delimiter
    return max(_DELIMITERS, key=header.count)


def _read_jsonl(file: Path) -> pa.Table:
    try:
        require_lines(file)
        rows = [parse_json(line) for line in file.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
    except ValueError as error:
        raise CorpusError(f"Cannot read {file}: {error}") from error
    if not rows:
        raise CorpusError(f"{file} has no rows.")
    if not all(isinstance(row, dict) for row in rows):
        raise CorpusError(f"{file}: each line must be a JSON object.")
    try:
        columns_of(rows, file)
    except ValueError as error:
        raise CorpusError(str(error)) from error
    return table_of_rows(rows)


def _strip_blanks(table: pa.Table, file: Path) -> pa.Table:
    """Strip white space and byte order marks from the columns' names and texts."""
    names = [name.strip(BLANKS) for name in table.column_names]
    if len(set(names)) < len(names):
        raise CorpusError(
            f"{file} names a column twice, except for spaces: {', '.join(map(repr, table.column_names))}."
        )
    columns = [pc.utf8_trim(text, BLANKS) if pa.types.is_string(text.type) else text for text in table.columns]
    return pa.table(columns, names=names)


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
    names = pc.replace_substring_regex(with_slashes(stripped_column(names)), r"^(\./+)+", "")
    return names, table.drop_columns(column)


def _splits_of(
    table: pa.Table, names: pa.ChunkedArray, metadata: Metadata, train_split: str
) -> tuple[pa.ChunkedArray | pa.Array, pa.Table]:
    everything = pa.repeat(metadata.split or train_split, len(table))
    if metadata.split is not None:
        return everything, table
    if _SPLIT_COLUMN in table.column_names:
        split = stripped_column(table[_SPLIT_COLUMN].cast(pa.string()))
        split = pc.if_else(pc.equal(split, ""), None, split)
        return _fill_missing_splits(split, train_split, metadata.file), table.drop_columns(_SPLIT_COLUMN)
    is_below = pc.match_substring_regex(names, "^[^/]+/")
    folders = pc.if_else(is_below, pc.replace_substring_regex(names, "/.*$", ""), None)
    if not pc.any(pc.equal(folders, train_split)).as_py():
        _warn_about_other_split_columns(table, metadata.file, train_split)
        return everything, table
    return _fill_missing_splits(folders, train_split, metadata.file), table


def _fill_missing_splits(splits: pa.ChunkedArray, train_split: str, file: Path) -> pa.ChunkedArray:
    if splits.null_count:
        logger.warning(
            "%s: %d of %d rows name no split and are assigned to %r.", file, splits.null_count, len(splits), train_split
        )
    return pc.fill_null(splits, train_split)


def _warn_about_other_split_columns(table: pa.Table, file: Path, train_split: str) -> None:
    """Warn about a column that seems to contain splits but has another name, such as `subset`."""
    for name in table.column_names:
        if not pa.types.is_string(table[name].type):
            continue
        values = [value for value in pc.unique(table[name]).to_pylist() if value]
        if 1 < len(values) <= _MOST_SPLITS and all(split_word(value) for value in values):
            logger.warning(
                "%s: the column %r (%s) seems to name splits. Rename it to %r: otherwise, all %d rows belong to %r.",
                *(file, name, ", ".join(values), _SPLIT_COLUMN, len(table), train_split),
            )


def _to_absolute(names: pa.ChunkedArray, folder: Path) -> pa.ChunkedArray:
    below = pc.binary_join_element_wise(f"{folder.as_posix()}/", names, "")
    return pc.if_else(pc.match_substring_regex(names, _ROOT), names, below)


def table_of_rows(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Make a table of rows with different columns; missing values are null.

    Columns with values of several types become text, with lists and objects as JSON.

    Args:
        rows: One or more rows.
    """
    # Dataset.from_list takes the columns from the first row only.
    columns = list(dict.fromkeys(column for row in rows for column in row))
    values = {column: [row.get(column) for row in rows] for column in columns}
    try:
        return Dataset.from_dict(values).data.table
    except (pa.ArrowException, TypeError, ValueError):
        return Dataset.from_dict({column: _to_one_type(entries) for column, entries in values.items()}).data.table


def concatenate(tables: Sequence[pa.Table]) -> pa.Table:
    """Concatenate tables with different columns; missing values are null, and columns of several types become text."""
    try:
        return pa.concat_tables(tables, promote_options="default")
    except pa.ArrowException:
        return table_of_rows([row for table in tables for row in table.to_pylist()])


def _to_one_type(values: list[Any]) -> list[Any]:
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) <= 1 and not kinds & {dict, list}:
        return values
    return [None if value is None else _as_text(value) for value in values]


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
