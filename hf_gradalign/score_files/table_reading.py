"""Read any table as columns of strings: delimited text, JSON, JSON Lines and Parquet."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from hf_gradalign.data import CorpusError
from hf_gradalign.data.corpora.protocol_file import read_words, shortened
from hf_gradalign.score_files.clips import ScoreFileError, as_text
from hf_gradalign.score_files.columns import HEADER_WORDS, IDS, SCORES, is_number, is_one_of, plain_name
from hf_gradalign.utils.plain_text import stripped_column, stripped_text
from hf_gradalign.utils.table_bounds import columns_of, parse_json, require_columns, require_lines

_DELIMITERS = "\t,;|"
_SAMPLE_LINES = 50
_DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+([eE][-+]?\d+)?")
_DELIMITER_LINE = re.compile(r'"?sep=(.)"?')  # as Excel writes it
_NAME = re.compile(r"[A-Za-z_]")
_WORKBOOK = b"PK\x03\x04"  # .xlsx is a zip archive
_JSON_LINES = {".jsonl", ".ndjson"}
_JSON = {".json", *_JSON_LINES}

JsonRow = dict[str, str]


@dataclass(frozen=True)
class TextTable:
    """The columns of a file.

    Attributes:
        source: The name of the file, for messages.
        columns: Strings by name, all of the same length. Without a header the names are `column_1`, `column_2`, ...
        has_header: Whether the file has names for its columns.
    """

    source: str
    columns: dict[str, pa.ChunkedArray]
    has_header: bool

    @property
    def n_rows(self) -> int:
        """The number of rows."""
        return len(next(iter(self.columns.values())))

    def sample(self, name: str) -> list[str]:
        """Return the first 50 values of a column."""
        return pc.fill_null(self.columns[name].slice(0, _SAMPLE_LINES), "").to_pylist()


def read_table(path: str | Path) -> TextTable:
    """Read a file's columns as strings, in the format that its suffix says.

    Raises:
        ScoreFileError: If it cannot be read.
    """
    path = Path(path)
    if path.suffix.lower() in _JSON:
        return read_json_table(path)
    if path.suffix.lower() == ".parquet" and path.is_file():
        return _read_parquet(path)
    return read_text_table(path)


def read_text_table(path: str | Path) -> TextTable:
    """Read columns separated by tabs, commas, semicolons, bars, or else white space, with or without a header.

    Empty lines, Windows line ends, a byte order mark, quotes, and a delimiter at the ends of lines are accepted.

    Raises:
        ScoreFileError: If there is no such file, it is empty or not text, or lines differ in their number of columns.
    """
    path = Path(path)
    lines = _first_lines(path)
    named = _DELIMITER_LINE.fullmatch(lines[0].strip())
    lines = lines[1:] if named and len(lines) > 1 else lines
    delimiter = named[1] if named else _delimiter_of(lines)
    first = _split(lines[0], delimiter)
    has_header = _is_header(first, _split(lines[1], delimiter) if len(lines) > 1 else [])
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
    try:
        if delimiter is None:
            table = read_words(path, lambda words: {str(index): index for index in range(len(words))})
            table = pa.table([_unquoted(column) for column in table.columns], names=table.column_names)
        else:
            table = _read_delimited(path, delimiter, len(names), n_skipped=int(named is not None))
    except CorpusError as error:
        raise ScoreFileError(str(error)) from error
    table = table.slice(1) if has_header else table
    if table.num_rows == 0:
        raise ScoreFileError(f"{path} has a header but no rows.")
    columns = dict(zip(names, table.columns, strict=True))
    if len(names) > 1 and not first[-1] and not pc.any(pc.not_equal(columns[names[-1]], "")).as_py():
        del columns[names[-1]]  # each line ends with a delimiter
    return TextTable(str(path), columns, has_header)


def _first_lines(path: Path) -> list[str]:
    if path.is_dir():
        raise ScoreFileError(f"{path} is a folder, not a file. Give the path of the file in it.")
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
    possible = [delimiter for delimiter in _DELIMITERS if _is_between(delimiter, lines)]
    if "," not in possible:
        return possible[0] if possible else None
    # The comma may also be the decimal comma of all numbers.
    for delimiter in (*possible, None):
        if delimiter != "," and _has_decimal_commas([_split(line, delimiter) for line in lines]):
            return delimiter
    return possible[0]


def _is_between(delimiter: str, lines: list[str]) -> bool:
    counts = {line.count(delimiter) for line in lines}
    return 0 not in counts and (len(counts) == 1 or delimiter == ",")


def _has_decimal_commas(rows: list[list[str]]) -> bool:
    """Whether one column has distinct names, and another one only numbers with a decimal comma."""
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
    # A header has names above a column of numbers.
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

    names = [str(index) for index in range(n_columns)]
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
            f"{path}: {len(bad)} lines do not have {n_columns} columns like the first line. The first of them is line "
            f"{bad[0].number}, with {bad[0].actual_columns}: {shortened(bad[0].text)}."
        )
    return pa.table([pc.utf8_trim_whitespace(column) for column in table.columns], names=names)


def read_json_table(path: Path) -> TextTable:
    """Read JSON or JSON Lines; numbers keep all their digits.

    The content is a list of objects, one object per line, an object of lists (columns), or an object whose names are
    the utterance ids. A list of `{"label": ..., "score": ...}` in a row, as transformers' pipelines return it, becomes
    one column per label. A list with a single entry becomes the columns `label` and `score`.

    Raises:
        ScoreFileError: If the file is not JSON, or has no rows.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() in _JSON_LINES:
            require_lines(path)
            content = [_parsed(line) for line in text.splitlines() if line.strip()]
        else:
            content = _parsed(text)
    except FileNotFoundError:
        raise ScoreFileError(f"There is no file {path}.") from None
    except (OSError, ValueError) as error:
        raise ScoreFileError(
            f"Cannot read {path} as JSON: {error}. Files with JSON Lines must end in .jsonl."
        ) from error
    rows = _json_rows(content)
    if not rows:
        raise ScoreFileError(
            f"{path} has no rows. It should be a list of objects such as "
            '{"utterance_id": ..., "score": ...}, one such object per line (.jsonl), or scores by utterance id.'
        )
    try:
        names = columns_of(rows, path)
    except ValueError as error:
        raise ScoreFileError(str(error)) from error
    columns = {name: pa.chunked_array([[row.get(name, "") for row in rows]], pa.string()) for name in names}
    return TextTable(str(path), columns, has_header=True)


def _parsed(text: str) -> Any:
    return parse_json(text, parse_float=str, parse_int=str, parse_constant=str)


def _json_rows(content: Any) -> list[JsonRow]:
    if isinstance(content, list):
        return [row for row in map(_json_row, content) if row]
    if not isinstance(content, Mapping) or not content:
        return []
    values = list(content.values())
    if all(isinstance(value, list) and all(map(_is_scalar, value)) for value in values):
        if len({len(value) for value in values}) > 1:
            return []
        return [dict(zip(map(str, content), map(_text, row), strict=True)) for row in zip(*values, strict=True)]
    if all(isinstance(value, Mapping) for value in values) and _has_known_name(content):
        # An object of columns, each an object of values by row label, as pandas writes it.
        labels = list(dict.fromkeys(label for value in values for label in value))
        return [{name: _text(value.get(label)) for name, value in content.items()} for label in labels]
    if len(content) == 1 and isinstance(values[0], list | Mapping):
        return _json_rows(values[0])
    rows = [{"utterance_id": str(name), **_json_row(value)} for name, value in content.items()]
    have_same_names = len({frozenset(row) for row in rows}) == 1
    return rows if have_same_names and all(len(row) > 1 for row in rows) else []


def _has_known_name(names: Mapping[str, Any]) -> bool:
    return any(plain_name(name) in (*IDS, *SCORES) for name in names)


def _json_row(value: Any) -> JsonRow:
    if _is_scalar(value):
        return {"score" if is_number(_text(value)) else "label": _text(value)}
    if _is_prediction_list(value):
        return _of_predictions(value)
    row: JsonRow = {}
    for name, entry in value.items() if isinstance(value, Mapping) else ():
        if _is_prediction_list(entry):
            row |= _of_predictions(entry)
        elif isinstance(entry, Mapping) and _is_scalar(entry.get("path")) and "label" not in entry:
            row[name] = _text(entry["path"])  # audio
        elif isinstance(entry, Mapping):
            row |= {key: _text(inner) for key, inner in entry.items() if _is_scalar(inner)}
        elif _is_scalar(entry):
            row[name] = _text(entry)
    return row


def _is_prediction_list(value: Any) -> bool:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and len(value) > 0
        and all(isinstance(entry, Mapping) and {"label", "score"} <= set(entry) for entry in value)
    )


def _of_predictions(entries: Sequence[Mapping[str, Any]]) -> JsonRow:
    if len(entries) == 1:
        return {"label": _text(entries[0]["label"]), "score": _text(entries[0]["score"])}
    return {_text(entry["label"]): _text(entry["score"]) for entry in entries}


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, str | bool)  # numbers were parsed as strings


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()


def _read_parquet(path: Path) -> TextTable:
    try:
        names = [field.name for field in pq.read_schema(path) if not pa.types.is_nested(field.type)]
        table = pq.read_table(path, columns=names)
        columns = {name: pa.chunked_array([as_text(table[name])]) for name in names}
    except (OSError, pa.ArrowException) as error:
        raise ScoreFileError(f"Cannot read {path}: {error}") from error
    if not columns or table.num_rows == 0:
        raise ScoreFileError(f"{path} has no rows, or only nested columns.")
    return TextTable(str(path), columns, has_header=True)
