"""File locks that say which process holds them."""

import contextlib
import errno
import functools
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Generator, Iterable
from pathlib import Path

from filelock import FileLock, Timeout

from hf_gradalign.utils.files import refuse_device

logger = logging.getLogger(__name__)

_MAX_TRIES = 100
# Lustre that is mounted without `-o flock`, NFS without its lock daemon, some FUSE file systems.
_NO_LOCKS = frozenset({errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP})


class LockHeldError(OSError):
    """Another process holds the lock. The message says which process, and since when.

    Attributes:
        holder: Describes that process: "process 17 on host since 2026-01-31 12:00:00".
    """

    holder = "another process"


@contextlib.contextmanager
def hold_lock(path: str | Path, what: str, on_wait: Callable[[str], None] | None = None) -> Generator[None]:
    """Hold a lock that no other process can acquire. The system releases it when the process ends or is killed.

    `<path>.holder` says which process holds it. Files left by a dead process do not block the lock. On a file system
    without locks, nothing is locked, and a warning says so.

    Args:
        path: The lock's file, which is kept. Its folder must exist.
        what: Name of the locked resource, for the start of a message: "the study in runs/mine".
        on_wait: If given, it is called with the holder if the lock is held, and this function then waits for the lock.

    Raises:
        LockHeldError: If another process holds the lock and `on_wait` is not given.
        OSError: If the file cannot be written.
    """
    path = Path(path)
    holder = path.with_name(f"{path.name}.holder")
    if not path.exists():
        path.touch()  # filelock would create it without write permission for the group
    lock = FileLock(path, fallback_to_soft=False)  # a soft lock would outlive a killed process on another machine
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if on_wait is None:
            refusal = LockHeldError(
                f"{what} is in use by {_read(holder)}. Wait until it ends, stop it, or choose another output"
            )
            refusal.holder = _read(holder)
            raise refusal from None
        on_wait(_read(holder))
        lock.acquire()
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        _warn_of_no_locks(path.parent, error.strerror)
    try:
        with contextlib.suppress(OSError):  # the lock also works on a full disk
            now = time.strftime("%Y-%m-%d %H:%M:%S")
            holder.unlink(missing_ok=True)  # never write through a link
            with holder.open("x", encoding="utf-8") as file:
                file.write(f"process {os.getpid()} on {socket.gethostname()} since {now}\n")
        yield
    finally:
        with contextlib.suppress(OSError):
            holder.unlink()
        lock.release()


@contextlib.contextmanager
def hold_output(path: str | Path) -> Generator[None]:
    """Keep other processes from writing a file or folder. The lock file `.<name>.lock` is deleted afterward.

    Args:
        path: The file or folder. It does not need to exist; its parent folder is created, and removed again if it
            stays empty.

    Raises:
        LockHeldError: If another process is writing it.
        OSError: If nothing can be written there.
    """
    path = Path(path).absolute()
    new = [folder for folder in path.parents if not folder.exists()]  # innermost first
    lock = path.with_name(f".{path.name}.lock")
    for _ in range(_MAX_TRIES):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.touch()
        except FileNotFoundError:
            if path.parent.exists():
                raise
            continue  # another process has just removed the empty folder
        before = _inode(lock)
        with contextlib.ExitStack() as held:
            held.callback(_remove_empty, new)
            held.enter_context(hold_lock(lock, str(path)))
            # Another process may have deleted the file before it was locked here. Such a lock would not keep others
            # out.
            if before is not None and _inode(lock) == before:
                held.callback(delete_held_lock, lock)
                yield
                return
    raise LockHeldError(f"{path} is in use by other processes. Wait until they end, or choose another output")


@contextlib.contextmanager
def hold_outputs(paths: Iterable[Path]) -> Generator[None]:
    """Hold several files or folders like `hold_output`, each of them once. Devices and pipes are refused."""
    paths = list(paths)
    with contextlib.ExitStack() as held:
        for path in paths:
            refuse_device(path)
        for path in sorted({path.resolve() for path in paths}):  # the same order everywhere
            held.enter_context(hold_output(path))
        yield


def delete_held_lock(path: Path) -> None:
    """Delete the file of a lock that this process still holds, so that no other process can have acquired it.

    Windows cannot delete open files. There, filelock deletes the file when the lock is released.
    """
    if sys.platform != "win32":
        path.unlink(missing_ok=True)


@functools.cache
def _warn_of_no_locks(folder: Path, reason: str) -> None:
    logger.warning(
        f"The file system of {folder} has no file locks ({reason}), so nothing keeps a second process from writing the "
        "same output: do not start a command twice."
    )


def _remove_empty(folders: list[Path]) -> None:
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def _read(holder: Path) -> str:
    try:
        return " ".join(holder.read_text(encoding="utf-8", errors="replace")[:200].split()) or "another process"
    except OSError:
        return "another process"
