"""The `Trainer` subclass that combines several views of a batch into one aligned update."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

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
    AlignmentScope,
    ConflictCounts,
    ParameterGroups,
    ViewGradients,
)
from hf_gradalign.training.arguments import GradientAlignmentArguments
from hf_gradalign.training.compilation import prepare_for_compile, shares_gradient_storage, uses_cuda_graphs
from hf_gradalign.training.conflicts.record import RecordFormat
from hf_gradalign.training.conflicts.recorder import ConflictRecorder
from hf_gradalign.training.conflicts.totals import ConflictTotals
from hf_gradalign.training.dataset_checks import check_datasets, datasets_with_epoch, warn_about_lost_epochs
from hf_gradalign.training.distributed import is_sharded, prepare_for_fsdp
from hf_gradalign.training.learning_rates import check_split_rates, split_parameter_groups, uses_split_rates
from hf_gradalign.training.loss import weight_by_view
from hf_gradalign.training.mean_loss_trainer import MeanLossTrainer
from hf_gradalign.training.nonfinite import MicroBatch, NonFiniteGuard
from hf_gradalign.training.setup_checks import check_metric_exists, check_options, check_supported_setup
from hf_gradalign.training.view_batch import (
    ViewBatchCollator,
    check_same_views,
    explain_failed_collator,
    is_transformers_collator,
    is_view_batch,
    wrap_longest_views,
)

logger = logging.get_logger(__name__)

ALIGNMENT_STATE_NAME = "alignment_state.json"
_BY_LENGTH = ("group_by_length", "batch_rebalance")


class GradientAlignmentTrainer(MeanLossTrainer):
    """Dual-path training with gradient alignment (arXiv 2509.20682) on the Hugging Face `Trainer`.

    A training batch maps the name of each view to its model inputs, `{"clean": {...}, "augmented": {...}}`. Each view
    takes its own forward and backward pass through the base class, which handles autocast, loss scaling, accumulation
    and DDP. At the update, the views' gradients are combined by the alignment method. Ordinary batches and all
    evaluations are handled as in `Trainer`. Nothing here is specific to audio.

    The loss is a mean over items, exact for micro-batches of any size on any number of processes, and weighted by class
    with `model.config.class_weights`. A `compute_loss_func`, or the `compute_loss` of a subclass, must return the mean
    over the items of a micro-batch (`MeanLossTrainer`).

    At every logging step, these means over the updates since the last log are logged: `conflict_rate`,
    `cosine_<a>_<b>`, `norm_ratio_<b>_<a>`, `grad_norm_<view>`, `weight_<view>`, `loss_<view>`. With `on_nonfinite`
    "skip", `skipped_updates` counts the skipped updates of the run so far.

    Args:
        model: As for `Trainer`. Without a model, `model_init` makes one at the start of every training.
        args: As for `Trainer`, with the arguments of alignment.
        batch_transform: Applied to each training batch on the device, before anything else. Use it for work that is
            cheaper there than in the loader's workers, such as augmentation. It is not applied in evaluations.
        kwargs: As for `Trainer`. A `data_collator` must handle views (wrap any collator in `ViewBatchCollator`).
            Transformers collators, such as the Trainer's default, are applied to each view.

    Raises:
        ValueError: If the arguments are of another class, the model's class weights do not match its labels, the names
            to align match none of its parameters, gradients cannot be aligned in this setup (`check_supported_setup`),
            or an option of the Trainer would fail later (`check_options`).

    Attributes:
        aligner: Combines the views' gradients. Holds the alignment method with its state.
        last_update: The last aligned update.
        conflict_recorder: Writes the conflict record, if one was requested.
        nonfinite: Detects non-finite losses and gradients and counts skipped updates.
        micro_batches: Losses and item ids of the current update, by micro-batch.
        grad_norm: Norm of the last update's gradient, on the device.
        averaged_checkpoints: Number of checkpoints that were averaged at the end of training; 0 if none.
    """

    def __init__(
        self,
        model: PreTrainedModel | nn.Module | None = None,
        args: GradientAlignmentArguments | None = None,
        *,
        batch_transform: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(args, GradientAlignmentArguments | None):
            raise ValueError(
                f"args must be GradientAlignmentArguments, got {type(args).__name__}: GradientAlignmentArguments takes "
                "the options of TrainingArguments and those of the alignment"
            )
        self.batch_transform = batch_transform
        super().__init__(model=model, args=args or GradientAlignmentArguments(), **kwargs)
        if is_transformers_collator(self.data_collator):
            self.data_collator = ViewBatchCollator(self.data_collator)
        if isinstance(self.data_collator, ViewBatchCollator):
            self.data_collator.use_model(self.model)
            if self.args.train_sampling_strategy in _BY_LENGTH:
                self.data_collator.left_out = self.args.length_column_name
        check_supported_setup(self)
        check_options(self)
        check_split_rates(self)
        self.nonfinite = NonFiniteGuard(self)
        self._begin_run()
        self.micro_batches: list[MicroBatch] = []
        self.grad_norm: Tensor | None = None
        self._ids: list[Sequence[str]] = []
        self._view_losses: dict[str, Tensor] = {}
        self._view_gradients: ViewGradients | None = None
        self._has_checked_views = False
        self.conflict_recorder: ConflictRecorder | None = None
        if self.args.conflict_record != "none":
            file_format = cast(RecordFormat, self.args.conflict_record)
            self.conflict_recorder = ConflictRecorder(
                self, file_format, self.args.conflict_record_modules, self.args.conflict_record_ids
            )
            self.add_callback(self.conflict_recorder)
        self.add_callback(self.nonfinite)

    def _begin_run(self) -> None:
        """Reset the state of a run. `model_init` or a hyperparameter search may have changed model and arguments."""
        self.weigh_classes()
        names = [name for name, _ in self.accelerator.unwrap_model(self.model).named_parameters()]
        scope = cast(AlignmentScope, self.args.alignment_scope)
        groups = ParameterGroups(names, scope, self.args.alignment_modules, self.args.alignment_parameters)
        weights = cast("dict[str, float] | None", self.args.view_weights)
        self.aligner = Aligner(self.args.make_method(), groups, weights)
        self._totals = ConflictTotals()
        self.last_update: AlignedUpdate | None = None
        self._passes_without_update = 0
        self.nonfinite.reset()

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Create the optimizer, with the learning rates of `head_learning_rate` and `layerwise_lr_decay`."""
        if self.optimizer is not None or not uses_split_rates(self.args):
            return super().create_optimizer(model)
        check_split_rates(self)  # each trial of a search has its own arguments
        optimizer = super().create_optimizer(model)
        split_parameter_groups(optimizer, self.model if model is None else model, self.args)
        return optimizer

    def training_step(  # ty: ignore[incompatible-method-override]  # item weights are by view
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        num_items_in_batch: Mapping[str, Tensor] | Tensor | None = None,
    ) -> Tensor:
        """Run one micro-batch: a forward and backward pass per view and, at the update, the aligned combination.

        Args:
            model: The (wrapped) model.
            inputs: A batch of views, or an ordinary batch.
            num_items_in_batch: The update's total item weight, by view for a batch of views.

        Returns:
            The mean of the views' losses, detached and multiplied by the micro-batch's share of the update's items.
        """
        if is_view_batch(inputs):
            totals = {} if num_items_in_batch is None else cast(Mapping[str, Tensor], num_items_in_batch)
            losses = self._step_of_views(model, inputs, totals)
            loss = self._mean_loss(losses)
        else:
            loss = self.run_pass(model, inputs, cast(Tensor | None, num_items_in_batch))
            losses = {"": loss}
        index = len(self.micro_batches)
        self.micro_batches.append(MicroBatch(losses, self._ids[index] if index < len(self._ids) else ()))
        if self.args.on_nonfinite == "skip":
            # A skipped update must not make the logged loss NaN.
            since = max(self.state.global_step - self._globalstep_last_logged, 1)
            return torch.where(loss.isfinite(), loss, self._tr_loss / since)
        return loss

    def _step_of_views(
        self, model: nn.Module, inputs: dict[str, Any], totals: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Run the forward and backward pass of each view; return the losses by view."""
        if self._view_gradients is None:
            self._view_gradients = ViewGradients(model.parameters(), shares_gradient_storage(model, self.args))

        losses = {}
        for view, view_inputs in inputs.items():
            with self._view_gradients.accumulate(view):
                loss = self.run_pass(model, view_inputs, totals.get(view))
            losses[view] = loss.clone() if uses_cuda_graphs(self.args) else loss
            total = self._view_losses.get(view)
            self._view_losses[view] = losses[view] if total is None else total + losses[view]

        if self.accelerator.sync_gradients:
            self._record_update(self.aligner.align(self._view_gradients))
        return losses

    def _mean_loss(self, losses: dict[str, Tensor]) -> Tensor:
        stacked = torch.stack(list(losses.values()))
        scale = self.aligner.view_scale(list(losses), stacked.device)
        return stacked.mean() if scale is None else (stacked * scale).mean()

    def get_batch_samples(  # ty: ignore[incompatible-method-override]  # item weights are by view
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list[Any], Mapping[str, Tensor] | Tensor | None]:
        """Return the update's micro-batches and the total weight of their items over all processes, by view."""
        self.start_update()
        try:
            batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        except Exception as error:
            explain_failed_collator(self.data_collator, self.train_dataset, error)
            raise
        self._ids = [getattr(batch, "ids", ()) for batch in batches]
        if not batches:
            return batches, None
        if self.batch_transform is not None:
            batches = [self.batch_transform(self._prepare_inputs(batch)) for batch in batches]
        by_view = is_view_batch(batches[0])
        self._check_views(list(batches[0]) if by_view else [])
        totals = weight_by_view(batches, self.class_weights, device)
        if self.args.world_size > 1 and self.args.average_tokens_across_devices:
            gathered = self.accelerator.reduce(torch.stack(list(totals.values())), reduction="sum")
            totals = dict(zip(totals, gathered.unbind(), strict=True))
        return batches, totals if by_view else totals[""]

    def _check_views(self, views: list[str]) -> None:
        """Check once that all processes have the same views, and warn if there is nothing to align."""
        if self._has_checked_views:
            return
        self._has_checked_views = True
        if self.args.world_size > 1:
            check_same_views(views)
        if self.args.align_gradients != "none" and len(views) < 2:
            problem = f"There is only one view, {views[0]}" if views else "The training batches have no views"
            logger.warning(f"{problem}: --align_gradients {self.args.align_gradients} has no effect.")

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, including the means of the conflict statistics since the last training log."""
        if "loss" in logs and len(since_last_log := self._totals.since_last_log):
            over_processes = self.accelerator.reduce if self.args.world_size > 1 else None
            logs = {**logs, **since_last_log.means(over_processes)}
            since_last_log.reset()
        if "loss" in logs and self.args.on_nonfinite == "skip":
            logs = {**logs, "skipped_updates": self.nonfinite.skipped}
        super().log(logs, start_time)

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        """Train as the base class does. If training fails, the conflict record still has all updates.

        Raises:
            ValueError: If a stream ends before an update is complete, twice in a row.
            FloatingPointError: If a loss or gradient is not finite and `on_nonfinite` is "stop", or "skip" and too many
                updates are skipped. The message names the update, the views, parameters and items.
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
        # Each train(), and each restart with a smaller batch size, is a new run. A resumed run loads its state later.
        check_metric_exists(self)
        check_datasets(self)
        warn_about_lost_epochs(self.train_dataset, self.args)
        self._begin_run()
        model = self.model
        assert model is not None
        if self.args.torch_compile:
            prepare_for_compile(model, self.args)
        if self.is_fsdp_enabled or is_sharded(model):
            prepare_for_fsdp(model, self.accelerator)
        if self.args.ddp_static_graph:
            # torch cannot skip the reduction in the first backward pass of a static graph.
            self.accelerator.gradient_state.plugin_kwargs["sync_each_batch"] = True
        return super()._inner_training_loop(*args, **kwargs)

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        # When a finished run is resumed, the base class would train one more update.
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
        if not self.control.should_training_stop:
            # accelerate's loaders pass the epoch to the sampler or to the data set, but not to both. A data set whose
            # items depend on the epoch (`ViewDataset`) always needs it, even in a resumed epoch.
            for dataset in datasets_with_epoch(self.train_dataset):
                dataset.set_epoch(int(self.state.epoch or 0))
            before = self.state.global_step
            super()._run_epoch(*args, **kwargs)
            # One pass may have no batches left after a resume, but not two passes in a row.
            self._passes_without_update = 0 if self.state.global_step > before else self._passes_without_update + 1
            if self._passes_without_update > 1 and not self.control.should_training_stop:
                raise ValueError(
                    "the training set ends before an update is complete, so training would never end: an update needs "
                    f"{self.args.gradient_accumulation_steps} batches (--gradient_accumulation_steps) of "
                    f"{self.args.train_batch_size} items on each process"
                )

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Return the floating-point operations of a batch, summed over its views."""
        return sum(map(super().floating_point_ops, inputs.values() if is_view_batch(inputs) else [inputs]))

    def _track_num_input_tokens(self, inputs: dict[str, Any]) -> None:
        for view_inputs in inputs.values() if is_view_batch(inputs) else [inputs]:
            super()._track_num_input_tokens(view_inputs)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        """Return the training sampler. A sampler that groups by length uses the longest view of each item."""
        dataset = self.train_dataset if train_dataset is None else train_dataset
        if self.args.train_sampling_strategy in _BY_LENGTH:
            dataset = wrap_longest_views(dataset, self.args.length_column_name)
        return super()._get_train_sampler(cast(Dataset, dataset))

    def start_update(self) -> None:
        """Clear what an unfinished update (out of memory, interrupted) may have left."""
        self.micro_batches = []
        self._view_gradients = None
        self._view_losses = {}

    def _record_update(self, update: AlignedUpdate) -> None:
        loss_scale = None
        if (scaler := getattr(self.accelerator, "scaler", None)) is not None:
            # get_scale() would make the host wait.
            loss_scale = scaler.scale(torch.ones((), device=update.gramians.device))
        self.last_update = replace(update, losses=self._view_losses, loss_scale=loss_scale)
        self._view_losses = {}
        self._totals.add(int(self.state.epoch or 0), self.last_update)

    @property
    def conflict_counts(self) -> ConflictCounts:
        """Conflicts by epoch."""
        return self._totals.counts

    @property
    def alignment_method(self) -> AlignmentMethod:
        """The alignment method with its state."""
        return self.aligner.method

    @property
    def parameter_groups(self) -> ParameterGroups:
        """The groups of parameters that are aligned together."""
        return self.aligner.groups

    def process_state(self) -> dict[str, Any]:
        """Return the base class's running sums and the statistics since the last log."""
        return {**super().process_state(), "since_last_log": self._totals.since_last_log.state_dict()}

    def load_process_state(self, state: dict[str, Any]) -> None:
        """Restore what `process_state` returned."""
        super().load_process_state(state)
        self._totals.since_last_log.load_state_dict(state["since_last_log"])

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.conflict_recorder is not None:
            self.conflict_recorder.flush()  # the record must have every row that this checkpoint covers
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
                f"{checkpoint} has no {ALIGNMENT_STATE_NAME}, so the alignment method starts over (the checkpoint was "
                "not written by GradientAlignmentTrainer, or was written with save_only_model)."
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
        self.conflict_counts.load_state_dict(state["conflict_counts"])
        self.nonfinite.skipped = state["skipped_updates"]
