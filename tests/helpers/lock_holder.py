"""Another process that holds a lock until it is killed."""

import contextlib
import multiprocessing
import signal


def _hold(lock, ready):
    with lock():
        ready.send(True)
        signal.pause()


@contextlib.contextmanager
def other_process_holding(lock):
    """The process, once it is inside `lock()`, a context manager."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_hold, args=(lock, theirs))
    process.start()
    assert ours.recv()
    yield process
    process.kill()
    process.join()
