"""Writes files and folders completely or not at all, even if the process is killed, and only where they belong."""

import contextlib
import errno
import os
import shutil
import stat
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path

_WAITS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)  # seconds
_CONFIG_NAME = "config.json"  # as in transformers, which is slow to import
_UNREACHABLE = (errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT)


def patiently(rename: Callable[[Path, Path], None], source: Path, target: Path) -> None:
    """Call `os.rename` or `os.replace`. Windows refuses while another program, such as a virus scanner, reads a file.

    Scanners look at new files for a moment. So on Windows, try again for three seconds.
    """
    for seconds in _WAITS if sys.platform == "win32" else ():
        try:
            return rename(source, target)
        except PermissionError:
            time.sleep(seconds)
    return rename(source, target)


def write_text_atomically(path: str | Path, text: str) -> None:
    """Write a text file so that readers find either the old or the new content, even after a kill or a power cut.

    Args:
        path: The file. Its folder must exist.
        text: The content, written as UTF-8. Line ends are written as they are, on Windows too.

    Raises:
        OSError: If it cannot be written, or the path is a device or a pipe.
    """
    path = Path(path)
    refuse_device(path)
    draft = path.with_name(f"{path.name}.draft")  # may be left from a killed process
    draft.unlink(missing_ok=True)  # never write through a link
    with draft.open("x", encoding="utf-8", newline="\n") as file:
        file.write(text)
    flush_to_disk(draft)
    patiently(os.replace, draft, path)
    flush_to_disk(path.parent)


def apply_default_mode(path: Path) -> None:
    """Give a file the default permissions of new files. safetensors makes files that only their owner can read."""
    probe = path.with_name(f"{path.name}.draft")
    probe.unlink(missing_ok=True)
    probe.open("x").close()
    mode = probe.stat().st_mode
    probe.unlink()
    with contextlib.suppress(OSError):  # some file systems have no permissions
        path.chmod(stat.S_IMODE(mode))


def require_reachable(path: str | os.PathLike[str]) -> None:
    """Raise OSError if it is unknown whether a path exists: it is in a folder that you may not search, or a disk fails.

    Since Python 3.14, `Path.exists`, `is_file` and `is_dir` are false for such paths, as for missing ones.
    """
    try:
        os.stat(path)
    except OSError as error:
        if error.errno in _UNREACHABLE:
            raise
    except ValueError:  # a null character in the name
        pass


def refuse_device(path: str | Path) -> None:
    """Raise OSError for `/dev/null`, `/dev/stdout` and the like, which a file that takes their place would destroy."""
    path = Path(path)
    require_reachable(path)
    is_special = path.exists() and not path.is_file()
    if not path.is_dir() and (is_special or path.absolute().parent == Path("/dev")):
        raise OSError(f"{path} is a device or a pipe, not a file: choose another output")


def require_free(path: str | Path, overwrite: bool = False) -> None:
    """Check that nothing would be overwritten.

    Args:
        path: The file or folder to be written.
        overwrite: Whether existing files may be replaced.

    Raises:
        FileExistsError: If the file exists or the folder is not empty; the message says what to do.
        OSError: If the path is a device or a pipe, or cannot be reached.
    """
    path = Path(path)
    refuse_device(path)
    if overwrite or not path.exists():
        return
    if not path.is_dir():
        raise FileExistsError(f"{path} already exists: choose another file, or pass --overwrite to replace it")
    # macOS adds .DS_Store to folders that it shows.
    if names := sorted(entry.name for entry in path.iterdir() if entry.name != ".DS_Store"):
        listing = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
        raise FileExistsError(
            f"{path} already contains files ({listing}): choose another folder, or pass --overwrite to replace files "
            "of the same name"
        )


@contextlib.contextmanager
def replace_atomically(path: str | Path) -> Generator[Path]:
    """Write a draft that replaces a file or folder when the block ends. If an error occurs, nothing changes.

    Args:
        path: The file or folder. In an existing folder, files with the same names are replaced and others stay.

    Yields:
        Path of the draft, with the same name in a temporary folder. Write a file or make a folder there.
    """
    path = Path(path).absolute()
    refuse_device(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    workspace = path.with_name(f".{path.name}.draft")
    shutil.rmtree(workspace, ignore_errors=True)  # may be left from a killed process
    workspace.mkdir()
    draft = workspace / path.name
    try:
        yield draft
        if draft.is_dir() and path.is_dir():
            files = sorted(file for file in draft.rglob("*") if file.is_file())
            if (draft / _CONFIG_NAME).is_file():
                # If the process is killed from here on, the folder has a mixture of old and new files. Without a
                # configuration, nothing loads it as a model.
                (path / _CONFIG_NAME).unlink(missing_ok=True)
                files.sort(key=(draft / _CONFIG_NAME).__eq__)
            for file in files:
                target = path / file.relative_to(draft)
                target.parent.mkdir(parents=True, exist_ok=True)
                patiently(os.replace, file, target)
        else:
            patiently(os.replace, draft, path)
    finally:
        shutil.rmtree(workspace, ignore_errors=True)


def flush_to_disk(path: Path) -> None:
    """Flush a file, or a folder's list of entries, to disk if the system can.

    Data that a killed process wrote is not lost, but a preempted machine may lose it.
    """
    with contextlib.suppress(OSError):  # some file systems cannot flush folders, and some systems cannot open them
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sha256_of(path: str | Path) -> str:
    """Return the SHA-256 digest of a file's content as hexadecimal digits, as shown on the Hub.

    Raises:
        OSError: If the file cannot be read.
    """
    from huggingface_hub.utils.sha import sha_fileobj  # slow to import; hashlib.file_digest needs Python 3.11

    with Path(path).open("rb") as file:
        return sha_fileobj(file).hex()


def remove_tree(path: Path) -> None:
    """Delete a folder as far as possible. If it is a link, delete only the link."""
    if path.is_symlink():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path, ignore_errors=True)


def link_or_copy(source: Path, target: Path) -> None:
    """Make a link to a file, or a copy where links are not allowed, as on Windows without its developer mode."""
    try:
        target.symlink_to(source.resolve())
    except OSError:
        shutil.copyfile(source, target)


def refuse_link_out(path: str | Path, folder: str | Path) -> None:
    """Check, before writing or deleting, that a path does not lead outside of a run's folder through a link.

    Args:
        path: A path that by its name lies within the folder. It does not need to exist.
        folder: The run's folder, which may itself be a link.

    Raises:
        PermissionError: If the path leads elsewhere.
    """
    real = os.path.realpath(path)
    if not Path(real).is_relative_to(os.path.realpath(folder)):
        raise PermissionError(
            f"{path} is a link out of the run's folder, to {real}, so nothing is written or deleted there: remove the "
            "link, or use another output folder"
        )
