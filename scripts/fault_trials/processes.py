"""The real commands in real processes, without the time to import libraries in each."""

import contextlib
import gc
import importlib
import os
import pkgutil
import runpy
import signal
import sys
import time
import traceback
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

import hf_gradalign

SCRIPTS = Path(__file__).parents[1]
PATIENCE_S = 600.0  # commands take seconds; longer counts as an endless wait
_LIBRARIES = ("matplotlib.pyplot", "onnxruntime", "onnxscript", "torch._dynamo", "torch.onnx._internal.exporter._core")


def preload() -> None:
    """Import what the commands need. Do not compute after it: a forked process lacks the threads of torch."""
    ours = [module.name for module in pkgutil.walk_packages(hf_gradalign.__path__, "hf_gradalign.")]
    for name in (*ours, *_LIBRARIES):
        with contextlib.suppress(ImportError):  # the command itself reports it
            importlib.import_module(name)
    gc.collect()
    gc.freeze()


class CommandProcess:
    """A script of `scripts/` in its own process and process group.

    Args:
        script: Name of the script, without its suffix.
        words: Its command line.
        log: File to which its output is appended.
        folder: Working directory; by default that of this process.
    """

    def __init__(self, script: str, words: Sequence[str], log: Path, folder: Path | None = None) -> None:
        self.log = log
        self.status: int | None = None
        self._said_before = log.stat().st_size if log.exists() else 0
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            os._exit(_run(script, words, log, folder))
        with contextlib.suppress(OSError):
            os.setpgid(self.pid, self.pid)  # in both processes, whichever is first

    def is_running(self) -> bool:
        """Return whether it is still running."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status is None

    def wait(
        self, seconds: float = PATIENCE_S, kill: bool = True, meanwhile: Callable[[], None] = lambda: None
    ) -> int | None:
        """Wait for its end.

        Args:
            seconds: Longest time to wait.
            kill: Kill it if it takes longer.
            meanwhile: Called repeatedly.

        Returns:
            The exit status; None if it took longer.
        """
        deadline = time.monotonic() + seconds
        while self.is_running():
            if time.monotonic() > deadline:
                if kill:
                    self.kill()
                return None
            meanwhile()
            time.sleep(0.005)
        return self.status

    def kill(self) -> bool:
        """Kill it and its children, and return whether it was still running."""
        was_running = self.is_running()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        if was_running:
            _, status = os.waitpid(self.pid, 0)
            self.status = os.waitstatus_to_exitcode(status)
        return was_running

    def output(self) -> str:
        """Return its output so far."""
        with self.log.open("rb") as file:
            file.seek(self._said_before)
            return file.read().decode(errors="replace")


def _run(script: str, words: Sequence[str], log: Path, folder: Path | None) -> int:
    os.setpgid(0, 0)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if folder is not None:
        os.chdir(folder)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    path = SCRIPTS / f"{script}.py"
    sys.argv = [str(path), *words]
    status: object = 0
    try:
        runpy.run_path(str(path), run_name="__main__")
    except SystemExit as end:
        status = end.code or 0
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return status if isinstance(status, int) else 1


@contextlib.contextmanager
def all_ended(*processes: CommandProcess) -> Generator[None]:
    """End processes at the end of the block, also after an error."""
    try:
        yield
    finally:
        for process in processes:
            process.kill()
