"""Checks that the processes of a run, which may be on several machines, see the same files."""

import socket
import time
from pathlib import Path
from uuid import uuid4

from torch import distributed

_WAIT = 60.0  # seconds until a network disk shows a new file


def require_shared_folder(folder: str | Path) -> None:
    """Check that all processes see what the main process writes to a folder. It is made if it is missing.

    All processes must call this. With one process, it does nothing.

    Raises:
        OSError: In every process, if the folder cannot be written, or a process does not see a new file in it. The
            message names these processes and their machines.
    """
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return
    is_main = distributed.get_rank() == 0
    outcome: list[str | OSError] = [f".shared_{uuid4().hex}"]
    if is_main:
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            Path(folder, str(outcome[0])).touch()
        except OSError as error:
            outcome[0] = error
    distributed.broadcast_object_list(outcome)
    if isinstance(outcome[0], OSError):
        raise outcome[0]
    mark = Path(folder, outcome[0])
    answers: list[str | None] = [None] * distributed.get_world_size()
    distributed.all_gather_object(answers, None if _appears(mark) else socket.gethostname())
    if is_main:
        mark.unlink(missing_ok=True)
    blind = [f"process {rank} on {host}" for rank, host in enumerate(answers) if host is not None]
    if blind:
        raise OSError(
            f"{folder}: {', '.join(blind)} cannot see what process 0 writes there. Choose a folder on a disk that all "
            "machines share, with the same path on each"
        )


def _appears(path: Path) -> bool:
    deadline = time.monotonic() + _WAIT
    while not path.exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True
