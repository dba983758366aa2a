"""Detect non-finite losses and gradients without waiting for the device, and report where they come from."""

import math
import weakref
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import gather_object
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.utils import logging

from hf_gradalign.alignment import AlignedUpdate, is_sharded_tensor, local_part
from hf_gradalign.training.callbacks import DelayedFlag, flag_delay
from hf_gradalign.utils.messages import first_few

if TYPE_CHECKING:
    from hf_gradalign.training.trainer import GradientAlignmentTrainer

logger = logging.get_logger(__name__)

_MAX_CONSECUTIVE_SKIPS = 50
_MAX_WARNINGS = 20
_LISTED_NAMES = 3
_LISTED_IDS = 32


@dataclass(frozen=True)
class MicroBatch:
    """Losses of a micro-batch by view (under "" for a batch without views), and the ids of its items if known."""

    losses: dict[str, Tensor]
    ids: Sequence[str] = ()


@dataclass(frozen=True)
class _Update:
    step: int
    micro_batches: list[MicroBatch]
    aligned: AlignedUpdate | None  # None for a batch without views
    is_bad: DelayedFlag


class NonFiniteGuard(TrainerCallback):
    """Stops training, or skips the update, if a loss or the gradient norm of an update is not finite.

    With `on_nonfinite` "stop", a flag is copied from the GPU while the next updates are computed. The flag is read at
    most four updates later, and always before logging, evaluation and saving, so no checkpoint contains such weights.
    On a CPU, it is read at once, before the weights change. With "skip", it is read before the optimizer step, so the
    host waits once per update, as in fp16 training. A skipped update changes neither the weights nor the optimizer's
    state, but the learning rate schedule counts it.

    In fp16 training, the GradScaler drops updates that overflow, as with every `Trainer`. These are not counted here. A
    warning reports a non-finite loss, which no scale can fix.

    Args:
        trainer: The trainer. Only a weak reference is kept.

    Attributes:
        skipped: Number of skipped updates in the run.
        last_was_skipped: Whether the last update was skipped.
    """

    def __init__(self, trainer: "GradientAlignmentTrainer") -> None:
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
        if self._trainer.args.on_nonfinite == "skip" and not self._scales_loss():
            self.last_was_skipped = bool(self._pending.pop().is_bad)
            self._in_a_row = self._in_a_row + 1 if self.last_was_skipped else 0
            if self.last_was_skipped:
                self._skip(update, state)
        else:
            self._handle_flags(state, flag_delay(args.device))

    def on_step_end(  # noqa: D102
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._current = None
        if control.should_log or control.should_evaluate or control.should_save or control.should_training_stop:
            self._handle_flags(state)

    def on_epoch_end(  # noqa: D102
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._handle_flags(state)

    def _observe(self, step: int) -> _Update:
        trainer = self._trainer
        aligned = None if trainer.last_update is self._seen else trainer.last_update
        self._seen = trainer.last_update
        values = [loss for micro_batch in trainer.micro_batches for loss in micro_batch.losses.values()]
        if isinstance(norm := trainer.grad_norm, Tensor) and not self._scales_loss():
            values.append(norm.full_tensor() if is_sharded_tensor(norm) else norm)
        device = values[-1].device
        is_bad = (~torch.stack([value.detach().float().to(device) for value in values]).isfinite().all()).float()
        if trainer.accelerator.num_processes > 1:
            # Each process has only the losses of its own items.
            is_bad = trainer.accelerator.reduce(is_bad, reduction="sum")
        return _Update(step, list(trainer.micro_batches), aligned, DelayedFlag(is_bad))

    def _handle_flags(self, state: TrainerState, lag: int = 0) -> None:
        while len(self._pending) > lag:
            update = self._pending.popleft()
            if not update.is_bad:
                continue
            description = self._describe(update, state)
            if not self._scales_loss():
                if self._trainer.conflict_recorder is not None:
                    self._trainer.conflict_recorder.flush()  # now, while all processes take part
                raise FloatingPointError(
                    f"{description} Nothing was saved since then. Check the items, lower --learning_rate, or skip such "
                    "updates with --on_nonfinite skip; --resume_from_checkpoint continues from the last checkpoint"
                )
            self._warn(state, f"{description} fp16 loss scaling skips the update, but it cannot fix a loss.")

    def _skip(self, update: _Update, state: TrainerState) -> None:
        self.skipped += 1
        description = self._describe(update, state)
        if self._in_a_row >= _MAX_CONSECUTIVE_SKIPS or update.step == state.max_steps == self.skipped:
            raise FloatingPointError(
                f"{description} Training stops after {self._in_a_row} skipped updates in a row: check the "
                "items, the initial weights and --learning_rate"
            )
        self._warn(state, f"{description} The update is skipped ({self.skipped} of {update.step} so far).")
        for parameter in self._trainer.model.parameters():
            parameter.grad = None  # optimizers then skip it, including momentum and weight decay

    def _warn(self, state: TrainerState, message: str) -> None:
        self._warnings += 1
        if state.is_world_process_zero and self._warnings <= _MAX_WARNINGS:
            logger.warning(message + (" Further ones are not reported." if self._warnings == _MAX_WARNINGS else ""))

    def _scales_loss(self) -> bool:
        scaler = getattr(self._trainer.accelerator, "scaler", None)
        return scaler is not None and scaler.is_enabled()

    def _describe(self, update: _Update, state: TrainerState) -> str:
        """Describe what is not finite in one or two sentences. Every process must call this."""
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
        if not losses:  # any of the items may be the cause
            ids = gather_object([name for micro_batch in update.micro_batches for name in micro_batch.ids])
        parts = [
            f"the loss{_of_views(views)} is {loss}"
            for loss, views in _group_views({v: str(x) for v, x in losses.items()})
        ]
        if not self._scales_loss():
            gradients = _group_views(self._gradients(update))
            parts += [f"the gradient{_of_views(views)} is not finite in {names}" for names, views in gradients]
        what = "; ".join(parts) or "the gradient's norm is too large for float32"
        items = f" Items: {first_few(ids, _LISTED_IDS)}." if ids else ""
        return f"Update {update.step} of {state.max_steps} is not finite: {what}.{items}"

    def _gradients(self, update: _Update) -> dict[str, str]:
        """Return a description of the parameters with a non-finite gradient, by view."""
        names = self._trainer.parameter_groups.names
        bad: dict[str, list[bool]] = {}
        taken: list[bool] = []
        if update.aligned is not None:
            squares = update.aligned.products.diagonal(dim1=-2, dim2=-1)
            bad = {view: (~squares[:, k].isfinite()).tolist() for k, view in enumerate(update.aligned.views)}
            taken = (squares != 0).any(1).tolist()
        elif update is self._current:  # otherwise `p.grad` is from a later update
            gradients = [parameter.grad for parameter in self._trainer.model.parameters()]
            taken = [gradient is not None for gradient in gradients]
            bad = {"": [g is not None and not bool(local_part(g).isfinite().all()) for g in gradients]}
        parameters = {}
        for view, flags in bad.items():
            which = [name for name, flag in zip(names, flags, strict=True) if flag]
            if which:
                share = "all" if len(which) == sum(taken) else f"{len(which)} of"
                parameters[view] = f"{share} {sum(taken)} parameters ({first_few(which, _LISTED_NAMES)})"
        return parameters


def _group_views(texts: dict[str, str]) -> list[tuple[str, list[str]]]:
    """Return each distinct text with the views that have it."""
    return [(text, [view for view in texts if texts[view] == text]) for text in dict.fromkeys(texts.values())]


def _of_views(views: list[str]) -> str:
    return f" of view{'s' if len(views) > 1 else ''} {' and '.join(views)}" if any(views) else ""
