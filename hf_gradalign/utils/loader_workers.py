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

    The main process decides what Ctrl-C and a closed terminal mean (`SaveOnInterrupt`), and still needs its workers
    then. Forked workers have its handlers. Those that start as new programs (on macOS and Windows, and from a fork
    server) have none, and ignore these signals.

    Args:
        worker: The worker's number.
        then: Called with the number, to continue the start.
    """
    for number in (signal.SIGINT, getattr(signal, "SIGHUP", None)):  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, signal.SIG_IGN)
    queues.Queue._on_queue_feeder_error = staticmethod(_end)  # ty: ignore[missing-attribute]
    if then is not None:
        then(worker)


def pins_memory(device: torch.device | None) -> bool:
    """Return whether batches for a device should be in pinned memory, and be copied in the background.

    On MPS nothing can be pinned, and such a copy may read memory that has been freed (PyTorch issue 189690).

    Args:
        device: Where batches go; None for no accelerator.
    """
    return device is not None and device.type not in ("cpu", "mps")


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


__all__ = ["pins_memory", "shared_number", "start_worker"]
