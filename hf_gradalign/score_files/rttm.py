"""Read and write RTTM, the format of NIST's Rich Transcription evaluations for who speaks when.

A line describes a turn: ten fields without blanks in them, separated by blanks (NIST, "The 2009 (RT-09) Rich
Transcription Meeting Recognition Evaluation Plan", appendix A)::

    SPEAKER file channel start duration <NA> <NA> name <NA> <NA>

Here the name says whether speech is bona fide or spoofed, as in PartialSpoof.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from hf_gradalign.score_files.clips import ScoreFileError
from hf_gradalign.utils.plain_text import plain_text
from hf_gradalign.utils.table_bounds import require_lines

# The types of RT-09. Of these, only speakers and time that is not to be scored matter here.
_TYPES = {
    *("SEGMENT", "NOSCORE", "NO_RT_METADATA", "LEXEME", "NON-LEX", "NON-SPEECH", "FILLER", "EDIT", "SU", "IP", "CB"),
    *("A/P", "SPEAKER", "SPKR-INFO"),
}
NOT_SCORED = "NOSCORE"
# Files before RT-09 lack the last field.
_FIELDS = (9, 10)


class Turn(NamedTuple):
    """A turn of a recording.

    Attributes:
        start: In seconds.
        end: In seconds.
        name: What the file calls it; `NOSCORE` for time that is not to be scored.
    """

    start: float
    end: float
    name: str


def read_rttm(path: str | Path) -> dict[str, list[Turn]]:
    """Read the turns in a file, by recording, in the file's order.

    Only lines of the types SPEAKER and NOSCORE count. Lines that begin with `;;` are comments.

    Raises:
        ScoreFileError: If a line does not have the form; the message names it.
        OSError: If the file cannot be read.
    """
    path = Path(path)
    try:
        require_lines(path)
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (ValueError, UnicodeDecodeError) as error:
        raise ScoreFileError(f"{path} is not an RTTM file: {error}") from error
    turns: dict[str, list[Turn]] = {}
    for number, line in enumerate(lines, 1):
        fields = line.split()
        if not fields or fields[0].startswith(";;"):
            continue
        problem = None
        if fields[0] not in _TYPES:
            problem = f"its type {fields[0]!r} is none of RTTM's"
        elif len(fields) not in _FIELDS:
            problem = f"it has {len(fields)} fields and not 10"
        elif fields[0] in ("SPEAKER", NOT_SCORED):
            start, duration = _seconds(fields[3]), _seconds(fields[4])
            if start is None or duration is None:
                problem = f"{fields[3]!r} and {fields[4]!r} are not a start and a duration in seconds"
            else:
                name = fields[7] if fields[0] == "SPEAKER" else NOT_SCORED
                turns.setdefault(fields[1], []).append(Turn(start, start + duration, name))
        if problem is not None:
            raise ScoreFileError(f"{path}, line {number}: {problem} ({plain_text(line)[:200]!r})")
    if not turns:
        raise ScoreFileError(f"{path} has no line of the type SPEAKER. Is it an RTTM file?")
    return turns


def rttm_lines(recording: str, turns: Iterable[Turn]) -> str:
    """Return the turns of a recording as lines of RTTM, with times in milliseconds.

    Blanks in names become underscores, because RTTM separates fields by blanks.
    """
    lines = []
    for turn in turns:
        start, end = round(turn.start, 3), round(turn.end, 3)
        fields = ("SPEAKER", _field(recording), "1", f"{start:.3f}", f"{end - start:.3f}", "<NA>", "<NA>")
        lines.append(" ".join([*fields, _field(turn.name), "<NA>", "<NA>"]) + "\n")
    return "".join(lines)


def _seconds(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value < math.inf else None


def _field(text: str) -> str:
    return re.sub(r"\s+", "_", plain_text(text).strip()) or "_"
