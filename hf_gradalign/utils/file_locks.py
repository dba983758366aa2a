"""Locks that say who holds them."""

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

_MOST_TRIES = 100


class LockHeldError(OSError):
    """Another process holds the lock; the message says which, and since when.

    Attributes:
        holder: The same by itself: "process 17 on host since 2026-01-31 12:00:00".
    """

    holder = "another process"


@contextlib.contextmanager
def hold_lock(path: str | Path, what: str, on_wait: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold a lock that no other process can take; it ends with the process, however that ends.

    `<path>.holder` says who holds it. The lock is the system's, so what a dead process left does not block.

    Args:
        path: The lock's file, which stays; its folder must be there.
        what: What it is for, to begin a message with: "the study in runs/mine".
        on_wait: Wait for a lock that is held, and call this with its holder first; without it, refuse.

    Raises:
        LockHeldError: If another process holds it, and `on_wait` is not given.
        OSError: If the file cannot be written.
    """
    path = Path(path)
    holder = path.with_name(f"{path.name}.holder")
    if not path.exists():
        path.touch()  # filelock would not let the group write it, whatever the umask
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if on_wait is None:
            refusal = LockHeldError(
                f"{what} is in use by {_read(holder)}. Wait until it ends, stop it, or write elsewhere"
            )
            refusal.holder = _read(holder)
            raise refusal from None
        on_wait(_read(holder))
        lock.acquire()
    try:
        with contextlib.suppress(OSError):  # on a full disk the lock holds all the same
            now = time.strftime("%Y-%m-%d %H:%M:%S")
            holder.unlink(missing_ok=True)  # a link to elsewhere is not written through
            with holder.open("x", encoding="utf-8") as file:
                file.write(f"process {os.getpid()} on {socket.gethostname()} since {now}\n")
        yield
    finally:
        with contextlib.suppress(OSError):
            holder.unlink()
        lock.release()


@contextlib.contextmanager
def hold_output(path: str | Path) -> Iterator[None]:
    """Let no other process write a file or folder meanwhile; the lock, `.<name>.lock` next to it, is then taken away.

    Args:
        path: The file or folder; it need not be there. The folder that it is in is made.

    Raises:
        LockHeldError: If another process writes it.
        OSError: If nothing can be written there.
    """
    path = Path(path).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".{path.name}.lock")
    for _ in range(_MOST_TRIES):
        lock.touch()
        before = _inode(lock)
        with contextlib.ExitStack() as held:
            held.enter_context(hold_lock(lock, str(path)))
            # Between opening and locking it, the last process may have taken the file away: that lock keeps nobody out.
            if before is not None and _inode(lock) == before:
                held.callback(lock.unlink, missing_ok=True)  # while it is still held
                yield
                return
    raise LockHeldError(f"{path} is in use by other processes. Wait until they end, or write elsewhere")


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


__all__ = ["LockHeldError", "hold_lock", "hold_output"]
