"""Losses and gradients that are not finite: found without waiting for the device, and named with what gave them."""

import math
import weakref
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.utils import logging

from hf_gradalign.alignment import AlignedUpdate, ParameterGroups, is_sharded_tensor, local_part

logger = logging.get_logger(__name__)

ON_NONFINITE = ("stop", "skip")

# By how many updates the answer may lag behind, by the kind of device: a GPU is not waited for.
_LAG = {"cpu": 0}
_LAG_ELSEWHERE = 4
_MOST_IN_A_ROW = 50
_MOST_WARNINGS = 20
_SHOWN_NAMES = 3
_SHOWN_IDS = 32


@dataclass(frozen=True)
class MicroBatch:
    """One micro-batch's losses by view (by "" for a batch without views), and its items' ids where they are known."""

    losses: dict[str, Tensor]
    ids: Sequence[str] = ()


@dataclass(frozen=True)
class _Update:
    step: int
    micro_batches: list[MicroBatch]
    aligned: AlignedUpdate | None  # None for a batch without views
    is_bad: Tensor
    copied: torch.cuda.Event | None = field(default=None)


class _Recorder(Protocol):
    def flush(self) -> None: ...


class _Trainer(Protocol):
    conflict_recorder: _Recorder | None
    accelerator: Accelerator
    model: nn.Module
    last_update: AlignedUpdate | None
    micro_batches: list[MicroBatch]
    grad_norm: Tensor | None
    parameter_groups: ParameterGroups


class NonFiniteGuard(TrainerCallback):
    """Looks at each update's losses and gradient norm, and stops training, or drops the update, if one is not finite.

    With `on_nonfinite` "stop" a flag is copied from a GPU while the next updates are computed, and read when it has
    arrived: four updates later at most, and before anything is logged, evaluated or saved. So no checkpoint is written
    with such weights. On a CPU it is read at once, before the weights change. With "skip" it is read before the
    optimizer's step, for which the host waits once an update, as fp16 training does. An update that is dropped leaves
    the weights and the optimizer's state alone; the learning rate's schedule counts it.

    In fp16 training the GradScaler drops updates that overflow, as in every `Trainer`, and these are not counted here;
    a loss that is not finite, which no scale mends, is told in a warning.

    Args:
        trainer: A `GradientAlignmentTrainer`.

    Attributes:
        skipped: How many updates of the run were dropped.
        last_was_skipped: Whether the last update was.
    """

    def __init__(self, trainer: _Trainer) -> None:
        self._trainer = weakref.proxy(trainer)
        self.reset()

    def reset(self) -> None:
        """Start over."""
        self.skipped = 0
        self.last_was_skipped = False
        self._in_a_row = 0
        self._warnings = 0
        self._pending: deque[_Update] = deque()
        self._current: _Update | None = None
        self._seen: AlignedUpdate | None = None

    def on_pre_optimizer_step(  # noqa: D102
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        update = self._current = self._observe(state.global_step + 1)
        self._pending.append(update)
        self.last_was_skipped = False
        if args.on_nonfinite == "skip" and not self._scales_loss():
            self.last_was_skipped = self._is_bad(self._pending.pop())
            self._in_a_row = self._in_a_row + 1 if self.last_was_skipped else 0
            if self.last_was_skipped:
                self._skip(update, state)
        else:
            self._look(state, _LAG.get(args.device.type, _LAG_ELSEWHERE))

    def on_step_end(  # noqa: D102
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._current = None
        if control.should_log or control.should_evaluate or control.should_save or control.should_training_stop:
            self._look(state)

    def on_epoch_end(  # noqa: D102
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._look(state)

    def _observe(self, step: int) -> _Update:
        trainer = self._trainer
        aligned = None if trainer.last_update is self._seen else trainer.last_update
        self._seen = trainer.last_update
        figures = [loss for micro_batch in trainer.micro_batches for loss in micro_batch.losses.values()]
        if isinstance(norm := trainer.grad_norm, Tensor) and not self._scales_loss():
            figures.append(norm.full_tensor() if is_sharded_tensor(norm) else norm)
        device = figures[-1].device
        is_bad = (~torch.stack([figure.detach().float().to(device) for figure in figures]).isfinite().all()).float()
        if trainer.accelerator.num_processes > 1:
            is_bad = trainer.accelerator.reduce(is_bad, reduction="sum")  # each knows the losses of its own items
        copied = None
        if is_bad.device.type == "cuda":
            is_bad = is_bad.to("cpu", non_blocking=True)
            copied = torch.cuda.Event()
            copied.record()
        return _Update(step, list(trainer.micro_batches), aligned, is_bad, copied)

    def _look(self, state: TrainerState, lag: int = 0) -> None:
        while len(self._pending) > lag:
            update = self._pending.popleft()
            if not self._is_bad(update):
                continue
            found = self._describe(update, state)
            if not self._scales_loss():
                self._pending.clear()
                if self._trainer.conflict_recorder is not None:
                    self._trainer.conflict_recorder.flush()  # here all processes are; later each is on its own
                raise FloatingPointError(
                    f"{found} Nothing was saved since. Look at its items, lower --learning_rate, or leave such "
                    "updates out with --on_nonfinite skip; --resume_from_checkpoint goes on from the last checkpoint"
                )
            self._warn(state, f"{found} The step is left to fp16's loss scaling, which cannot fix a loss.")

    @staticmethod
    def _is_bad(update: _Update) -> bool:
        if update.copied is not None:
            update.copied.synchronize()
        return bool(update.is_bad)

    def _skip(self, update: _Update, state: TrainerState) -> None:
        self.skipped += 1
        found = self._describe(update, state)
        if self._in_a_row >= _MOST_IN_A_ROW or update.step == state.max_steps == self.skipped:
            raise FloatingPointError(
                f"{found} It is the last of {self._in_a_row} updates in a row that were skipped: look at the items, "
                "the weights that training began with and --learning_rate"
            )
        self._warn(state, f"{found} It is skipped; {self.skipped} of {update.step} so far.")
        for parameter in self._trainer.model.parameters():
            parameter.grad = None  # which every optimizer passes over, with its momentum and weight decay

    def _warn(self, state: TrainerState, message: str) -> None:
        self._warnings += 1
        if state.is_world_process_zero and self._warnings <= _MOST_WARNINGS:
            logger.warning(message + (" Further ones are not told." if self._warnings == _MOST_WARNINGS else ""))

    def _scales_loss(self) -> bool:
        scaler = getattr(self._trainer.accelerator, "scaler", None)
        return scaler is not None and scaler.is_enabled()

    def _describe(self, update: _Update, state: TrainerState) -> str:
        """What is not finite, in a sentence or two. Every process must call this alike."""
        losses: dict[str, float] = {}
        ids: list[str] = []
        for micro_batch in update.micro_batches:
            bad = {view: value for view, loss in micro_batch.losses.items() if not math.isfinite(value := float(loss))}
            losses |= bad
            ids += micro_batch.ids if bad else ()
        if self._trainer.accelerator.num_processes > 1:
            gathered = gather_object([(losses, ids)])
            losses = {view: loss for part, _ in gathered for view, loss in part.items()}
            ids = [name for _, part in gathered for name in part]
        if not losses:  # then any may have given it
            ids = gather_object([name for micro_batch in update.micro_batches for name in micro_batch.ids])
        parts = [f"the loss{_of(views)} is {loss}" for loss, views in _grouped({v: str(x) for v, x in losses.items()})]
        if not self._scales_loss():
            gradients = _grouped(self._gradients(update))
            parts += [f"the gradient{_of(views)} is not finite in {names}" for names, views in gradients]
        what = "; ".join(parts) or "the gradient's norm is too large for float32"
        items = f" Items: {_shortened(ids, _SHOWN_IDS)}." if ids else ""
        return f"Update {update.step} of {state.max_steps} is not finite: {what}.{items}"

    def _gradients(self, update: _Update) -> dict[str, str]:
        """For each view with a gradient that is not finite, the parameters."""
        names = self._trainer.parameter_groups.names
        bad: dict[str, list[bool]] = {}
        taken: list[bool] = []
        if update.aligned is not None:
            squares = update.aligned.products.diagonal(dim1=-2, dim2=-1)
            bad = {view: (~squares[:, k].isfinite()).tolist() for k, view in enumerate(update.aligned.views)}
            taken = (squares != 0).any(1).tolist()
        elif update is self._current:  # later the gradients are others
            gradients = [parameter.grad for parameter in self._trainer.model.parameters()]
            taken = [gradient is not None for gradient in gradients]
            bad = {"": [g is not None and not bool(local_part(g).isfinite().all()) for g in gradients]}
        found = {}
        for view, flags in bad.items():
            which = [name for name, flag in zip(names, flags, strict=True) if flag]
            if which:
                share = "all" if len(which) == sum(taken) else f"{len(which)} of"
                found[view] = f"{share} {sum(taken)} parameters ({_shortened(which, _SHOWN_NAMES)})"
        return found


def _grouped(texts: dict[str, str]) -> list[tuple[str, list[str]]]:
    """Each text once, with the views that it is said of."""
    return [(text, [view for view in texts if texts[view] == text]) for text in dict.fromkeys(texts.values())]


def _of(views: list[str]) -> str:
    return f" of view{'s' if len(views) > 1 else ''} {' and '.join(views)}" if any(views) else ""


def _shortened(names: Sequence[str], count: int) -> str:
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")


__all__ = ["ON_NONFINITE", "MicroBatch", "NonFiniteGuard"]
