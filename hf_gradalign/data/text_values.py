"""Values of tables as text that can be compared: no blanks, byte order marks or quotes around, one Unicode form."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from hf_gradalign.plain_text import BLANKS, QUOTED


def stripped(values: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Strings without white space, byte order marks and a pair of quotes around them."""
    inner = pc.replace_substring_regex(pc.utf8_trim(values, BLANKS), QUOTED, r"\1\2")
    return pc.utf8_trim(inner, BLANKS)


def comparable(values: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Strings `stripped` and in Unicode's composed form (NFC), in which equal names are equal."""
    return pc.utf8_normalize(stripped(values), form="NFC")
