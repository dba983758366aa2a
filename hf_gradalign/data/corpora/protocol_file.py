"""Read protocols into Arrow: lines of words, or delimited files with a header."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv

from hf_gradalign.data.request import CorpusError
from hf_gradalign.utils.table_bounds import require_columns, require_lines

_BLOCK_BYTES = 2**22
_MAX_QUOTED = 200
_SPACES = re.compile(rb"[ \t\r\f\v]+")


def read_words(path: Path, columns: Callable[[list[str]], Mapping[str, int]]) -> pa.Table:
    """Read a protocol of words separated by white space.

    Accepts Windows line ends, tabs, leading, trailing and repeated spaces, empty lines and a byte order mark.

    Args:
        path: The file.
        columns: Returns the index of each wanted column, given the words of the first line.

    Returns:
        The wanted columns, as strings.

    Raises:
        CorpusError: If the file is empty or not UTF-8, or lines have different numbers of words.
    """
    _require_bounds(path)
    first = _first_words(path)
    _require_bounds(path, first)
    wanted = columns(first)
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
        quoted: Whether values may be in double quotes.

    Raises:
        CorpusError: If the file is not UTF-8, a line has more or fewer values than the header, a quotation mark is not
            closed, or there is no row.
    """
    _require_bounds(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline().rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise CorpusError(f"Cannot read {path}: {error}") from error
    names = [name.strip().strip('"') for name in header.split(delimiter)]
    _require_bounds(path, names)
    if not header.strip():
        raise CorpusError(f"{path} has no rows.")
    if len(set(names)) != len(names):
        raise CorpusError(f"{path}: the header names a column twice: {shortened(header)}")
    if quoted and _count(path, b'"') % 2:
        raise CorpusError(f"{path}: a quotation mark opens a value and none closes it.")
    table = _read(
        str(path),
        path,
        None,
        f"{len(names)} values",
        read=pa_csv.ReadOptions(column_names=names, skip_rows=1, use_threads=False, block_size=_BLOCK_BYTES),
        parse={"delimiter": delimiter, "quote_char": '"' if quoted else False, "newlines_in_values": quoted},
        include=names,
        empty_is_null=True,
    )
    if table.num_rows == 0:
        raise CorpusError(f"{path} has no rows.")
    return table


def _read(
    stream: object,
    path: Path,
    is_sound: Callable[[str], bool] | None,
    expected: str,
    *,
    read: pa_csv.ReadOptions,
    parse: dict[str, object],
    include: Sequence[str],
    empty_is_null: bool = False,
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
        raise CorpusError(f"Cannot read {path}: {str(error).replace('UTF8', 'UTF-8')} (is it UTF-8 text?)") from error
    if bad:
        first = _first_bad_line(path, is_sound) if is_sound is not None else None
        number, text = first or (bad[0].number, bad[0].text)
        others = f", nor have {len(bad) - 1} other lines" if len(bad) > 1 else ""
        raise CorpusError(
            f"{path}, line {number}: not {expected}{others}: {shortened(text)}. Fix it, or download it again."
        )
    return table


def shortened(line: str) -> str:
    """Return a line for an error message, at most 200 characters of it. A file with unknown line ends is one line."""
    return repr(line) if len(line) <= _MAX_QUOTED else f"{line[:_MAX_QUOTED]!r}..."


def _first_bad_line(path: Path, is_sound: Callable[[str], bool]) -> tuple[int, str] | None:
    # The CSV reader does not count empty lines, but editors do.
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        lines = ((number, line.strip()) for number, line in enumerate(file, start=1))
        return next(((number, line) for number, line in lines if line and not is_sound(line)), None)


def _count(path: Path, sign: bytes) -> int:
    with path.open("rb") as file:
        return sum(block.count(sign) for block in iter(lambda: file.read(_BLOCK_BYTES), b""))


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


def _first_words(path: Path) -> list[str]:
    words = first_words(path)
    if not words:
        raise CorpusError(f"{path} is empty.")
    return words


class _SingleSpaces:
    """Replaces white space between words by single spaces, for whole lines at a time."""

    def __init__(self) -> None:
        self._rest = b""

    def __call__(self, block: bytes) -> bytes:
        text = self._rest + bytes(block)
        # At the end of the file the block is empty, and the rest is the last line.
        cut = text.rfind(b"\n") + 1 if len(block) else len(text)
        text, self._rest = text[:cut], text[cut:]
        return _SPACES.sub(b" ", text).replace(b" \n", b"\n").replace(b"\n ", b"\n").strip(b" ")
