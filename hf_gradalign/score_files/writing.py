"""Score files: `utterance_id score`, a line a clip, as ASVspoof and the Arena have them."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_gradalign.data import BadClip
from hf_gradalign.utils.files import write_text_atomically


def write_score_file(
    path: str | Path,
    utterance_ids: Sequence[str],
    scores: Sequence[float],
    columns: Mapping[str, Sequence[Any]] | None = None,
) -> None:
    """Write a score file, whole or not at all.

    Args:
        path: Where.
        utterance_ids: One a clip.
        scores: One a clip, higher for bona fide; written with six decimals.
        columns: Further values by column. With them, or where an id has a blank in it, the file has a header and tabs;
            without, ids and scores are apart by a blank.
    """
    numbers = [f"{score:.6f}" for score in scores]
    if not columns and not any(len(name.split()) != 1 for name in utterance_ids):
        lines = [f"{name} {number}\n" for name, number in zip(utterance_ids, numbers, strict=True)]
        write_text_atomically(path, "".join(lines))
        return
    table = {"utterance_id": utterance_ids, "score": numbers, **(columns or {})}
    write_text_atomically(path, _tab_separated(table))


def read_score_file(path: str | Path) -> dict[str, float]:
    """The scores by utterance id of a file that `write_score_file` wrote.

    Files of other people's systems: `hf_gradalign.score_files`.
    """
    with Path(path).open(encoding="utf-8", newline="") as file:
        if file.readline().startswith("utterance_id\t"):
            file.seek(0)
            return {row["utterance_id"]: float(row["score"]) for row in csv.DictReader(file, delimiter="\t")}
        file.seek(0)
        return {name: float(score) for name, score in map(str.split, file)}


def write_bad_clips(path: str | Path, bad_clips: Sequence[BadClip]) -> None:
    """Write a table of the clips that could not be scored, and why; without any, see that there is no such file."""
    if not bad_clips:
        Path(path).unlink(missing_ok=True)
        return
    names = ("utterance_id", "path", "reason")
    write_text_atomically(path, _tab_separated({name: [getattr(clip, name) for clip in bad_clips] for name in names}))


def _tab_separated(columns: Mapping[str, Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue()
