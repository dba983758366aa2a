"""A callback that writes the conflict record."""

import math
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import gather_object
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.utils import logging

from hf_gradalign.alignment import AlignedUpdate, ParameterGroups, conflicts, gradient_statistics
from hf_gradalign.training.conflicts.record import ConflictRecord, RecordFormat, Row

if TYPE_CHECKING:
    from hf_gradalign.training.trainer import GradientAlignmentTrainer

logger = logging.get_logger(__name__)

_DIGITS = 6  # float32 has seven digits, but the last is noise and costs space


class ConflictRecorder(TrainerCallback):
    """Writes `conflicts.jsonl` (or `.parquet`) to the run's folder, one row per update.

    The columns, where a and b stand for the names of views:

    - `step`; `epoch` as logged by the Trainer (the update belongs to epoch ceil(`epoch`), counted from 1);
    - `conflict`: whether any two views' gradients have a negative cosine;
    - with `on_nonfinite` "skip": `skipped`, whether the update was skipped;
    - `cosine_<a>_<b>`, `norm_ratio_<b>_<a>` = |g_b| / |g_a| and `grad_norm_<a>`, over all aligned parameters;
    - `weight_<a>`: the factor that the view's gradient was multiplied by (the mean over several groups);
    - `loss_<a>`: the view's mean loss over all processes;
    - with `modules`: `module`, a list of the names of the modules that have a gradient, and lists of the same length,
      `module_cosine_<a>_<b>` and `module_grad_norm_<a>`. With lists, the columns do not depend on the model, and
      repeated names take almost no space in Parquet. In pandas,
      `frame.explode([c for c in frame if c.startswith("module")])` gives one row per module. Modules are transformer
      layers and other modules with their own parameters (`ParameterGroups(names, "module")`), whatever the scope of
      alignment. Their products are computed for alignment anyway;
    - with `ids`: `ids`, the ids of the update's items in all processes (the utterances of `ViewDataset`).

    Non-finite values are null. In fp16 training, norms are those of the unscaled gradients.

    Each update keeps a few small tensors on the device. They are copied to the host every `flush_every` updates,
    whenever a checkpoint is saved, and when training ends. If training ends with an error, the other processes' shares
    of the losses are missing, so the losses and ids of the last rows are null. A killed run loses the rows since the
    last copy; when it is resumed, these updates are trained and recorded again. Only the main process writes. Losses
    are averaged over processes once per copy.

    Args:
        trainer: The trainer. Only a weak reference is kept.
        file_format: "jsonl" or "parquet"; see `ConflictRecord`.
        modules: Whether to record each module.
        ids: Whether to record the ids of the items.
        flush_every: Number of updates held on the device.

    Attributes:
        resumed_from: Folder of the run that is resumed.
    """

    def __init__(
        self,
        trainer: "GradientAlignmentTrainer",
        file_format: RecordFormat = "jsonl",
        modules: bool = False,
        ids: bool = False,
        flush_every: int = 50,
    ) -> None:
        self.resumed_from: Path | None = None
        self._trainer = weakref.proxy(trainer)  # a strong reference would keep the trainer and its workers alive
        self._file_format = file_format
        self._by_module = modules
        self._has_ids = ids
        self._flush_every = flush_every
        self._record: ConflictRecord | None = None
        self._groups: ParameterGroups | None = None
        self._start()

    def on_train_begin(  # noqa: D102
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._start()
        self._groups = ParameterGroups(self._trainer.parameter_groups.names, "module") if self._by_module else None
        self._record = (
            ConflictRecord(self._trainer.run_folder, self._file_format) if state.is_world_process_zero else None
        )
        if self._record is not None:
            last = self._record.begin(state.global_step, self.resumed_from)
            if last < state.global_step:
                logger.warning(f"The conflict record lacks the updates {last + 1} to {state.global_step}.")
        self.resumed_from = None

    def on_step_end(  # noqa: D102
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        trainer = self._trainer
        update = trainer.last_update
        if update is None or update is self._seen:  # a batch without views
            return
        if update.views != self._views:
            self.flush()
            self._views = update.views
        self._seen = update
        when = {"step": state.global_step, "epoch": float(state.epoch or 0)}
        skipped = {"skipped": trainer.nonfinite.last_was_skipped} if trainer.args.on_nonfinite == "skip" else {}
        self._when.append((when, skipped))
        self._updates.append(update)
        if self._has_ids:
            ids = [name for micro_batch in trainer.micro_batches for name in micro_batch.ids]
            if not ids:
                raise ValueError("--conflict_record_ids: the batches have no ids. Collate them as `ViewsWithIds`.")
            self._ids.append(ids)
        if len(self._updates) >= self._flush_every:
            self.flush()

    def on_save(  # noqa: D102
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.flush()

    def on_train_end(  # noqa: D102
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.flush()
        if self._record is not None:
            self._record.finish()

    def flush(self) -> None:
        """Write the rows held on the device. Every process of a distributed run must call this."""
        if self._updates:
            if self._trainer.accelerator.num_processes > 1:
                by_process = gather_object([self._ids])
                self._ids = [[name for ids in parts for name in ids] for parts in zip(*by_process, strict=True)]
            self._write(self._gather(self._pack(self._updates)))

    def rescue(self) -> None:
        """Write the rows held on the device after an error, without the other processes."""
        if not self._updates or self._record is None:
            return
        try:
            figures = self._pack(self._updates)
            if self._trainer.accelerator.num_processes > 1:
                figures[:, : len(self._views)] = torch.nan  # the other processes' shares are missing
                self._ids = [None] * len(self._ids)
            self._write(figures)
        except Exception as error:  # a full disk or a lost device must not hide the error that ended training
            logger.warning(f"The last {len(self._updates)} rows of the conflict record could not be written: {error}")

    @torch.no_grad()
    def _gather(self, figures: Tensor) -> Tensor:
        if self._trainer.accelerator.num_processes > 1:
            # By now, gradients are the same in every process, but each process has only its share of the losses.
            views = len(self._views)
            losses = figures[:, :views].contiguous()
            figures[:, :views] = self._trainer.accelerator.reduce(losses, reduction="mean")
        return figures

    def _write(self, figures: Tensor) -> None:
        if self._record is not None:
            self._record.append(self._rows(figures.cpu().double()))
        self._updates, self._when, self._ids = [], [], []

    def _start(self) -> None:
        self._views: list[str] = []
        self._seen: AlignedUpdate | None = None
        self._when: list[tuple[Row, Row]] = []
        self._updates: list[AlignedUpdate] = []
        self._ids: list[list[str] | None] = []

    @torch.no_grad()
    def _pack(self, updates: Sequence[AlignedUpdate]) -> Tensor:
        """Return a tensor (updates, figures) of losses, mean weights, loss scale and Gramians."""
        gramians = torch.stack([update.gramians.sum(0) for update in updates])[:, None]
        if (groups := self._groups) is not None:
            gramians = torch.cat([gramians, torch.stack([groups.gramians(update.products) for update in updates])], 1)
        weights = torch.stack([update.weights.mean(0) for update in updates])
        losses, scales = [], []
        for update in updates:
            assert update.losses is not None  # set by the trainer
            losses += [update.losses[view] for view in self._views]
            scales.append(gramians.new_ones(()) if update.loss_scale is None else update.loss_scale)
        columns = [torch.stack(losses).reshape(len(updates), -1), weights, torch.stack(scales)[:, None]]
        return torch.cat([*(column.to(gramians) for column in columns), gramians.flatten(1)], 1)

    def _rows(self, figures: Tensor) -> list[Row]:
        k = len(self._views)
        losses, weights, scale, gramians = figures.split([k, k, 1, figures.shape[1] - 2 * k - 1], dim=1)
        gramians = gramians.unflatten(1, (-1, k, k))
        conflict = conflicts(gramians[:, 0])
        statistics = gradient_statistics(gramians, self._views)
        for view in self._views:
            statistics[f"grad_norm_{view}"] = statistics[f"grad_norm_{view}"] / scale
        columns = {name: values[:, 0] for name, values in statistics.items()}
        columns |= {f"weight_{view}": weights[:, i] for i, view in enumerate(self._views)}
        columns |= {f"loss_{view}": losses[:, i] for i, view in enumerate(self._views)}
        columns = {name: values.tolist() for name, values in columns.items()}
        rows = []
        for i, ((when, skipped), conflicting) in enumerate(zip(self._when, conflict.tolist(), strict=True)):
            row = {**when, "conflict": None if math.isnan(conflicting) else bool(conflicting), **skipped}
            row |= {name: _number(values[i]) for name, values in columns.items()}
            if self._has_ids:
                row["ids"] = self._ids[i]
            if self._groups is not None:
                row |= self._module_columns(
                    self._groups, gramians[i, 1:], {name: v[i, 1:] for name, v in statistics.items()}
                )
            rows.append(row)
        return rows

    def _module_columns(
        self, groups: ParameterGroups, gramians: Tensor, statistics: dict[str, Tensor]
    ) -> dict[str, list[Any]]:
        # Frozen modules and dropped layers have no gradient.
        indices = (gramians != 0).flatten(1).any(1).nonzero().flatten()
        columns: dict[str, list[Any]] = {"module": [groups.groups[index] for index in indices]}
        for name, values in statistics.items():
            if not name.startswith("norm_ratio_"):  # follows from the norms
                columns[f"module_{name}"] = [_number(value) for value in values[indices].tolist()]
        return columns


def _number(value: float) -> float | None:
    return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
