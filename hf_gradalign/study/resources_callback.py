"""Measure the time and memory of a run, and report its progress."""

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_gradalign.utils.files import write_text_atomically
from hf_gradalign.utils.memory import peak_memory

_REPORT_EVERY = 1.0  # seconds
_MAX_DURATIONS = 10_000  # a median needs no more


class ResourcesCallback(TrainerCallback):
    """Times the updates of a run, reports its progress, and writes the time and memory when training ends.

    The time of an update is from its first micro-batch to the end of the optimizer step, without the wait for the
    loader. The callback does not synchronize with an accelerator, so single durations mean little there, but their
    median is fair. For a resumed run, the figures are those of its last start.

    Args:
        file: Gets `seconds_per_update` (median without the first update) and `peak_memory_mib` (of the accelerator,
            or else of the whole process) as JSON.
        on_progress: Called with the fraction of updates that are done, at most once per second.
    """

    def __init__(self, file: str | Path, on_progress: Callable[[float], None] | None = None) -> None:
        self._file = Path(file)
        self._on_progress = on_progress
        self._seconds: list[float] = []
        self._reported = self._started = 0.0

    def on_step_begin(  # noqa: D102
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._started = time.perf_counter()

    def on_step_end(  # noqa: D102
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        now = time.perf_counter()
        if len(self._seconds) < _MAX_DURATIONS:
            self._seconds.append(now - self._started)
        if self._on_progress is not None and now - self._reported > _REPORT_EVERY and state.max_steps > 0:
            self._reported = now
            self._on_progress(state.global_step / state.max_steps)

    def on_train_end(  # noqa: D102
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if len(self._seconds) > 1 or not self._file.is_file():
            median = statistics.median(self._seconds[1:]) if len(self._seconds) > 1 else None
            content = {"seconds_per_update": median, "peak_memory_mib": peak_memory(args.device)}
            write_text_atomically(self._file, json.dumps(content) + "\n")


__all__ = ["ResourcesCallback"]
