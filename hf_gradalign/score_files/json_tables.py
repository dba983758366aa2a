"""Reads JSON and JSON Lines as columns of strings."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from hf_gradalign.score_files.clips import ScoreFileError
from hf_gradalign.score_files.columns import IDS, SCORES, is_number, is_one_of, plain_name
from hf_gradalign.utils.folder_listing import similar_path
from hf_gradalign.utils.table_bounds import columns_of, distinct_names, parse_json, require_lines

_JSON_LINES = {".jsonl", ".ndjson"}
JSON_SUFFIXES = {".json", *_JSON_LINES}
_MAX_SHOWN = 60

JsonRow = dict[str, str]


def read_json_columns(path: Path) -> tuple[dict[str, pa.ChunkedArray], tuple[str, ...]]:
    """Read JSON or JSON Lines; numbers keep all their digits.

    The content is a list of objects, one object per line, an object of lists (columns), or an object whose names are
    the utterance ids. A list of `{"label": ..., "score": ...}` in a row, as returned by transformers' pipelines,
    becomes one column per label. A list with a single entry becomes the columns `label` and `score`. Values of objects
    in a row become columns too, with the object's name and a dot in front if their own name is not unique.

    Returns:
        The columns, and the names of columns with lists, which are not read.

    Raises:
        ScoreFileError: If the file is not JSON, an object has two values for a name, or a row has no values.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() in _JSON_LINES:
            require_lines(path)
            # Not splitlines: strings may contain the line separators of Unicode.
            lines = enumerate(text.split("\n"), start=1)
            content = [_parsed(line, f"line {number}: ") for number, line in lines if line.strip()]
        else:
            content = _parsed(text)
        rows = _rows(content)
    except FileNotFoundError:
        raise ScoreFileError(f"There is no file {path}.{similar_path(Path(path))}") from None
    except (OSError, ValueError) as error:
        is_several = path.suffix.lower() not in _JSON_LINES and "Extra data" in str(error)
        hint = " Files with JSON Lines must end in .jsonl." if is_several else ""
        raise ScoreFileError(f"Cannot read {path} as JSON: {error}.{hint}") from error
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
    return columns, tuple(name for name in _names_of_lists(content) if name not in columns)


def _parsed(text: str, where: str = "") -> Any:
    try:
        return parse_json(text, parse_float=str, parse_int=str, parse_constant=str)
    except ValueError as error:
        raise ValueError(f"{where}{error}") from error


def _rows(content: Any) -> list[JsonRow]:
    if isinstance(content, list):
        return _rows_of(content)
    if not isinstance(content, Mapping) or not content:
        return []
    values = list(content.values())
    if all(isinstance(value, list) and all(map(_is_scalar, value)) for value in values):
        if len({len(value) for value in values}) > 1:
            return []
        return [dict(zip(map(str, content), map(_text, row), strict=True)) for row in zip(*values, strict=True)]
    are_objects = all(isinstance(value, Mapping) for value in values)
    if are_objects and any(plain_name(name) in (*IDS, *SCORES) for name in content):
        # An object of columns, each an object of values by row label, as pandas writes it.
        labels = list(dict.fromkeys(label for value in values for label in value))
        return [{name: _text(value.get(label)) for name, value in content.items()} for label in labels]
    if len(content) == 1 and isinstance(values[0], list | Mapping):
        return _rows(values[0])
    own_names = _own_names(values)
    rows = [{"utterance_id": str(name), **_row(value, own_names)} for name, value in content.items()]
    if list(content) == [str(number) for number in range(len(content))]:
        # Row numbers, as written by pandas (orient="index"), are not ids if each row has its own id.
        numbered = [_row(value, own_names) for value in values]
        if all(any(is_one_of(name, IDS) for name in row) for row in numbered):
            rows = numbered
    have_same_names = len({frozenset(row) for row in rows}) == 1
    return rows if have_same_names and all(len(row) > 1 for row in rows) else []


def _rows_of(entries: Sequence[Any]) -> list[JsonRow]:
    own_names = _own_names(entries)
    rows = [_row(entry, own_names) for entry in entries]
    if not all(rows):
        number = rows.index({})
        shown = json.dumps(entries[number], ensure_ascii=False)
        shown = shown if len(shown) <= _MAX_SHOWN else f"{shown[:_MAX_SHOWN]}..."
        raise ValueError(f"row {number + 1} is {shown}, not an object with values. Correct or remove it")
    return rows


def _own_names(entries: Sequence[Any]) -> set[str]:
    """Return the names in nested objects that are not names of columns and that only one nested object has."""
    owners: dict[str, set[str]] = defaultdict(set)
    outer: set[str] = set()
    for entry in entries:
        for name, value in entry.items() if isinstance(entry, Mapping) else ():
            outer.add(name)
            for inner in value if isinstance(value, Mapping) else ():
                owners[inner].add(name)
    return {name for name, parents in owners.items() if len(parents) == 1 and name not in outer}


def _names_of_lists(content: Any) -> list[str]:
    """Return the names that have a list in any row, at any depth."""
    if isinstance(content, Mapping):
        values = [*content.values()]
        return _names_of_lists(values[0] if len(values) == 1 else values)
    if not isinstance(content, list):
        return []
    pairs = [pair for entry in content if isinstance(entry, Mapping) for pair in entry.items()]
    own = [name for name, value in pairs if isinstance(value, list) and not _is_prediction_list(value)]
    inner = [name for _, value in pairs if isinstance(value, Mapping) for name in _names_of_lists([value])]
    return list(dict.fromkeys([*own, *inner]))


def _row(value: Any, own_names: set[str]) -> JsonRow:
    if _is_scalar(value):
        return {"score" if is_number(_text(value)) else "label": _text(value)}
    if _is_prediction_list(value):
        return _of_predictions(value)
    row: JsonRow = {}
    for name, entry in value.items() if isinstance(value, Mapping) else ():
        if _is_prediction_list(entry):
            predictions = _of_predictions(entry)
            if "label" in value and "label" in predictions:  # may be the ground truth
                predictions["predicted_label"] = predictions.pop("label")
            if twice := predictions.keys() & value.keys():
                raise ValueError(f"a row has {', '.join(sorted(twice))} both directly and in {name!r}. Rename one")
            row |= predictions
        elif isinstance(entry, Mapping) and "path" in entry and _is_scalar(entry["path"]) and "label" not in entry:
            row[name] = _text(entry["path"])  # audio
        elif isinstance(entry, Mapping):
            row |= {
                key if key in own_names else f"{name}.{key}": _text(inner)
                for key, inner in entry.items()
                if _is_scalar(inner)
            }
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
    return distinct_names([(_text(entry["label"]), _text(entry["score"])) for entry in entries])


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, str | bool)  # numbers were parsed as strings


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()
