"""Tables in JSON and JSON Lines, and which reader a file's form needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hf_gradalign.score_files.clips import flat
from hf_gradalign.score_files.column_names import IDS, SCORES, plain_name
from hf_gradalign.score_files.errors import ScoreFileError
from hf_gradalign.score_files.text_table import TextTable, is_number, read_text_table
from hf_gradalign.utils.table_bounds import columns_of, parse_json, require_lines

_LINES = {".jsonl", ".ndjson"}
SUFFIXES = frozenset({".json", *_LINES})
_ID = "utterance_id"

Row = dict[str, str]


def read_json_table(path: Path) -> TextTable:
    """Read rows, all values as strings with every digit that they have.

    Rows are a list of objects, one object per line, an object of lists (columns), or an object whose names are the
    utterance ids. A list of `{"label": ..., "score": ...}` in a row, as transformers' pipelines return, becomes one
    column per label; a single one becomes the columns `label` and `score`.

    Raises:
        ScoreFileError: If the file is no JSON, or has no rows.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() in _LINES:
            require_lines(path)
            content = [_parsed(line) for line in text.splitlines() if line.strip()]
        else:
            content = _parsed(text)
    except FileNotFoundError:
        raise ScoreFileError(f"There is no file {path}.") from None
    except (OSError, ValueError) as error:
        raise ScoreFileError(f"Cannot read {path} as JSON: {error}. JSON Lines end in .jsonl.") from error
    rows = _rows(content)
    if not rows:
        raise ScoreFileError(
            f"{path} has no rows: it should be a list of objects such as "
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


def _rows(content: Any) -> list[Row]:
    if isinstance(content, list):
        return [row for row in map(_row, content) if row]
    if not isinstance(content, Mapping) or not content:
        return []
    values = list(content.values())
    if all(isinstance(value, list) and all(map(_is_scalar, value)) for value in values):
        if len({len(value) for value in values}) > 1:
            return []
        return [dict(zip(map(str, content), map(_text, row), strict=True)) for row in zip(*values, strict=True)]
    if all(isinstance(value, Mapping) for value in values) and _knows_role(content):
        # Columns by name, of values by row, as pandas writes them.
        places = list(dict.fromkeys(place for value in values for place in value))
        return [{name: _text(value.get(place)) for name, value in content.items()} for place in places]
    if len(content) == 1 and isinstance(values[0], list | Mapping):
        return _rows(values[0])
    rows = [{_ID: str(name), **_row(value)} for name, value in content.items()]
    has_one_form = len({frozenset(row) for row in rows}) == 1
    return rows if has_one_form and all(len(row) > 1 for row in rows) else []


def _knows_role(names: Mapping[str, Any]) -> bool:
    return any(plain_name(name) in (*IDS, *SCORES) for name in names)


def _row(value: Any) -> Row:
    if _is_scalar(value):
        return {"score" if is_number(_text(value)) else "label": _text(value)}
    if _is_prediction_list(value):
        return _of_predictions(value)
    row: Row = {}
    for name, entry in value.items() if isinstance(value, Mapping) else ():
        if _is_prediction_list(entry):
            row |= _of_predictions(entry)
        elif isinstance(entry, Mapping) and _is_scalar(entry.get("path")) and "label" not in entry:
            row[name] = _text(entry["path"])  # an audio file
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


def _of_predictions(entries: Sequence[Mapping[str, Any]]) -> Row:
    if len(entries) == 1:
        return {"label": _text(entries[0]["label"]), "score": _text(entries[0]["score"])}
    return {_text(entry["label"]): _text(entry["score"]) for entry in entries}


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, str | bool)  # numbers are strings here


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()


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


__all__ = ["TextTable", "read_table"]
