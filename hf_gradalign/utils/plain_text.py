"""Makes untrusted text safe for terminals and Markdown, and normalizes it for comparison."""

from __future__ import annotations

import datetime
import os
import re
import sys
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

# Colors etc. (CSI), titles and links (OSC and similar, to their end), other escapes, control characters of both sets,
# and characters that reverse the direction of text. Tabs and line ends stay.
_CODES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[ -/]*[0-~]?"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]"
)
# Markup within a line of Markdown: emphasis (except underscores within a word), code, links, tags, entities,
# strikethrough, and addresses that become links automatically.
_ACTIVE = re.compile(r"[\\`*\[\]<~]|(?<![^\W_])_|_(?![^\W_])|&(?=#?\w+;)|:(?=//)|(?<=www)\.", re.IGNORECASE)

_ROOT_ON_WINDOWS = r"[A-Za-z]:[\\/]+"


def _path_patterns(root: str) -> list[re.Pattern[str]]:
    """Return what absolute paths look like. A path may contain spaces in quotes, and between tabs and line ends."""
    return [
        re.compile(rf"(?<=\"){root}[^\"\n]+(?=\")"),
        re.compile(rf"(?<='){root}[^'\n]+(?=')"),
        re.compile(rf"(?:(?<=\t)|(?<=^)){root}[^\t\n]+(?=\t|$)", re.MULTILINE),
        re.compile(rf"(?:(?<=file://)|(?<=file:///)|(?<![\w./~)\]<])){root}(?!/)[^\s\"'`|,;:)\]}}>]+"),
    ]


_PATHS = _path_patterns(_ROOT_ON_WINDOWS if sys.platform == "win32" else "/")

# A drive letter is a whole word, and a slash follows its colon.
_COLON_UNLESS_OF_DRIVE = r":(?![\\/])|(?<!^[A-Za-z])(?<!:[A-Za-z]):"
_COLON = _COLON_UNLESS_OF_DRIVE if sys.platform == "win32" else ":"

BLANKS = " \t\r\n\v\f\0\u00a0\u2007\u200b\u2028\u2029\u202f\u2060\u3000\ufeff"
QUOTED = r"""(?s)^(?:"(.*)"|'(.*)')$"""


def plain_text(value: object) -> str:
    """Return text, such as an exception's message, without escape codes and control characters."""
    return _CODES.sub("", str(value).replace("\r\n", "\n"))


def one_line(value: object) -> str:
    """Return a value as one line of plain text, for a terminal or a figure."""
    return " ".join(plain_text(value).split())


def join_words(words: Sequence[str]) -> str:
    """Return words as text: "a", "a and b", "a, b and c"; empty without words."""
    *first, last = words or [""]
    return f"{', '.join(first)} and {last}" if first else last


def split_at_colons(text: str) -> list[str]:
    """Split text at colons. On Windows, those after drive letters (`C:/data`) belong to paths."""
    return re.split(_COLON, text)


def markdown_text(value: object) -> str:
    """Return a value as one line of Markdown without any markup, tags or links."""
    return _ACTIVE.sub(r"\\\g<0>", one_line(value))


def markdown_cell(value: object) -> str:
    """Return a value as Markdown for a cell of a table."""
    return markdown_text(value).replace("|", "\\|")


def code_span(value: object) -> str:
    """Return a value as inline code in Markdown."""
    text = one_line(value)
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def code_block(value: object) -> str:
    """Return text as a code block in Markdown."""
    text = plain_text(value)
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}\n{text}\n{fence}"


def today() -> str:
    """Return the date in UTC, as YYYY-MM-DD."""
    return datetime.datetime.now(datetime.timezone.utc).date().isoformat()


def stripped_text(value: object) -> str:
    """Return a value as text without surrounding white space, byte order marks and quotes; bytes are UTF-8."""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return re.sub(QUOTED, r"\1\2", text.strip(BLANKS)).strip(BLANKS)


def stripped_column(values: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Apply `stripped_text` to a column of strings."""
    import pyarrow.compute as pc

    inner = pc.replace_substring_regex(pc.utf8_trim(values, BLANKS), QUOTED, r"\1\2")
    return pc.utf8_trim(inner, BLANKS)


def comparable_column(values: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Apply `stripped_column` and `composed_column`, so that equal names compare equal."""
    return composed_column(stripped_column(values))


def composed_column(values: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Bring a column of strings into Unicode's composed form (NFC)."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if isinstance(values, pa.ChunkedArray):
        return pa.chunked_array([composed_column(chunk) for chunk in values.chunks], values.type)
    # pyarrow's utf8_normalize has no effect in version 25, the last for Python 3.10.
    others = pc.invert(pc.fill_null(pc.string_is_ascii(values), True))
    if not pc.any(others).as_py():
        return values
    composed = [unicodedata.normalize("NFC", text) for text in values.filter(others).to_pylist()]
    return pc.replace_with_mask(values, others, pa.array(composed, values.type))


def shorten_local_paths(text: str) -> str:
    """Shorten absolute paths of this machine to their last parts.

    Text that looks like a path but does not begin with an existing folder (a part of a URL, `/` between words) is kept.
    """
    for pattern in _PATHS:
        text = pattern.sub(_last_name, text)
    return text


def _last_name(match: re.Match[str]) -> str:
    separators = f"{os.sep}{os.altsep or ''}"
    drive, path = os.path.splitdrive(match[0])
    folder, *below = re.split(f"[{re.escape(separators)}]+", path.strip(separators))
    return below[-1] if below and os.path.isdir(f"{drive}/{folder}") else match[0]
