"""Measure seconds and mebibytes, and their spread."""

import multiprocessing
import os
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch

MIB = 2**20
GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}


def interleaved_times(steps: Mapping[str, Callable[[], Any]], rounds: int, warm_up: int) -> dict[str, list[float]]:
    """Seconds of each step in each round.

    The steps alternate, in another order each round, so that other load on the machine affects all of them and ratios
    within a round can be compared.
    """
    times: dict[str, list[float]] = {name: [] for name in steps}
    names = list(steps)
    for number in range(-warm_up, rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            start = time.perf_counter()
            steps[name]()
            if number >= 0:
                times[name].append(time.perf_counter() - start)
    return times


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile of two values or more."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def peak_memory(make_step: Callable[..., Callable[[], Any]], *arguments: Any, threads: int) -> tuple[float, float]:
    """Return the peak memory of a process that only makes three steps, in MiB, and the part that is due to the steps.

    On a CPU this is resident memory, including interpreter, libraries and model. The allocator of the GNU C library is
    set to return freed memory at once; otherwise a third of the peak would be memory that it keeps. On a GPU it is the
    memory that torch allocated there.

    Args:
        make_step: Called in that process with the arguments; all must be picklable.
        arguments: Its arguments.
        threads: Threads of torch.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(make_step, arguments, threads, sender))
    with mock.patch.dict(os.environ, GIVE_BACK):
        process.start()
    sender.close()
    try:
        return receiver.recv()
    finally:
        process.join()


def _measure(make_step: Callable[..., Callable[[], Any]], arguments: Sequence[Any], threads: int, sender: Any) -> None:
    torch.set_num_threads(threads)
    step = make_step(*arguments)
    before = _memory_now()
    for _ in range(3):
        step()
    peak = _peak()
    sender.send((peak, peak - before))


def _memory_now() -> float:
    """Memory in use; its peak is counted from here on."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / MIB
    if not Path("/proc/self/status").exists():
        return _peak()
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / MIB
    if not Path("/proc/self/status").exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MIB  # bytes, on macOS
    # Not ru_maxrss: a child's begins with what its parent had.
    return _status("VmHWM")


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))
