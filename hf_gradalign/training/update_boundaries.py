"""Tells the trainer and its data set where updates and epochs begin."""

import weakref
from typing import Any, Protocol

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class _Trainer(Protocol):
    train_dataset: Any

    def start_update(self) -> None: ...


class UpdateBoundaries(TrainerCallback):
    """Calls `trainer.start_update()` before each update and `train_dataset.set_epoch(epoch)` before each epoch.

    accelerate's loaders pass the epoch on to the sampler or to the data set, not to both; items that depend on the
    epoch (see `hf_gradalign.data.ViewDataset`) need it always, a resumed epoch's included.
    """

    def __init__(self, trainer: _Trainer) -> None:
        self._trainer = weakref.proxy(trainer)  # or the two would keep each other, and the loaders' workers, alive

    def on_epoch_begin(  # noqa: D102
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if hasattr(self._trainer.train_dataset, "set_epoch"):
            self._trainer.train_dataset.set_epoch(int(state.epoch or 0))

    def on_step_begin(  # noqa: D102
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._trainer.start_update()
