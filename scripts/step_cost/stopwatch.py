"""Where the time of an aligned step goes."""

import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any
from unittest import mock

from transformers import Trainer

from hf_gradalign.alignment import Aligner, ParameterGroups, ViewGradients
from hf_gradalign.training import GradientAlignmentTrainer
from step_cost.variants import synchronise

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
        synchronise()
        start = time.perf_counter()
        yield
        synchronise()
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
