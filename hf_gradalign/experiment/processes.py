"""What one process of a distributed run does for all of them."""

from collections.abc import Callable
from typing import Any, TypeVar

from accelerate import PartialState
from torch import distributed

T = TypeVar("T")


def on_main_process(work: Callable[[], T]) -> T:
    """Do something in the main process alone; every process gets what came of it.

    Raises:
        ValueError: Whatever the work raised of it, in every process.
        OSError: Likewise.
    """
    outcome: list[Any] = [None, None]
    if PartialState().is_main_process:
        try:
            outcome[0] = work()
        except (ValueError, OSError) as error:
            outcome[1] = error
    if distributed.is_available() and distributed.is_initialized():
        distributed.broadcast_object_list(outcome)  # not accelerate's, which does nothing where it knows no accelerator
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


__all__ = ["on_main_process"]
