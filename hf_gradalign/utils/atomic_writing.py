"""Files and folders that are whole or not there, whenever the process is killed."""

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

_CONFIG_NAME = "config.json"  # as in transformers, which takes long to import


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


def require_free(path: str | Path, overwrite: bool = False) -> None:
    """Refuse to write where something is already.

    Args:
        path: A file to be written, or a folder.
        overwrite: Whether a file may be replaced, and files in a folder.

    Raises:
        FileExistsError: If the file is there, or the folder holds anything; the message says what to do.
    """
    path = Path(path)
    if overwrite or not path.exists():
        return
    if not path.is_dir():
        raise FileExistsError(f"{path} exists: name another file, or replace it with --overwrite")
    if names := sorted(entry.name for entry in path.iterdir()):
        shown = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
        raise FileExistsError(
            f"{path} holds files already ({shown}): name another folder, or replace those of the same name with "
            "--overwrite"
        )


@contextlib.contextmanager
def written_when_whole(path: str | Path) -> Iterator[Path]:
    """A draft next to a file or folder, which takes its place when the block ends; an error leaves all as it was.

    Args:
        path: The file, or the folder. Of a folder that is there, files of the same name are replaced, others stay.

    Yields:
        The draft's path, of the same name in a folder of its own. Write a file there, or make a folder.
    """
    path = Path(path).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    workplace = path.with_name(f".{path.name}.draft")
    shutil.rmtree(workplace, ignore_errors=True)  # what a kill left
    workplace.mkdir()
    draft = workplace / path.name
    try:
        yield draft
        if draft.is_dir() and path.is_dir():
            files = sorted(file for file in draft.rglob("*") if file.is_file())
            if (draft / _CONFIG_NAME).is_file():
                # Killed from here on, a model is old in parts: without its configuration nothing loads it.
                (path / _CONFIG_NAME).unlink(missing_ok=True)
                files.sort(key=(draft / _CONFIG_NAME).__eq__)
            for file in files:
                target = path / file.relative_to(draft)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(file, target)
        else:
            os.replace(draft, path)
    finally:
        shutil.rmtree(workplace, ignore_errors=True)


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
