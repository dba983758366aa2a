"""Reads protocols into Arrow tables: lines of words, or delimited files with a header."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv

from hf_gradalign.data.corpora.delimited_rows import QUOTE, Row, split_rows
from hf_gradalign.data.request import CorpusError
from hf_gradalign.utils.table_bounds import require_columns, require_lines

_BLOCK_BYTES = 2**22
_BLOCK_ROWS = 2**15
_MAX_QUOTED = 200
_SPACES = re.compile(rb"[ \t\r\f\v]+")


def read_words(path: Path, columns: Callable[[Path, list[str]], Mapping[str, int]]) -> pa.Table:
    """Read a protocol of words separated by white space.

    Accepts Windows line ends, tabs, leading, trailing and repeated spaces, empty lines and a byte order mark.

    Args:
        path: The file.
        columns: Function that returns the index of each wanted column, given `path` and the words of the first line.

    Returns:
        The wanted columns, as strings.

    Raises:
        CorpusError: If the file is empty or not UTF-8, or lines have different numbers of words.
    """
    _require_bounds(path)
    if not (first := first_words(path)):
        raise CorpusError(f"{path} is empty.")
    _require_bounds(path, first)
    wanted = columns(path, first)
    names = [str(index) for index in range(len(first))]
    with pa.OSFile(str(path)) as file:
        table = _read(
            pa.TransformInputStream(file, _SingleSpaces()),
            path,
            lambda line: len(line.split()) == len(first),
            f"{len(first)} words, as the first has",
            read=pa_csv.ReadOptions(column_names=names, use_threads=False, block_size=_BLOCK_BYTES),
            parse={"delimiter": " ", "quote_char": False, "escape_char": False},
            include=[str(index) for index in dict.fromkeys(wanted.values())],
        )
    return pa.table({name: table[str(index)] for name, index in wanted.items()})


def read_delimited(path: Path, delimiter: str, *, quoted: bool = True) -> pa.Table:
    """Read a delimited file with a header: all columns as strings, empty values as null.

    Args:
        path: The file.
        delimiter: One character.
        quoted: Whether values may be in double quotes (see `split_rows`).

    Raises:
        CorpusError: If the file is not UTF-8, a line has more or fewer values than the header, or there is no row.
    """
    _require_bounds(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline().rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise CorpusError(_not_text_message(path, error)) from error
    values = next(split_rows([header], delimiter)).values if quoted and header else header.split(delimiter)
    names = [name.strip().strip('"') for name in values]
    _require_bounds(path, names)
    if not header.strip():
        raise CorpusError(f"{path} has no rows.")
    if len(set(names)) != len(names):
        raise CorpusError(f"{path}: the header names a column twice: {shortened(header)}")
    table, _ = read_values(path, delimiter, names, n_skipped=1, quoted=quoted, empty_is_null=True)
    if table.num_rows == 0:
        raise CorpusError(f"{path} has no rows.")
    return table


def read_values(
    path: Path,
    delimiter: str,
    names: Sequence[str],
    *,
    n_skipped: int = 0,
    quoted: bool = True,
    empty_is_null: bool = False,
) -> tuple[pa.Table, int]:
    """Read the values of a delimited file as strings, ignoring the header.

    Args:
        path: The file.
        delimiter: One character.
        names: The names of the columns.
        n_skipped: The number of lines to skip at the start.
        quoted: Whether values may be in double quotes (see `split_rows`).
        empty_is_null: Whether empty values are null.

    Returns:
        The columns, and the number of lines that continue a quoted value from the line before.

    Raises:
        CorpusError: If the file is not UTF-8, or a line has more or fewer values than names.
    """
    if quoted and _contains(path, QUOTE.encode()):
        return _read_quoted(path, delimiter, names, n_skipped, empty_is_null)
    table = _read(
        str(path),
        path,
        lambda line: line.count(delimiter) + 1 == len(names),
        f"{len(names)} values",
        read=pa_csv.ReadOptions(column_names=names, skip_rows=n_skipped, use_threads=False, block_size=_BLOCK_BYTES),
        parse={"delimiter": delimiter, "quote_char": False},
        include=names,
        empty_is_null=empty_is_null,
        n_skipped=n_skipped,
    )
    return table, 0


def _read_quoted(
    path: Path, delimiter: str, names: Sequence[str], n_skipped: int, empty_is_null: bool
) -> tuple[pa.Table, int]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = list(file)
    except UnicodeDecodeError as error:
        raise CorpusError(_not_text_message(path, error)) from error
    lines[:n_skipped] = [""] * n_skipped
    rows = split_rows(lines, delimiter, len(names))
    schema = pa.schema([(name, pa.string()) for name in names])
    batches: list[pa.RecordBatch] = []
    bad: list[Row] = []
    n_continued = 0
    while batch := list(islice(rows, _BLOCK_ROWS)):
        bad += [row for row in batch if len(row.values) != len(names)]
        n_continued += sum(row.n_lines - 1 for row in batch)
        if not bad:
            columns = zip(*[row.values for row in batch], strict=True)
            arrays = [pa.array([value or None for value in own] if empty_is_null else own) for own in columns]
            batches.append(pa.RecordBatch.from_arrays([array.cast(pa.string()) for array in arrays], schema=schema))
    if bad:
        text = lines[bad[0].number - 1].rstrip("\r\n")
        raise CorpusError(_bad_line_message(path, bad[0].number, text, f"{len(names)} values", len(bad) - 1))
    return pa.Table.from_batches(batches, schema), n_continued


def _read(
    stream: object,
    path: Path,
    is_valid: Callable[[str], bool],
    expected: str,
    *,
    read: pa_csv.ReadOptions,
    parse: dict[str, object],
    include: Sequence[str],
    empty_is_null: bool = False,
    n_skipped: int = 0,
) -> pa.Table:
    bad: list[pa_csv.InvalidRow] = []

    def note(row: pa_csv.InvalidRow) -> str:
        bad.append(row)
        return "skip"

    convert = pa_csv.ConvertOptions(
        column_types={name: pa.string() for name in include},
        include_columns=list(include),
        strings_can_be_null=empty_is_null,
        quoted_strings_can_be_null=empty_is_null,
        null_values=[""],
    )
    try:
        table = pa_csv.read_csv(stream, read, pa_csv.ParseOptions(invalid_row_handler=note, **parse), convert)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise CorpusError(_not_text_message(path, error)) from error
    if bad:
        number, text = _first_bad_line(path, is_valid, n_skipped) or (bad[0].number, bad[0].text)
        raise CorpusError(_bad_line_message(path, number, text, expected, len(bad) - 1))
    return table


def _not_text_message(path: Path, error: Exception) -> str:
    return f"Cannot read {path}: {str(error).replace('UTF8', 'UTF-8')} (is it UTF-8 text?)"


def _bad_line_message(path: Path, number: int, text: str, expected: str, n_others: int) -> str:
    others = f", nor have {n_others} other lines" if n_others else ""
    quotes = " Check its quotation marks." if QUOTE in text else ""
    return f"{path}, line {number}: not {expected}{others}: {shortened(text)}.{quotes} Fix it, or download it again."


def shortened(line: str) -> str:
    """Return at most 200 characters of a line, for messages. A file with unknown line ends counts as one line."""
    return repr(line) if len(line) <= _MAX_QUOTED else f"{line[:_MAX_QUOTED]!r}..."


def _first_bad_line(path: Path, is_valid: Callable[[str], bool], n_skipped: int) -> tuple[int, str] | None:
    # The CSV reader does not count empty lines, but editors do.
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        lines = islice(enumerate(file, start=1), n_skipped, None)
        bad = ((number, line.strip()) for number, line in lines if line.strip() and not is_valid(line.rstrip("\n")))
        return next(bad, None)


def _contains(path: Path, sign: bytes) -> bool:
    with path.open("rb") as file:
        return any(sign in block for block in iter(lambda: file.read(_BLOCK_BYTES), b""))


def first_words(path: Path) -> list[str]:
    """Return the words of a text file's first line that is not blank. Empty if the file is empty or cannot be read."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            return next((words for words in (line.split() for line in file) if words), [])
    except OSError:
        return []


def _require_bounds(path: Path, names: Sequence[str] = ()) -> None:
    try:
        require_columns(names, path)
        if not names:
            require_lines(path)
    except ValueError as error:
        raise CorpusError(str(error)) from error


class _SingleSpaces:
    """Replaces white space between words by single spaces, for whole lines at a time."""

    def __init__(self) -> None:
        self._rest = b""

    def __call__(self, block: bytes) -> bytes:
        text = self._rest + bytes(block)
        # At the end of the file, the block is empty, and the rest is the last line.
        cut = text.rfind(b"\n") + 1 if len(block) else len(text)
        text, self._rest = text[:cut], text[cut:]
        return _SPACES.sub(b" ", text).replace(b" \n", b"\n").replace(b"\n ", b"\n").strip(b" ")
