"""Read a text file with columns, whatever stands between them, into strings."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from hf_gradalign.data import CorpusError
from hf_gradalign.data.corpora.protocol_file import read_words, shown
from hf_gradalign.score_files.column_names import HEADER_WORDS, plain_name
from hf_gradalign.score_files.errors import ScoreFileError

_DELIMITERS = "\t,;|"
_SAMPLE_LINES = 50
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|nan|[-+]?inf", re.IGNORECASE)
_NAME = re.compile(r"[A-Za-z_]")


@dataclass(frozen=True)
class TextTable:
    """A file's columns.

    Attributes:
        source: The file's name, for messages.
        columns: Strings by name, all of one length; without a header the names are `column_1`, `column_2`, ...
        has_header: Whether the names are the file's own.
    """

    source: str
    columns: dict[str, pa.ChunkedArray]
    has_header: bool

    @property
    def n_rows(self) -> int:
        """How many rows there are."""
        return len(next(iter(self.columns.values())))

    def sample(self, name: str) -> list[str]:
        """The first values of a column."""
        return self.columns[name].slice(0, _SAMPLE_LINES).to_pylist()


def read_text_table(path: str | Path) -> TextTable:
    """Read columns apart by tabs, commas, semicolons, bars, or else by any white space, with a header or without.

    Empty lines, Windows line ends and a byte order mark do not matter.

    Raises:
        ScoreFileError: If there is no such file, it is empty or no text, or lines differ in their number of columns.
    """
    path = Path(path)
    lines = _first_lines(path)
    delimiter = _delimiter_of(lines)
    first = _split(lines[0], delimiter)
    has_header = _is_header(first, _split(lines[1], delimiter) if len(lines) > 1 else [])
    names = [name.strip() for name in first] if has_header else [f"column_{n + 1}" for n in range(len(first))]
    names = [name or f"column_{place + 1}" for place, name in enumerate(names)]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ScoreFileError(f"{path}: the header has {', '.join(sorted(twice))} more than once.")
    try:
        if delimiter is None:
            table = read_words(path, lambda words: {str(place): place for place in range(len(words))})
        else:
            table = _read_delimited(path, delimiter, len(names))
    except CorpusError as error:
        raise ScoreFileError(str(error)) from error
    table = table.slice(1) if has_header else table
    if table.num_rows == 0:
        raise ScoreFileError(f"{path} has a header but no rows.")
    return TextTable(str(path), dict(zip(names, table.columns, strict=True)), has_header)


def is_number(text: str | None) -> bool:
    """Whether a value is written as a number, NaN and infinity among them."""
    return text is not None and _NUMBER.fullmatch(text.strip()) is not None


def _first_lines(path: Path) -> list[str]:
    if path.is_dir():
        raise ScoreFileError(f"{path} is a folder, not a file.")
    try:
        with path.open(encoding="utf-8-sig", newline=None) as file:
            lines = [line.rstrip("\n") for line, _ in zip(file, range(_SAMPLE_LINES), strict=False)]
    except FileNotFoundError:
        raise ScoreFileError(f"There is no file {path}.") from None
    except UnicodeDecodeError as error:
        raise ScoreFileError(
            f"{path} is no UTF-8 text ({error}): unpack it if it is compressed, or save it as UTF-8."
        ) from error
    lines = [line for line in lines if line.strip()]
    if not lines:
        raise ScoreFileError(f"{path} is empty.")
    return lines


def _delimiter_of(lines: list[str]) -> str | None:
    for delimiter in _DELIMITERS:
        counts = {line.count(delimiter) for line in lines}
        if 0 not in counts and (len(counts) == 1 or delimiter == ","):
            return delimiter
    return None


def _split(line: str, delimiter: str | None) -> list[str]:
    return [word.strip().strip('"') for word in line.split(delimiter)]


def _is_header(first: list[str], second: list[str]) -> bool:
    if any(plain_name(word) in HEADER_WORDS for word in first):
        return True
    # Names above numbers.
    return (
        all(_NAME.match(word) for word in first) and any(map(is_number, second[1:])) and not any(map(is_number, first))
    )


def _read_delimited(path: Path, delimiter: str, n_columns: int) -> pa.Table:
    bad: list[pa_csv.InvalidRow] = []

    def note(row: pa_csv.InvalidRow) -> str:
        bad.append(row)
        return "skip"

    names = [str(place) for place in range(n_columns)]
    try:
        table = pa_csv.read_csv(
            path,
            pa_csv.ReadOptions(column_names=names, use_threads=False),
            pa_csv.ParseOptions(delimiter=delimiter, invalid_row_handler=note),
            pa_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False),
        )
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise ScoreFileError(f"Cannot read {path}: {error}") from error
    if bad:
        raise ScoreFileError(
            f"{path}: {len(bad)} lines have not {n_columns} columns, as the first has. The first of them is line "
            f"{bad[0].number}, with {bad[0].actual_columns}: {shown(bad[0].text)}."
        )
    return pa.table([pc.utf8_trim_whitespace(column) for column in table.columns], names=names)
