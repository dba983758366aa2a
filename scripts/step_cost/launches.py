"""What one alignment costs on a GPU: kernel launches, and the time of host and device."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch.profiler import ProfilerActivity, profile

from hf_gradalign.alignment import Aligner
from hf_gradalign.training import GradientAlignmentTrainer
from step_cost.variants import synchronise

ON_GRADIENTS = ("products_kernel", "combine_kernel")


def alignment_cost(step: Callable[[], Any], rounds: int) -> dict[str, Any]:
    """Measure the alignment within a step: all that follows the last backward pass, until the update is recorded.

    The conflict statistics of 64 updates are computed at once, at a log or after the 64th. They are only in some of
    `host_seconds`.

    Returns:
        `launches`, `launches_on_gradients`, `device_seconds` of one alignment under a profiler of the GPU, and
        `host_seconds` of each round without a profiler. The device is idle when an alignment begins.
    """
    step()
    host_seconds: list[float] = []
    for _ in range(rounds):
        with _around_alignment(lambda: time.perf_counter(), lambda start: _append(host_seconds, start)):
            step()
    profiler = profile(activities=[ProfilerActivity.CUDA])
    with _around_alignment(profiler.start, lambda _: (synchronise(), profiler.stop())):
        step()
    events = [event for event in profiler.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    return {
        "launches": len(events),
        "launches_on_gradients": sum(event.name.startswith(ON_GRADIENTS) for event in events),
        "device_seconds": sum(event.device_time for event in events) / 1e6,
        "host_seconds": host_seconds,
    }


def _append(seconds: list[float], start: float) -> None:
    seconds.append(time.perf_counter() - start)


@contextmanager
def _around_alignment(begin: Callable[[], Any], end: Callable[[Any], Any]) -> Generator[None]:
    """Call `begin` before gradients are aligned, and `end` with its result once the update is recorded."""
    align, record = Aligner.align, GradientAlignmentTrainer._record_update
    begun: list[Any] = []

    def align_and_watch(*args: Any) -> Any:
        synchronise()
        begun.append(begin())
        return align(*args)

    def record_and_watch(*args: Any) -> None:
        record(*args)
        end(begun.pop())

    with (
        mock.patch.object(Aligner, "align", align_and_watch),
        mock.patch.object(GradientAlignmentTrainer, "_record_update", record_and_watch),
    ):
        yield
