"""Splits delimited text into rows, so that a stray quotation mark never swallows the lines after it."""

from __future__ import annotations

import contextlib
import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

QUOTE = '"'
# How many lines are read to learn what the values of a row look like.
_SAMPLE_LINES = 1000


class Row(NamedTuple):
    """A row of a delimited file: the number of its first line (from 1), its values and its number of lines."""

    number: int
    values: list[str]
    n_lines: int


def split_rows(lines: Sequence[str], delimiter: str, n_columns: int | None = None) -> Iterator[Row]:
    """Split lines into rows of values.

    A value that is quoted as a whole may contain delimiters, line ends and doubled quotes, as in RFC 4180. All other
    quotation marks are ordinary characters, provided that the line then has the right number of values. A quoted value
    spans several lines only if the lines do not look like separate rows. Otherwise its quotation mark is a stray one,
    which would join all rows up to the next quotation mark.

    Args:
        lines: The lines of a file, with or without line ends, which are kept in quoted values. Empty lines are skipped.
        delimiter: One character.
        n_columns: The number of values per row. Defaults to that of the first row.

    Yields:
        The rows. The caller must check that each has the right number of values.
    """
    usual: _UsualRows | None = None
    index = start = 0
    reader = _reader(lines, start, delimiter)
    while index < len(lines):
        line = lines[index].rstrip("\r\n")
        quoted: list[str] | None = None
        n_quoted = 1
        with contextlib.suppress(csv.Error):  # a quoted value has no end, or text after it
            quoted = next(reader)
            n_quoted = start + reader.line_num - index
        plain = line.split(delimiter)
        n_columns = n_columns or len(quoted or plain)
        is_row = len(plain) == n_columns
        if quoted is not None and n_quoted > 1:
            usual = usual or _UsualRows(lines, delimiter, n_columns)
            *inner, last = lines[index + 1 : index + n_quoted]
            within = [text for text in inner if QUOTE not in text.replace(2 * QUOTE, "")]
            # The last line has the rest of the row's values, unless this line already has all of them.
            if any(map(usual.include, [*within, last] if is_row else within)):
                quoted = None
        if quoted is None or (is_row and len(quoted) != n_columns):
            values, n_lines = plain, 1
        else:
            values, n_lines = quoted, n_quoted
        if line:
            yield Row(index + 1, values, n_lines)
        index += n_lines
        if quoted is None or n_lines != n_quoted:
            start, reader = index, _reader(lines, index, delimiter)


def _reader(lines: Sequence[str], start: int, delimiter: str) -> Any:
    remaining = (lines[index] for index in range(start, len(lines)))
    following = (line if line.endswith(("\n", "\r")) else f"{line}\n" for line in remaining)
    return csv.reader(following, delimiter=delimiter, strict=True)


class _UsualRows:
    """Knows what the rows of a file look like, to tell a row from a line of a multi-line text."""

    def __init__(self, lines: Sequence[str], delimiter: str, n_columns: int) -> None:
        self._delimiter = delimiter
        self._n_columns = n_columns
        rows = map(self._values, lines[1:_SAMPLE_LINES])
        columns = list(zip(*[values for values in rows if len(values) == n_columns], strict=True))
        self._numeric = [index for index, values in enumerate(columns) if _are_mostly_numbers(values)]
        self._repeated = [
            (index, repeated)
            for index, values in enumerate(columns)
            if (repeated := {value for value, count in Counter(values).items() if value and count > 1})
        ]

    def include(self, line: str) -> bool:
        """Return whether a line looks like a row: as many values, and one of them like others in its column."""
        values = self._values(line)
        if len(values) != self._n_columns:
            return False
        if not self._numeric and not self._repeated:
            return True
        return any(_is_number(values[index]) for index in self._numeric) or any(
            values[index] in repeated for index, repeated in self._repeated
        )

    def _values(self, line: str) -> list[str]:
        try:
            return next(_reader([line], 0, self._delimiter))
        except csv.Error:
            return line.rstrip("\r\n").split(self._delimiter)


def _are_mostly_numbers(values: Sequence[str]) -> bool:
    return sum(map(_is_number, values)) >= len(values) / 2


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "."))
    except ValueError:
        return False
    return True
