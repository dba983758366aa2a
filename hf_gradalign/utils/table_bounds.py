"""Limits for untrusted tables and JSON, so that no file takes hours or all memory to read or is ambiguous."""

import json
from collections.abc import Iterable, Mapping, Sized
from pathlib import Path
from typing import Any

MAX_COLUMNS = 10_000
MAX_LINE_BYTES = 2**21
_BLOCK = MAX_LINE_BYTES // 2


def require_lines(path: Path) -> None:
    """Check that a file has no line of more than `MAX_LINE_BYTES`. Lines of up to half of that always pass.

    Raises:
        ValueError: If there is such a line; the message starts with the file's name.
        OSError: If the file cannot be read.
    """
    with path.open("rb") as file:
        for number, block in enumerate(iter(lambda: file.read(_BLOCK), b"")):
            if len(block) == _BLOCK and b"\n" not in block and b"\r" not in block:
                where = f"after {number * _BLOCK:,} bytes" if number else "at its start"
                raise ValueError(f"{path} is not a table: {where} there is no line end for {_BLOCK:,} bytes.")


def require_columns(columns: Sized, path: object) -> None:
    """Check that a table has at most `MAX_COLUMNS` columns.

    Raises:
        ValueError: If it has more; the message starts with the file's name.
    """
    if len(columns) > MAX_COLUMNS:
        raise ValueError(f"{path} has {len(columns):,} columns; at most {MAX_COLUMNS:,} are supported.")


def columns_of(rows: Iterable[Mapping[str, Any]], path: object) -> list[str]:
    """Return the column names of rows in order of appearance.

    Raises:
        ValueError: If there are more than `MAX_COLUMNS`.
    """
    names: dict[str, None] = {}
    for row in rows:
        names.update(dict.fromkeys(row))
        require_columns(names, path)
    return list(names)


def parse_json(text: str | bytes, **options: Any) -> Any:
    """Parse JSON like `json.loads`, but refuse objects with two different values for a name.

    Raises:
        ValueError: If it is not JSON, nested too deeply, or ambiguous.
    """
    try:
        return json.loads(text, object_pairs_hook=distinct_names, **options)
    except RecursionError:
        raise ValueError("its lists and objects are nested too deeply") from None


def distinct_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return pairs of names and values as a dictionary.

    Raises:
        ValueError: If a name has two different values.
    """
    content = dict(pairs)
    if len(content) < len(pairs):
        name = next((name for name, value in pairs if value != content[name]), None)
        if name is not None:
            raise ValueError(f"an object has two different values for {name!r}. Remove the wrong one")
    return content
