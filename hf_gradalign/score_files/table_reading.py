"""Reads any table as columns of strings: delimited text, JSON, JSON Lines and Parquet."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hf_gradalign.data import CorpusError
from hf_gradalign.data.corpora.delimited_rows import split_rows
from hf_gradalign.data.corpora.protocol_file import read_values, read_words
from hf_gradalign.score_files.clips import ScoreFileError, as_text
from hf_gradalign.score_files.columns import HEADER_WORDS, is_number, is_one_of
from hf_gradalign.score_files.json_tables import JSON_SUFFIXES, read_json_columns
from hf_gradalign.utils.folder_listing import similar_path
from hf_gradalign.utils.plain_text import stripped_column, stripped_text
from hf_gradalign.utils.table_bounds import require_columns, require_lines

_DELIMITERS = "\t,;|"
_SAMPLE_LINES = 50
_LOOKAHEAD_LINES = 4 * _SAMPLE_LINES  # a quoted value may span lines
_DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+([eE][-+]?\d+)?")
_DELIMITER_LINE = re.compile(r'"?sep=(.)"?')  # as Excel writes it
_NAME = re.compile(r"[A-Za-z_]")
_WORKBOOK = b"PK\x03\x04"  # .xlsx is a zip archive
_NUMPY = b"\x93NUMPY"
_BINARY_SUFFIXES = frozenset({".npz", ".npy", ".pkl", ".pickle", ".pt", ".pth", ".h5", ".hdf5", ".mat"})


@dataclass(frozen=True)
class TextTable:
    """The columns of a file.

    Attributes:
        source: The name of the file, for messages.
        columns: Strings by name, all of the same length. Without a header, the names are `column_1`, `column_2`, ...
        has_header: Whether the file has names for its columns.
        notes: Notes for the user on how the file was read.
        unread: The names of columns with lists or objects, which are not read.
    """

    source: str
    columns: dict[str, pa.ChunkedArray]
    has_header: bool
    notes: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()

    @property
    def n_rows(self) -> int:
        """The number of rows."""
        return len(next(iter(self.columns.values())))

    def sample(self, name: str) -> list[str]:
        """Return the first 50 values of a column."""
        return pc.fill_null(self.columns[name].slice(0, _SAMPLE_LINES), "").to_pylist()


def read_table(path: str | Path, named: Collection[str | None] = ()) -> TextTable:
    """Read a file's columns as strings, in the format given by its suffix.

    Args:
        path: The file.
        named: Columns that someone named: a first line with one of them is a header.

    Raises:
        ScoreFileError: If the file cannot be read.
    """
    path = Path(path)
    if path.is_fifo() or path.is_char_device():
        return _read_pipe(path, named)
    if path.suffix.lower() in JSON_SUFFIXES:
        columns, unread = read_json_columns(path)
        return TextTable(str(path), columns, has_header=True, unread=unread)
    if path.suffix.lower() == ".parquet" and path.is_file():
        return _read_parquet(path)
    return read_text_table(path, named)


def _read_pipe(path: Path, named: Collection[str | None]) -> TextTable:
    """Read a pipe, such as /dev/stdin, which can be read only once."""
    with tempfile.NamedTemporaryFile(suffix=path.suffix) as copy:
        with path.open("rb") as pipe:
            shutil.copyfileobj(pipe, copy)
        copy.flush()
        try:
            table = read_table(copy.name, named)
        except ScoreFileError as error:
            raise ScoreFileError(str(error).replace(copy.name, str(path))) from error
    return replace(table, source=str(path), notes=tuple(note.replace(copy.name, str(path)) for note in table.notes))


def read_text_table(path: str | Path, named: Collection[str | None] = ()) -> TextTable:
    """Read columns separated by tabs, commas, semicolons, bars or white space, with or without a header.

    Empty lines, Windows line ends, a byte order mark, quotes, and a delimiter at the ends of lines are accepted.

    Args:
        path: The file.
        named: Columns that someone named: a first line with one of them is a header.

    Raises:
        ScoreFileError: If there is no such file, it is empty or not text, or lines differ in their number of columns.
    """
    path = Path(path)
    lines = _first_lines(path)
    says_delimiter = _DELIMITER_LINE.fullmatch(lines[0].strip())
    lines = lines[1:] if says_delimiter and len(lines) > 1 else lines
    delimiter = says_delimiter[1] if says_delimiter else _delimiter_of(lines)
    first, *others = _rows(lines, delimiter)
    names_given = {name for name in named if name is not None and not is_number(name)}  # a number counts columns
    has_header = not names_given.isdisjoint(first) or _is_header(first, others[0] if others else [])
    names = first if has_header else [f"column_{n + 1}" for n in range(len(first))]
    names = [name or f"column_{index + 1}" for index, name in enumerate(names)]
    try:
        require_columns(names, path)
    except ValueError as error:
        raise ScoreFileError(str(error)) from error
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise ScoreFileError(
            f"{path}: the header has {', '.join(sorted(repeated))} more than once. Rename the columns."
        )
    n_continued = 0
    try:
        if delimiter is None:
            table = read_words(path, lambda _, words: {str(index): index for index in range(len(words))})
            table = pa.table([_unquoted(column) for column in table.columns], names=table.column_names)
        else:
            indices = list(map(str, range(len(names))))
            table, n_continued = read_values(path, delimiter, indices, n_skipped=int(says_delimiter is not None))
            table = pa.table([pc.utf8_trim_whitespace(column) for column in table.columns], names=indices)
    except CorpusError as error:
        raise ScoreFileError(str(error)) from error
    table = table.slice(1) if has_header else table
    if table.num_rows == 0:
        raise ScoreFileError(f"{path} has a header but no rows.")
    columns = dict(zip(names, table.columns, strict=True))
    if len(names) > 1 and not first[-1] and not pc.any(pc.not_equal(columns[names[-1]], "")).as_py():
        del columns[names[-1]]  # each line ends with a delimiter
    notes = (f"{n_continued} lines of {path} continue a quoted value from the line before.",) if n_continued else ()
    return TextTable(str(path), columns, has_header, notes)


def _first_lines(path: Path) -> list[str]:
    if path.is_dir():
        raise ScoreFileError(f"{path} is a folder, not a file. Pass the path of a file in it.")
    try:
        require_lines(path)
        with path.open(encoding="utf-8-sig", newline=None) as file:
            lines = [line.rstrip("\n") for line in islice(file, _LOOKAHEAD_LINES)]
    except FileNotFoundError:
        raise ScoreFileError(f"There is no file {path}.{similar_path(Path(path))}") from None
    except OSError as error:
        raise ScoreFileError(f"Cannot read {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        with path.open("rb") as file:
            start = file.read(len(_NUMPY))
        if start == _NUMPY or path.suffix.lower() in _BINARY_SUFFIXES:
            raise ScoreFileError(
                f"{path} has arrays or pickled objects, which are not read. Write a text file with an utterance and "
                "its score per line."
            ) from None
        if start.startswith(_WORKBOOK):
            raise ScoreFileError(
                f"{path} is an Excel workbook or another archive. Save the sheet as CSV UTF-8."
            ) from None
        raise ScoreFileError(
            f"{path} is not UTF-8 text ({error}). Unpack it if it is compressed, or save it as UTF-8."
        ) from error
    except ValueError as error:
        raise ScoreFileError(str(error)) from error
    lines = [line for line in lines if line.strip()]
    if not lines:
        raise ScoreFileError(f"{path} is empty.")
    return lines


def _delimiter_of(lines: list[str]) -> str | None:
    possible = [delimiter for delimiter in _DELIMITERS if _is_between(delimiter, _rows(lines, delimiter))]
    if "," not in possible:
        return possible[0] if possible else None
    # The comma may also be the decimal comma of all numbers.
    for delimiter in (*possible, None):
        if delimiter != "," and _has_decimal_commas(_rows(lines, delimiter)):
            return delimiter
    return possible[0]


def _rows(lines: list[str], delimiter: str | None) -> list[list[str]]:
    """Return the rows that begin in the first 50 lines."""
    if delimiter is None:
        rows = [line.split() for line in lines[:_SAMPLE_LINES]]
    else:
        rows = [row.values for row in split_rows(lines, delimiter) if row.number <= _SAMPLE_LINES]
    return [[stripped_text(word) for word in row] for row in rows]


def _is_between(delimiter: str, rows: list[list[str]]) -> bool:
    counts = {len(row) for row in rows}
    return 1 not in counts and (len(counts) == 1 or delimiter == ",")


def _has_decimal_commas(rows: list[list[str]]) -> bool:
    """Return whether one column has distinct names, and another has only numbers with a decimal comma."""
    if len({len(row) for row in rows}) > 1 or len(rows[0]) < 2:
        return False
    columns = list(zip(*rows, strict=True))
    numeric = [all(map(_DECIMAL_COMMA.fullmatch, column)) or _is_decimal_below_name(column) for column in columns]
    return any(numeric) and any(
        len(set(column)) == len(column) and not any("," in value for value in column) for column in columns
    )


def _is_decimal_below_name(column: tuple[str, ...]) -> bool:
    return len(column) > 1 and not is_number(column[0]) and all(map(_DECIMAL_COMMA.fullmatch, column[1:]))


def _is_header(first: list[str], second: list[str]) -> bool:
    if any(is_number(word) and ("." in word or "," in word) for word in first):
        return False  # a score of an utterance that is called like a column
    if any(is_one_of(word, HEADER_WORDS) for word in first):
        return True
    # A header has names above a column of numbers.
    return (
        all(_NAME.match(word) for word in first) and any(map(is_number, second[1:])) and not any(map(is_number, first))
    )


def _unquoted(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return stripped_column(column) if pc.any(pc.starts_with(column, '"')).as_py() else column


def _read_parquet(path: Path) -> TextTable:
    try:
        schema = pq.read_schema(path)
        names = [field.name for field in schema if not pa.types.is_nested(field.type)]
        unread = tuple(name for name in schema.names if name not in names)
        table = pq.read_table(path, columns=names)
        columns = {name: pa.chunked_array([as_text(table[name])]) for name in names}
    except (OSError, pa.ArrowException) as error:
        raise ScoreFileError(f"Cannot read {path}: {error}") from error
    if not columns or table.num_rows == 0:
        raise ScoreFileError(f"{path} has no rows, or only nested columns.")
    return TextTable(str(path), columns, has_header=True, unread=unread)
