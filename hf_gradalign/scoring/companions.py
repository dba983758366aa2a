"""Files that belong to the scores in a score file and are next to it: the list of bad audio, verdicts and timelines."""

import contextlib
import json
from pathlib import Path

from hf_gradalign.utils.file_locks import hold_output

TIMELINE_SETTINGS = "timeline.json"
TIMELINE_BAD_AUDIO = "bad_audio.tsv"
_SUFFIXES = (".jsonl", ".rttm", ".txt", ".png")


def bad_audio_file(score_file: Path) -> Path:
    """Return the file that lists the clips without a score. It exists only if there are any."""
    return score_file.with_name(f"{score_file.stem}_bad_audio.tsv")


def verdict_file(score_file: Path) -> Path:
    """Return the file for verdicts on the scores."""
    return score_file.with_name(f"{score_file.stem}_verdicts.jsonl")


def timeline_folder(score_file: Path) -> Path:
    """Return the folder for timelines of the scored recordings."""
    return score_file.with_name(f"{score_file.stem}_timeline")


def remove_older_companions(score_file: Path) -> list[Path]:
    """Delete verdicts and timelines of older scores, before new scores replace them.

    Other files in the folder of timelines are kept.

    Returns:
        The deleted files and folders.

    Raises:
        LockHeldError: If another process is writing the timelines.
    """
    removed = []
    if (verdicts := verdict_file(score_file)).exists():
        verdicts.unlink()
        removed.append(verdicts)
    folder = timeline_folder(score_file)
    if (folder / TIMELINE_SETTINGS).is_file():
        with hold_output(folder):
            remove_recordings(folder)
            (folder / TIMELINE_BAD_AUDIO).unlink(missing_ok=True)
            (folder / TIMELINE_SETTINGS).unlink()  # last, because after a kill it lists what remains
            with contextlib.suppress(OSError):  # it contains other files
                folder.rmdir()
        removed.append(folder)
    return removed


def remove_recordings(folder: Path) -> None:
    """Delete the timelines that the settings in a folder list."""
    settings = json.loads((folder / TIMELINE_SETTINGS).read_text(encoding="utf-8"))
    for name in settings["recordings"]:
        for suffix in _SUFFIXES:
            (folder / f"{name}{suffix}").unlink(missing_ok=True)
