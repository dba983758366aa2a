"""The `Trainer` subclass: several views of a batch, one aligned update."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler
from transformers import PreTrainedModel
from transformers.trainer_utils import TrainOutput
from transformers.utils import logging

from hf_gradalign.alignment import (
    AlignedUpdate,
    Aligner,
    AlignmentMethod,
    ConflictCounts,
    ParameterGroups,
    RunningMeans,
    ViewGradients,
    conflicts,
)
from hf_gradalign.training.arguments import GradientAlignmentArguments
from hf_gradalign.training.conflicts.recorder import ConflictRecorder
from hf_gradalign.training.distributed import is_sharded, prepare_for_fsdp
from hf_gradalign.training.loss import WeightedCrossEntropy, class_weights_of, items_weight
from hf_gradalign.training.nonfinite import MicroBatch, NonFiniteGuard
from hf_gradalign.training.resumable_trainer import ResumableTrainer
from hf_gradalign.training.setup_checks import (
    check_metric_exists,
    check_options,
    check_supported_setup,
    shares_gradient_storage,
)
from hf_gradalign.training.view_batch import ViewBatchCollator, is_view_batch, with_longest_view

logger = logging.get_logger(__name__)

ALIGNMENT_STATE_NAME = "alignment_state.json"


class GradientAlignmentTrainer(ResumableTrainer):
    """Dual-path training with gradient alignment (arXiv 2509.20682) on the Hugging Face `Trainer`.

    A training batch is a mapping from a view's name to that view's model inputs, `{"clean": {...}, "augmented":
    {...}}`. Each view takes a forward and a backward pass of its own through the base class, so that autocast, loss
    scaling, accumulation and DDP are the base class's; at the update the views' gradients are combined as the
    alignment method says. An ordinary batch (and every evaluation) is handled as by `Trainer`. The trainer knows
    nothing of audio.

    The loss is a mean over items, put together exactly from micro-batches and processes of any size: with class
    weights in `model.config.class_weights` the weighted cross-entropy, else what the model returns. A
    `compute_loss_func` of your own must return the mean over the items it is given. (Where the last batch of an epoch
    does not divide by the processes, accelerate repeats items to fill it, as in every `Trainer`.)

    Logged at the Trainer's logging steps, as means over the updates since the last: `conflict_rate`,
    `cosine_<a>_<b>`, `norm_ratio_<b>_<a>`, `grad_norm_<view>`, `weight_<view>`, `loss_<view>`. With
    `on_nonfinite` "skip" also `skipped_updates`, of the run so far.

    Args:
        model: As for `Trainer`; without one `model_init` makes it, at the start of every training.
        args: As for `Trainer`, with the arguments of alignment.
        batch_transform: Applied to each training batch when it is on the device, before anything else sees it: what
            costs less there than in the loader's workers, such as augmentation. Evaluation is left alone.
        kwargs: As for `Trainer`. A `data_collator` must know of views (`ViewBatchCollator` teaches any collator);
            without one the Trainer's default is applied to each view.

    Raises:
        ValueError: If the model's class weights do not fit its labels, the names of what is to be aligned do not fit
            its parameters, the run is set up in a way in which the views' gradients could not be kept apart
            (`check_supported_setup`), or an option of the Trainer would fail later (`check_options`).

    Attributes:
        aligner: Combines the views' gradients, with the alignment method and its state.
        last_update: The figures of the last update.
        conflict_counts: Conflicts by epoch.
        conflict_recorder: Writes the conflict record, where one was asked for.
        nonfinite: Watches for losses and gradients that are not finite, and counts the updates that were skipped.
        micro_batches: Losses and items of the update at hand, by micro-batch.
        grad_norm: Norm of the last update's gradient, on the device.
    """

    args: GradientAlignmentArguments

    # compute_loss scales the loss. Left to itself the base class takes any model whose forward has **kwargs to have
    # scaled its own, and accumulates a sum where it should accumulate a mean.
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: PreTrainedModel | nn.Module | None = None,
        args: GradientAlignmentArguments | None = None,
        *,
        batch_transform: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None,
        **kwargs: Any,
    ) -> None:
        self.batch_transform = batch_transform
        self.class_weights: Tensor | None = None
        self._weighted_loss: WeightedCrossEntropy | None = None
        super().__init__(model=model, args=args or GradientAlignmentArguments(), **kwargs)
        if kwargs.get("data_collator") is None:
            self.data_collator = ViewBatchCollator(self.data_collator)
        check_supported_setup(self)
        check_options(self)
        self.model_accepts_loss_kwargs = False
        self.nonfinite = NonFiniteGuard(self)
        self._begin_run()
        self.micro_batches: list[MicroBatch] = []
        self.grad_norm: Tensor | None = None
        self._ids: list[Sequence[str]] = []
        self._view_losses: dict[str, Tensor] = {}
        self._view_gradients: ViewGradients | None = None
        self.conflict_recorder: ConflictRecorder | None = None
        if self.args.conflict_record != "none":
            self.conflict_recorder = ConflictRecorder(
                self, self.args.conflict_record, self.args.conflict_record_modules
            )
            self.add_callback(self.conflict_recorder)
        self.add_callback(self.nonfinite)

    def _begin_run(self) -> None:
        """Start afresh, with the model and the arguments as they are now (`model_init` or a search may change both)."""
        self._weigh_classes()
        self.aligner = Aligner(self.args.make_method(), self._make_groups(), self.args.view_weights)
        self.conflict_counts = ConflictCounts()
        self.last_update: AlignedUpdate | None = None
        self._since_last_log = RunningMeans()
        self.nonfinite.reset()

    def _weigh_classes(self) -> None:
        """Take the loss that the model's class weights ask for."""
        if self.compute_loss_func is not self._weighted_loss:
            return  # a loss of the user's own weighs as it likes
        weights = class_weights_of(getattr(self.model, "config", None))
        # Moved once, not with a wait at every loss.
        self.class_weights = None if weights is None else weights.to(self.args.device)
        self._weighted_loss = (
            None
            if self.class_weights is None
            else WeightedCrossEntropy(self.class_weights, self.args.label_smoothing_factor)
        )
        self.compute_loss_func = self._weighted_loss

    def training_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        num_items_in_batch: Mapping[str, Tensor] | Tensor | None = None,
    ) -> Tensor:
        """One micro-batch: every view forward and backward by itself, and at the update their aligned combination.

        Args:
            model: The (wrapped) model.
            inputs: A batch of views, or an ordinary batch.
            num_items_in_batch: The update's total item weight, by view for a batch of views.

        Returns:
            The views' mean loss, detached, scaled for accumulation.
        """
        if is_view_batch(inputs):
            losses = self._step_of_views(model, inputs, num_items_in_batch)
            loss = self._mean_loss(losses)
        else:
            loss = super().training_step(model, inputs, num_items_in_batch)
            losses = {"": loss}
        place = len(self.micro_batches)
        self.micro_batches.append(MicroBatch(losses, self._ids[place] if place < len(self._ids) else ()))
        if self.args.on_nonfinite == "skip":
            # The updates that are skipped do not blot out the loss that is logged for the others.
            since = max(self.state.global_step - self._globalstep_last_logged, 1)
            loss = torch.where(loss.isfinite(), loss, self._tr_loss / since)
        return loss

    def _step_of_views(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Mapping[str, Tensor] | None
    ) -> dict[str, Tensor]:
        """The losses by view."""
        totals = num_items_in_batch if num_items_in_batch is not None else {}
        if self._view_gradients is None:
            self._view_gradients = ViewGradients(model.parameters(), shares_gradient_storage(model, self.args))

        losses = {}
        for view, view_inputs in inputs.items():
            with self._view_gradients.accumulate(view):
                losses[view] = super().training_step(model, view_inputs, totals.get(view))
            self._view_losses[view] = self._view_losses.get(view, 0) + losses[view]

        if self.accelerator.sync_gradients:
            self._record_update(self.aligner.align(self._view_gradients))
        return losses

    def _mean_loss(self, losses: dict[str, Tensor]) -> Tensor:
        stacked = torch.stack(list(losses.values()))
        scale = self.aligner.view_scale(list(losses), stacked.device)
        return stacked.mean() if scale is None else (stacked * scale).mean()

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        """The mean loss of the micro-batch, times its share of the update's items when training."""
        # The base class may take the labels out of the inputs.
        weight = items_weight(inputs, self.class_weights) if model.training and num_items_in_batch is not None else None
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True)
        if weight is not None:
            # DDP takes the mean of the processes' gradients where the sum of their shares is wanted.
            processes = self.args.world_size if self.args.average_tokens_across_devices else 1
            loss = loss / (num_items_in_batch.to(loss.device) / (weight.to(loss.device) * processes))
        return (loss, outputs) if return_outputs else loss

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list[Any], Mapping[str, Tensor] | Tensor | None]:
        """The update's micro-batches and, over all of them (and all processes), the weight of their items by view."""
        self.start_update()
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._ids = [getattr(batch, "ids", ()) for batch in batches]
        if not batches:
            return batches, None
        if self.batch_transform is not None:
            batches = [self.batch_transform(self._prepare_inputs(batch)) for batch in batches]
        by_view = is_view_batch(batches[0])
        totals: dict[str, Tensor] = {}
        for batch in batches:
            for view, view_inputs in batch.items() if by_view else [("", batch)]:
                weight = items_weight(view_inputs, self.class_weights).to(device)
                totals[view] = totals.get(view, 0) + weight
        if self.args.world_size > 1 and self.args.average_tokens_across_devices:
            gathered = self.accelerator.reduce(torch.stack(list(totals.values())), reduction="sum")
            totals = dict(zip(totals, gathered.unbind(), strict=True))
        return batches, totals if by_view else totals[""]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with the means of the conflict statistics since the last training log."""
        if "loss" in logs and len(self._since_last_log):
            over_processes = self.accelerator.reduce if self.args.world_size > 1 else None
            logs = {**logs, **self._since_last_log.means(over_processes)}
            self._since_last_log.reset()
        if "loss" in logs and self.args.on_nonfinite == "skip":
            logs = {**logs, "skipped_updates": self.nonfinite.skipped}
        super().log(logs, start_time)

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        """As the base class; however training ends, the conflict record has all updates.

        Raises:
            FloatingPointError: If a loss or gradient is not finite and `on_nonfinite` is "stop", or "skip" and no
                update is left; the message names the update, the views, parameters and items.
        """
        try:
            return super().train(*args, **kwargs)
        except BaseException:
            if self.conflict_recorder is not None:
                self.conflict_recorder.rescue()
            raise

    def _get_grad_norm(self, *args: Any, **kwargs: Any) -> Any:
        self.grad_norm = super()._get_grad_norm(*args, **kwargs)
        return self.grad_norm

    def _inner_training_loop(self, *args: Any, **kwargs: Any) -> TrainOutput:
        # A second train(), or a start with a smaller batch, is a new run; a resumed one loads its state further down.
        check_metric_exists(self)
        self._begin_run()
        if is_sharded(self.model) or self.is_fsdp_enabled:
            prepare_for_fsdp(self.model, self.accelerator)
        if self.args.ddp_static_graph:
            # torch cannot leave the reduction out in the first of a static graph's backward passes.
            self.accelerator.gradient_state.plugin_kwargs["sync_each_batch"] = True
        return super()._inner_training_loop(*args, **kwargs)

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        # Left to itself the base class trains one more update when a finished run is resumed.
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
        if not self.control.should_training_stop:
            # accelerate's loaders tell the sampler or the data set of the epoch, not both. Items that depend on it
            # (`ViewDataset`) need it always, in a resumed epoch too.
            if hasattr(self.train_dataset, "set_epoch"):
                self.train_dataset.set_epoch(int(self.state.epoch or 0))
            super()._run_epoch(*args, **kwargs)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Floating-point operations of a batch, summed over its views."""
        if is_view_batch(inputs):
            return sum(super(GradientAlignmentTrainer, self).floating_point_ops(view) for view in inputs.values())
        return super().floating_point_ops(inputs)

    def _track_num_input_tokens(self, inputs: dict[str, Any]) -> None:
        for view_inputs in inputs.values() if is_view_batch(inputs) else [inputs]:
            super()._track_num_input_tokens(view_inputs)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        """As the base class's; where it groups by length, an item of views is as long as its longest view."""
        dataset = self.train_dataset if train_dataset is None else train_dataset
        if self.args.train_sampling_strategy in ("group_by_length", "batch_rebalance"):
            dataset = with_longest_view(dataset, self.args.length_column_name)
        return super()._get_train_sampler(dataset)

    def start_update(self) -> None:
        """Forget what an update that was given up (out of memory, interrupted) may have left."""
        self.micro_batches = []
        self._view_gradients = None
        self._view_losses = {}

    def _record_update(self, update: AlignedUpdate) -> None:
        one = torch.ones((), device=update.gramians.device)
        scaler = getattr(self.accelerator, "scaler", None)
        loss_scale = one if scaler is None else scaler.scale(one)  # get_scale() would wait for the device
        self.last_update = replace(update, losses=self._view_losses, loss_scale=loss_scale)
        self._view_losses = {}
        statistics = self.last_update.statistics()
        self._since_last_log.update(statistics)
        conflict = statistics["conflict_rate"] if len(update.views) > 1 else conflicts(update.gramians.sum(0))
        self.conflict_counts.update(int(self.state.epoch or 0), conflict)

    @property
    def alignment_method(self) -> AlignmentMethod:
        """The aligner's method, with its state."""
        return self.aligner.method

    @property
    def parameter_groups(self) -> ParameterGroups:
        """Which parameters are aligned together."""
        return self.aligner.groups

    def _make_groups(self) -> ParameterGroups:
        names = [name for name, _ in self.accelerator.unwrap_model(self.model).named_parameters()]
        return ParameterGroups(
            names, self.args.alignment_scope, self.args.alignment_modules, self.args.alignment_parameters
        )

    def process_state(self) -> dict[str, Any]:
        """The base class's, with the statistics since the last log."""
        return {**super().process_state(), "since_last_log": self._since_last_log.state_dict()}

    def load_process_state(self, state: dict[str, Any]) -> None:
        """Take up where `process_state` left off."""
        super().load_process_state(state)
        self._since_last_log.load_state_dict(state["since_last_log"])

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.conflict_recorder is not None:
            self.conflict_recorder.flush()  # before there is a checkpoint to resume from: no row must be missing then
        super()._save_optimizer_and_scheduler(output_dir)
        if self.args.should_save:
            state = {
                "method": self.args.align_gradients,
                "method_state": self.alignment_method.state_dict(),
                "conflict_counts": self.conflict_counts.state_dict(),
                "skipped_updates": self.nonfinite.skipped,
            }
            Path(output_dir, ALIGNMENT_STATE_NAME).write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        if self.conflict_recorder is not None:
            self.conflict_recorder.resumed_from = Path(checkpoint).parent
        path = Path(checkpoint, ALIGNMENT_STATE_NAME)
        if not path.is_file():
            logger.warning(
                f"{checkpoint} has no {ALIGNMENT_STATE_NAME}: the alignment method starts over (the checkpoint was "
                "not written by GradientAlignmentTrainer, or with save_only_model)."
            )
            return
        state = json.loads(path.read_text(encoding="utf-8"))
        if state["method"] == self.args.align_gradients:
            self.alignment_method.load_state_dict(state["method_state"])
        else:
            logger.warning(
                f"{checkpoint} was trained with --align_gradients {state['method']}; this run uses "
                f"{self.args.align_gradients}, which starts over."
            )
        if "since_last_log" in state:  # as it was before each process had a state of its own
            self._since_last_log.load_state_dict(state["since_last_log"])
        self.conflict_counts.load_state_dict(state["conflict_counts"])
        self.nonfinite.skipped = state.get("skipped_updates", 0)


__all__ = ["ALIGNMENT_STATE_NAME", "GradientAlignmentTrainer"]
