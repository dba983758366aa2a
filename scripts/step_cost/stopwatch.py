"""Where the time of an aligned step goes, and what one alignment costs on a GPU."""

import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch.profiler import ProfilerActivity, profile
from transformers import Trainer

from hf_gradalign.alignment import Aligner, ParameterGroups, ViewGradients
from hf_gradalign.training import GradientAlignmentTrainer
from step_cost.variants import synchronize

PASSES = "forward and backward passes"
SWAPPING = "swapping p.grad"
PARTS: dict[str, tuple[Any, str]] = {
    PASSES: (Trainer, "training_step"),
    SWAPPING: (ViewGradients, "accumulate"),
    "products": (ViewGradients, "products"),
    "Gramians of groups": (ParameterGroups, "gramians"),
    "method": (Aligner, "weigh"),
    "statistics": (GradientAlignmentTrainer, "_record_update"),
    "combining": (ViewGradients, "combine"),
}
ON_GRADIENTS = ("products_kernel", "combine_kernel")  # names of kernels


class Stopwatch:
    """Adds up the seconds spent in each of `PARTS`, waiting for the device at both ends of each.

    Attributes:
        seconds: By part, of all steps taken within `running()`.
    """

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)

    @contextmanager
    def running(self) -> Generator[None]:
        """Takes the time of every aligned step within this context."""
        with ExitStack() as stack:
            for part, (owner, name) in PARTS.items():
                wrap = self._around_context if part == SWAPPING else self._around
                stack.enter_context(mock.patch.object(owner, name, wrap(part, getattr(owner, name))))
            yield

    @contextmanager
    def _timing(self, part: str) -> Generator[None]:
        synchronize()
        start = time.perf_counter()
        yield
        synchronize()
        self.seconds[part] += time.perf_counter() - start

    def _around(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self._timing(part):
                return function(*args, **kwargs)

        return timed

    def _around_context(self, part: str, function: Callable[..., AbstractContextManager]) -> Callable[..., Any]:
        @contextmanager
        def timed(*args: Any, **kwargs: Any) -> Generator[None]:
            context = function(*args, **kwargs)
            with self._timing(part):
                context.__enter__()
            try:
                yield
            finally:
                with self._timing(part):
                    context.__exit__(None, None, None)

        return timed


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
        with _around_alignment(time.perf_counter, lambda start: host_seconds.append(time.perf_counter() - start)):
            step()
    profiler = profile(activities=[ProfilerActivity.CUDA])
    with _around_alignment(profiler.start, lambda _: (synchronize(), profiler.stop())):
        step()
    events = [event for event in profiler.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    return {
        "launches": len(events),
        "launches_on_gradients": sum(event.name.startswith(ON_GRADIENTS) for event in events),
        "device_seconds": sum(event.device_time for event in events) / 1e6,
        "host_seconds": host_seconds,
    }


@contextmanager
def _around_alignment(begin: Callable[[], Any], end: Callable[[Any], Any]) -> Generator[None]:
    """Call `begin` before gradients are aligned, and `end` with its result once the update is recorded."""
    align, record = Aligner.align, GradientAlignmentTrainer._record_update
    begun: list[Any] = []

    def align_and_watch(*args: Any) -> Any:
        synchronize()
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
