"""Text of strangers: as it may be shown in a terminal, and as it can be compared."""

import re

# Colors and the like (CSI), titles and links (OSC and its kin, to their end), other escapes, and bare control
# characters of both sets; tabs and line ends stay.
_CODES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[ -/]*[0-~]?"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)


BLANKS = " \t\r\n\v\f\0\u00a0\u2007\u200b\u2028\u2029\u202f\u2060\u3000\ufeff"
QUOTED = r"""(?s)^(?:"(.*)"|'(.*)')$"""


def plain_text(said: object) -> str:
    """What is said, e.g. an exception, without escape codes and control characters that a terminal would obey."""
    return _CODES.sub("", str(said).replace("\r\n", "\n"))


def stripped_text(value: object) -> str:
    """A value as text, without white space, byte order marks and a pair of quotes around it; bytes are UTF-8."""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return re.sub(QUOTED, r"\1\2", text.strip(BLANKS)).strip(BLANKS)
