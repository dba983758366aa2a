"""Text of strangers: as it may be shown in a terminal and in Markdown, and as it can be compared."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

# Colors and the like (CSI), titles and links (OSC and its kin, to their end), other escapes, and bare control
# characters of both sets, and those that turn the order of characters round; tabs and line ends stay.
_CODES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[ -/]*[0-~]?"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]"
)
# What makes something else of text within a line of Markdown: emphasis (within a word an underscore makes none), code,
# links, tags, entities, strikes, and addresses that become links by themselves.
_ACTIVE = re.compile(r"[\\`*\[\]<~]|(?<![^\W_])_|_(?![^\W_])|&(?=#?\w+;)|:(?=//)|(?<=www)\.", re.IGNORECASE)


BLANKS = " \t\r\n\v\f\0\u00a0\u2007\u200b\u2028\u2029\u202f\u2060\u3000\ufeff"
QUOTED = r"""(?s)^(?:"(.*)"|'(.*)')$"""


def plain_text(said: object) -> str:
    """What is said, e.g. an exception, without escape codes and control characters that a terminal would obey."""
    return _CODES.sub("", str(said).replace("\r\n", "\n"))


def one_line(value: object) -> str:
    """A value as one line of plain text, for a terminal or a figure."""
    return " ".join(plain_text(value).split())


def markdown_text(value: object) -> str:
    """A value as one line of Markdown that shows it as it is: no markup, tag or link comes of it."""
    return _ACTIVE.sub(r"\\\g<0>", one_line(value))


def markdown_cell(value: object) -> str:
    """The same for a cell of a table."""
    return markdown_text(value).replace("|", "\\|")


def code_span(value: object) -> str:
    """A value as code within a line of Markdown."""
    text = " ".join(plain_text(value).split())
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def code_block(value: object) -> str:
    """Text as a block of code in Markdown."""
    text = plain_text(value)
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}\n{text}\n{fence}"


def stripped_text(value: object) -> str:
    """A value as text, without white space, byte order marks and a pair of quotes around it; bytes are UTF-8."""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return re.sub(QUOTED, r"\1\2", text.strip(BLANKS)).strip(BLANKS)


def stripped_column(values: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """`stripped_text` for a column of strings."""
    import pyarrow.compute as pc

    inner = pc.replace_substring_regex(pc.utf8_trim(values, BLANKS), QUOTED, r"\1\2")
    return pc.utf8_trim(inner, BLANKS)


def comparable_column(values: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Strings `stripped_column` and in Unicode's composed form (NFC), in which equal names are equal."""
    import pyarrow.compute as pc

    return pc.utf8_normalize(stripped_column(values), form="NFC")
