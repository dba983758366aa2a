"""The list of a checkpoint's files, written when all of them are: a checkpoint that has it, and all on it, is whole."""

import json
from pathlib import Path
from typing import TypedDict

from hf_gradalign.training.atomic_writing import flush_to_disk, write_text_atomically

MANIFEST_NAME = "checkpoint_manifest.json"


class Manifest(TypedDict):
    """What the file says.

    Attributes:
        sequence: Counts a run's checkpoints in the order of writing, which a resumed run's steps do not tell, nor does
            every file system.
        files: Size in bytes of each file, by its path from the checkpoint's folder.
    """

    sequence: int
    files: dict[str, int]


def write_manifest(checkpoint: Path, sequence: int) -> None:
    """Flush a checkpoint's files to the disk and list them.

    Args:
        checkpoint: Its folder, in which nobody writes any more.
        sequence: As in `Manifest`.
    """
    files = {}
    for path in sorted(checkpoint.rglob("*")):
        flush_to_disk(path)
        name = path.relative_to(checkpoint).as_posix()
        if path.is_file() and name != MANIFEST_NAME:
            files[name] = path.stat().st_size
    content = Manifest(sequence=sequence, files=files)
    write_text_atomically(checkpoint / MANIFEST_NAME, json.dumps(content, indent=2) + "\n")


def read_manifest(checkpoint: Path) -> Manifest | None:
    """A checkpoint's list, or None where it has none (an ordinary `Trainer` writes none) or one that is none."""
    try:
        content = json.loads((checkpoint / MANIFEST_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and content.keys() >= Manifest.__required_keys__ else None
