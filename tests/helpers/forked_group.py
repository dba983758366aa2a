"""Processes with all imports done, single or as with torchrun, in a process group that can be killed."""

import functools
import gc
import multiprocessing
import os
import socket
import sys
import traceback

import pytest

PRELOADED = ["killed_run", "killed_scoring", "toy"]


@functools.cache
def _fork_server():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
        patch.setenv("OMP_NUM_THREADS", "1")
        process = context.Process(target=int)
        process.start()
        process.join()
    return context


def start(function, *args, log, processes=1):
    """Start `function(*args)` in one process, or in several below it; its pid is that of the process group."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = _fork_server().Process(target=_run, args=(function, args, str(log), processes, port))
    process.start()
    return process


def _run(function, args, log, processes, port):
    os.setsid()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    # Loader workers start as in an ordinary process. Freezing spares the garbage collector all imported objects.
    multiprocessing.set_start_method("fork", force=True)
    gc.freeze()
    if processes == 1:
        function(*args)
        return
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
    children = []
    for rank in range(processes):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
                function(*args)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(status)
        children.append(child)
    failed = [os.waitpid(child, 0)[1] for child in children]  # waits for all of them
    if any(failed):
        raise RuntimeError(f"processes ended with {failed}")
