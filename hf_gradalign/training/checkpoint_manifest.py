"""The list of a checkpoint's files, written when all of them are: a checkpoint that has it, and all on it, is whole."""

import json
from pathlib import Path
from typing import TypedDict

from huggingface_hub.utils.sha import sha_fileobj

from hf_gradalign.utils.atomic_writing import flush_to_disk, write_text_atomically

MANIFEST_NAME = "checkpoint_manifest.json"


class _Listed(TypedDict):
    sequence: int
    files: dict[str, int]


class Manifest(_Listed, total=False):
    """What the file says.

    Attributes:
        sequence: Counts a run's checkpoints in the order of writing, which a resumed run's steps do not tell, nor does
            every file system.
        files: Size in bytes of each file, by its path from the checkpoint's folder.
        sha256: Digest of each file's content, in hexadecimal digits; checkpoints of older versions have none.
    """

    sha256: dict[str, str]


def write_manifest(checkpoint: Path, sequence: int) -> None:
    """Flush a checkpoint's files to the disk and list them.

    Args:
        checkpoint: Its folder, in which nobody writes any more.
        sequence: As in `Manifest`.
    """
    files, digests = {}, {}
    for path in sorted(checkpoint.rglob("*")):
        flush_to_disk(path)
        name = path.relative_to(checkpoint).as_posix()
        if path.is_file() and name != MANIFEST_NAME:
            files[name] = path.stat().st_size
            digests[name] = sha256_of(path)  # just written: it is read from memory
    content = Manifest(sequence=sequence, files=files, sha256=digests)
    write_text_atomically(checkpoint / MANIFEST_NAME, json.dumps(content, indent=2) + "\n")


def read_manifest(checkpoint: Path) -> Manifest | None:
    """A checkpoint's list, or None where it has none (an ordinary `Trainer` writes none) or one that is none."""
    try:
        content = json.loads((checkpoint / MANIFEST_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or not isinstance(content.get("sequence"), int):
        return None
    lists = [content.get("files"), content.get("sha256", {})]
    return content if all(isinstance(listed, dict) for listed in lists) else None


def sha256_of(path: Path) -> str:
    """Digest of a file's content, in hexadecimal digits.

    Raises:
        OSError: If the file cannot be read.
    """
    with path.open("rb") as file:
        return sha_fileobj(file).hex()
