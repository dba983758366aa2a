"""Rows of unlike columns and types as one Arrow table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from datasets import Dataset


def table_of_rows(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """One table of all rows, null where a row lacks a column.

    Columns whose values have one type keep it; values of several types become text, lists and objects JSON.

    Args:
        rows: at least one.
    """
    # from_list looks at the first row only for the columns that there are.
    columns = list(dict.fromkeys(column for row in rows for column in row))
    values = {column: [row.get(column) for row in rows] for column in columns}
    try:
        return Dataset.from_dict(values).data.table
    except (pa.ArrowException, TypeError, ValueError):
        return Dataset.from_dict({column: _of_one_type(entries) for column, entries in values.items()}).data.table


def joined(tables: Sequence[pa.Table]) -> pa.Table:
    """Tables one below the other, null where a table lacks a column; text where the types of a column differ."""
    try:
        return pa.concat_tables(tables, promote_options="default")
    except pa.ArrowException:
        return table_of_rows([row for table in tables for row in table.to_pylist()])


def _of_one_type(values: list[Any]) -> list[Any]:
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) <= 1 and not kinds & {dict, list}:
        return values
    return [None if value is None else _text(value) for value in values]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
