"""Small files that are whole or not there, whenever the process is killed."""

import contextlib
import os
import stat
from pathlib import Path


def write_text_atomically(path: str | Path, text: str) -> None:
    """Write a text file such that a reader finds the old content or the new, also after a kill or a power cut.

    Args:
        path: The file; its folder must be there.
        text: Its content, written as UTF-8.
    """
    path = Path(path)
    draft = path.with_name(f"{path.name}.draft")  # what a kill leaves of it the next writing takes away
    draft.unlink(missing_ok=True)  # a link to elsewhere is not written through
    with draft.open("x", encoding="utf-8") as file:
        file.write(text)
    flush_to_disk(draft)
    os.replace(draft, path)
    flush_to_disk(path.parent)


def give_usual_mode(path: Path) -> None:
    """Give a file the permissions that a new file has there; safetensors gives its own to the owner alone."""
    probe = path.with_name(f"{path.name}.draft")
    probe.unlink(missing_ok=True)
    probe.open("x").close()
    mode = probe.stat().st_mode
    probe.unlink()
    path.chmod(stat.S_IMODE(mode))


def flush_to_disk(path: Path) -> None:
    """Have the system write a file, or a folder's list of entries, to the disk, as far as it can.

    A killed process loses nothing that it wrote; a machine that is taken away does.
    """
    with contextlib.suppress(OSError):  # not every file system flushes folders, and not every system opens them
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
