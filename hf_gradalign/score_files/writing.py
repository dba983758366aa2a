"""Writes and reads this project's score files: one line `utterance_id score` per clip, as in ASVspoof and the Arena."""

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_gradalign.data import BadClip
from hf_gradalign.utils.files import write_text_atomically

# Names that every reader treats as one word. Blanks, other delimiters and quotation marks could be misread.
_ONE_WORD = re.compile(r"[^\s,;|\"]+")


def write_score_file(
    path: str | Path,
    utterance_ids: Sequence[str],
    scores: Sequence[float],
    columns: Mapping[str, Sequence[Any]] | None = None,
) -> None:
    """Write a score file atomically.

    Args:
        path: The path of the file.
        utterance_ids: One per clip.
        scores: One per clip, higher for bona fide; written with six decimals.
        columns: More values per clip, by column. With such columns, or if an id contains a blank, comma, semicolon, bar
            or quotation mark, the file has a header and tabs. Otherwise, a blank separates ids and scores.
    """
    write_text_atomically(path, score_file_text(utterance_ids, scores, columns))


def score_file_text(
    utterance_ids: Sequence[str], scores: Sequence[float], columns: Mapping[str, Sequence[Any]] | None = None
) -> str:
    """Return the content that `write_score_file` writes."""
    numbers = [f"{score:.6f}" for score in scores]
    if not columns and all(map(_ONE_WORD.fullmatch, utterance_ids)):
        return "".join(f"{name} {number}\n" for name, number in zip(utterance_ids, numbers, strict=True))
    return _table_text({"utterance_id": utterance_ids, "score": numbers, **(columns or {})})


def read_score_file(path: str | Path) -> dict[str, float]:
    """Read scores by utterance id from a file that `write_score_file` wrote.

    For files of other systems, use `hf_gradalign.score_files.read_scores`.
    """
    with Path(path).open(encoding="utf-8", newline="") as file:
        if file.readline().startswith("utterance_id\t"):
            file.seek(0)
            return {row["utterance_id"]: float(row["score"]) for row in csv.DictReader(file, delimiter="\t")}
        file.seek(0)
        return {name: float(score) for name, score in map(str.split, file)}


def write_bad_clips(path: str | Path, bad_clips: Sequence[BadClip]) -> None:
    """Write a table of the clips that could not be scored, with reasons. If there are none, delete the file."""
    if not bad_clips:
        Path(path).unlink(missing_ok=True)
        return
    names = ("utterance_id", "path", "reason")
    write_table(path, {name: [getattr(clip, name) for clip in bad_clips] for name in names})


def write_table(path: str | Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write columns of the same length as a table with a header and tabs, atomically."""
    write_text_atomically(path, _table_text(columns))


class _Rows(list[str]):
    """A list to which `csv.writer` writes its rows."""

    write = list.append


def _table_text(columns: Mapping[str, Sequence[Any]]) -> str:
    rows = _Rows()
    # Before Python 3.13, carriage returns in values are quoted only if they are part of the line terminator.
    writer = csv.writer(rows, delimiter="\t", lineterminator="\r\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return "".join(row.removesuffix("\r\n") + "\n" for row in rows)
