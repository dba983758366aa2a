"""Read a text file with columns, whatever stands between them, into strings."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from hf_gradalign.data import CorpusError
from hf_gradalign.data.corpora.protocol_file import read_words, shown
from hf_gradalign.score_files.column_names import HEADER_WORDS, is_one_of
from hf_gradalign.score_files.errors import ScoreFileError
from hf_gradalign.utils.plain_text import stripped_column, stripped_text
from hf_gradalign.utils.table_bounds import MAX_COLUMNS, require_lines

_DELIMITERS = "\t,;|"
_SAMPLE_LINES = 50
_NUMBER = re.compile(r"([-+]?(\d+\.?\d*|\.\d+|\d+,\d+)([eE][-+]?\d+)?|nan|[-+]?inf) ?%?", re.IGNORECASE)
_DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+([eE][-+]?\d+)?")
_SAYS_DELIMITER = re.compile(r'"?sep=(.)"?')  # as Excel writes it
_NAME = re.compile(r"[A-Za-z_]")
_WORKBOOK = b"PK\x03\x04"  # .xlsx is a zip archive


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
        return pc.fill_null(self.columns[name].slice(0, _SAMPLE_LINES), "").to_pylist()


def read_text_table(path: str | Path) -> TextTable:
    """Read columns apart by tabs, commas, semicolons, bars, or else by any white space, with a header or without.

    Empty lines, Windows line ends, a byte order mark, quotes and a delimiter at the ends of lines do not matter.

    Raises:
        ScoreFileError: If there is no such file, it is empty or no text, or lines differ in their number of columns.
    """
    path = Path(path)
    lines = _first_lines(path)
    said = _SAYS_DELIMITER.fullmatch(lines[0].strip())
    lines = lines[1:] if said and len(lines) > 1 else lines
    delimiter = said[1] if said else _delimiter_of(lines)
    first = _split(lines[0], delimiter)
    has_header = _is_header(first, _split(lines[1], delimiter) if len(lines) > 1 else [])
    names = first if has_header else [f"column_{n + 1}" for n in range(len(first))]
    names = [name or f"column_{place + 1}" for place, name in enumerate(names)]
    if len(names) > MAX_COLUMNS:
        raise ScoreFileError(f"{path} has {len(names):,} columns; at most {MAX_COLUMNS:,} are supported.")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ScoreFileError(f"{path}: the header has {', '.join(sorted(twice))} more than once.")
    try:
        if delimiter is None:
            table = read_words(path, lambda words: {str(place): place for place in range(len(words))})
            table = pa.table([_unquoted(column) for column in table.columns], names=table.column_names)
        else:
            table = _read_delimited(path, delimiter, len(names), n_skipped=int(said is not None))
    except CorpusError as error:
        raise ScoreFileError(str(error)) from error
    table = table.slice(1) if has_header else table
    if table.num_rows == 0:
        raise ScoreFileError(f"{path} has a header but no rows.")
    columns = dict(zip(names, table.columns, strict=True))
    if len(names) > 1 and not first[-1] and not pc.any(pc.not_equal(columns[names[-1]], "")).as_py():
        del columns[names[-1]]  # each line ends with a delimiter
    return TextTable(str(path), columns, has_header)


def is_number(text: str | None) -> bool:
    """Whether a value is written as a number, with a point or a comma, NaN and infinity among them."""
    return text is not None and _NUMBER.fullmatch(text.strip()) is not None


def _first_lines(path: Path) -> list[str]:
    if path.is_dir():
        raise ScoreFileError(f"{path} is a folder, not a file.")
    try:
        require_lines(path)
        with path.open(encoding="utf-8-sig", newline=None) as file:
            lines = [line.rstrip("\n") for line, _ in zip(file, range(_SAMPLE_LINES), strict=False)]
    except FileNotFoundError:
        raise ScoreFileError(f"There is no file {path}.") from None
    except OSError as error:
        raise ScoreFileError(f"Cannot read {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        if path.read_bytes()[: len(_WORKBOOK)] == _WORKBOOK:
            raise ScoreFileError(
                f"{path} is an Excel workbook or another archive: save its sheet as CSV UTF-8."
            ) from None
        raise ScoreFileError(
            f"{path} is no UTF-8 text ({error}): unpack it if it is compressed, or save it as UTF-8."
        ) from error
    except ValueError as error:
        raise ScoreFileError(str(error)) from error
    lines = [line for line in lines if line.strip()]
    if not lines:
        raise ScoreFileError(f"{path} is empty.")
    return lines


def _delimiter_of(lines: list[str]) -> str | None:
    possible = [delimiter for delimiter in _DELIMITERS if _is_between(delimiter, lines)]
    if "," not in possible:
        return possible[0] if possible else None
    # A comma may also be in all of the numbers.
    for delimiter in (*possible, None):
        if delimiter != "," and _has_decimal_commas([_split(line, delimiter) for line in lines]):
            return delimiter
    return possible[0]


def _is_between(delimiter: str, lines: list[str]) -> bool:
    counts = {line.count(delimiter) for line in lines}
    return 0 not in counts and (len(counts) == 1 or delimiter == ",")


def _has_decimal_commas(rows: list[list[str]]) -> bool:
    """Whether lines split so have names, each once, and in another column numbers that all have a decimal comma."""
    if len({len(row) for row in rows}) > 1 or len(rows[0]) < 2:
        return False
    columns = list(zip(*rows, strict=True))
    numeric = [all(map(_DECIMAL_COMMA.fullmatch, column)) or _is_decimal_below_name(column) for column in columns]
    return any(numeric) and any(
        len(set(column)) == len(column) and not any("," in value for value in column) for column in columns
    )


def _is_decimal_below_name(column: tuple[str, ...]) -> bool:
    return len(column) > 1 and not is_number(column[0]) and all(map(_DECIMAL_COMMA.fullmatch, column[1:]))


def _split(line: str, delimiter: str | None) -> list[str]:
    return [stripped_text(word) for word in line.split(delimiter)]


def _is_header(first: list[str], second: list[str]) -> bool:
    if any(is_one_of(word, HEADER_WORDS) for word in first):
        return True
    # Names above numbers.
    return (
        all(_NAME.match(word) for word in first) and any(map(is_number, second[1:])) and not any(map(is_number, first))
    )


def _unquoted(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return stripped_column(column) if pc.any(pc.starts_with(column, '"')).as_py() else column


def _read_delimited(path: Path, delimiter: str, n_columns: int, n_skipped: int) -> pa.Table:
    bad: list[pa_csv.InvalidRow] = []

    def note(row: pa_csv.InvalidRow) -> str:
        bad.append(row)
        return "skip"

    names = [str(place) for place in range(n_columns)]
    try:
        table = pa_csv.read_csv(
            path,
            pa_csv.ReadOptions(column_names=names, skip_rows=n_skipped, use_threads=False),
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
