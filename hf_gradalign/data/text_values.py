"""Values of tables as text that can be compared: no blanks, byte order marks or quotes around, one Unicode form."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

_BLANKS = " \t\r\n\v\f\0\u00a0\u2007\u200b\u2028\u2029\u202f\u2060\u3000\ufeff"
_QUOTED = r"""(?s)^(?:"(.*)"|'(.*)')$"""


def stripped(values: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Strings without white space, byte order marks and a pair of quotes around them."""
    inner = pc.replace_substring_regex(pc.utf8_trim(values, _BLANKS), _QUOTED, r"\1\2")
    return pc.utf8_trim(inner, _BLANKS)


def comparable(values: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Strings `stripped` and in Unicode's composed form (NFC), in which equal names are equal."""
    return pc.utf8_normalize(stripped(values), form="NFC")


def stripped_text(value: Any) -> str:
    """One value as text, `stripped`; bytes are read as UTF-8."""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return stripped(pa.array([text], pa.string()))[0].as_py()
