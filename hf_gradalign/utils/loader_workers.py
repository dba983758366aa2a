"""Starts loader workers, and shares numbers between them and the main process."""

import os
import signal
import sys
from collections.abc import Callable
from multiprocessing import queues
from typing import Any

import torch

_SHARED_MEMORY = "/dev/shm"


def start_worker(worker: int, then: Callable[[int], object] | None = None) -> None:
    """Start a loader worker (a `worker_init_fn`) that ends if it cannot pass on a batch.

    Batches go through shared memory, /dev/shm, of which a Docker container has 64 MB by default. If it is full, Python
    only prints a traceback, and the main process waits for the batch forever. If the worker ends, torch raises an
    error.

    Args:
        worker: The worker's number.
        then: Called with the number, to continue the start.
    """
    queues.Queue._on_queue_feeder_error = staticmethod(_end)  # ty: ignore[missing-attribute]
    if sys.platform == "win32":  # a worker does not inherit the handler, and Ctrl-C would end it before its last batch
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    if then is not None:
        then(worker)


def shared_number(dtype: torch.dtype) -> torch.Tensor:
    """Return a zero, a tensor of shape (), that loader workers share with the main process.

    Without shared memory (AWS Lambda, some sandboxes), there can be no workers, so the number is not shared.
    """
    number = torch.zeros((), dtype=dtype)
    try:
        return number.share_memory_()
    except RuntimeError:
        if os.access(_SHARED_MEMORY, os.W_OK):
            raise
        return number


def _end(error: Exception, batch: Any) -> None:
    print(f"A loader worker cannot pass on a batch: {error}", file=sys.stderr, flush=True)  # noqa: T201
    os._exit(1)


__all__ = ["shared_number", "start_worker"]
