"""What a run takes in time and memory, and how far it is."""

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_gradalign.utils.atomic_writing import write_text_atomically
from hf_gradalign.utils.memory import peak_memory

_TELL_EVERY = 1.0  # seconds
_MOST = 10_000  # durations kept: a median needs no more


class RunMeter(TrainerCallback):
    """Times a run's updates, tells how far it is, and writes what it took when training ends.

    The time of an update is from its first micro-batch to the end of the optimiser's step, without waiting for the
    loader. On an accelerator, which is not waited for, single durations say little and their median is fair. A resumed
    run's figures are those of its last start.

    Args:
        file: Gets `seconds_per_update` (median, the first update left out) and `peak_memory_mib` (of the accelerator,
            or else of the whole process) as JSON.
        tell: Is told the share of the updates that are done, at most once a second.
    """

    def __init__(self, file: str | Path, tell: Callable[[float], None] | None = None) -> None:
        self._file = Path(file)
        self._tell = tell
        self._seconds: list[float] = []
        self._told = self._started = 0.0

    def on_step_begin(  # noqa: D102
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._started = time.perf_counter()

    def on_step_end(  # noqa: D102
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        now = time.perf_counter()
        if len(self._seconds) < _MOST:
            self._seconds.append(now - self._started)
        if self._tell is not None and now - self._told > _TELL_EVERY and state.max_steps > 0:
            self._told = now
            self._tell(state.global_step / state.max_steps)

    def on_train_end(  # noqa: D102
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if len(self._seconds) > 1 or not self._file.is_file():
            median = statistics.median(self._seconds[1:]) if len(self._seconds) > 1 else None
            content = {"seconds_per_update": median, "peak_memory_mib": peak_memory(args.device)}
            write_text_atomically(self._file, json.dumps(content) + "\n")


__all__ = ["RunMeter"]
