"""Ctrl-C (and a cluster's SIGTERM) end a run at the next update, with a checkpoint to resume from."""

import signal
from types import FrameType
from typing import Any

import torch
from torch import distributed
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import SaveStrategy
from transformers.utils import logging

logger = logging.get_logger(__name__)


class SaveOnInterrupt(TrainerCallback):
    """On the first SIGINT or SIGTERM, finishes the update at hand, saves a checkpoint and stops training.

    A second Ctrl-C interrupts at once. Processes of a distributed run agree on the update at which they stop, so that
    a signal to one of them is enough.

    Attributes:
        interrupted: Whether the run was stopped by a signal.
    """

    def __init__(self) -> None:
        self.interrupted = False
        self._signalled = False
        self._previous: dict[int, Any] = {}

    def on_train_begin(  # noqa: D102
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # Loader workers are forked later and inherit the handler: a Ctrl-C that reaches them too does not kill them.
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._on_signal)

    def on_step_end(  # noqa: D102
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._any_process_signalled(args):
            self.interrupted = True
            # Whatever the run saves otherwise (the best only, weights only), this checkpoint is to go on from.
            args.save_strategy = SaveStrategy.STEPS
            args.save_only_model = False
            control.should_save = True
            control.should_training_stop = True

    def on_epoch_end(  # noqa: D102
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # The Trainer ends the epoch wherever training stops. What belongs to the end of an epoch waits for its real
        # end after the resume, or a checkpoint that the uninterrupted run never compared could become the best.
        if not self.interrupted:
            return
        if float(state.epoch).is_integer():
            control.should_save = True  # once more, with what the evaluation at the epoch's end finds
        else:
            control.should_evaluate = control.should_save = control.should_log = False

    def on_train_end(  # noqa: D102
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.restore_handlers()

    def restore_handlers(self) -> None:
        """Put the signal handlers back that were there before training."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._signalled and number == signal.SIGINT:
            self.restore_handlers()
            raise KeyboardInterrupt
        self._signalled = True
        logger.warning(f"{signal.Signals(number).name}: saving a checkpoint after this update, then stopping.")

    def _any_process_signalled(self, args: TrainingArguments) -> bool:
        if args.world_size <= 1:
            return self._signalled
        flag = torch.tensor(int(self._signalled), device=args.device)
        distributed.all_reduce(flag, op=distributed.ReduceOp.MAX)
        return bool(flag)
