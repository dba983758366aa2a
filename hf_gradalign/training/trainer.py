"""The `Trainer` subclass: several views of a batch, one aligned update."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, Trainer
from transformers.trainer_utils import TrainOutput
from transformers.utils import logging

from hf_gradalign.alignment import RunningMeans, ViewGradients, conflict_statistics
from hf_gradalign.training.arguments import GradientAlignmentArguments
from hf_gradalign.training.conflict_record import ConflictRecord
from hf_gradalign.training.loss import WeightedCrossEntropy, class_weights_of, items_weight
from hf_gradalign.training.update_boundaries import UpdateBoundaries

logger = logging.get_logger(__name__)

ALIGNMENT_STATE_NAME = "alignment_state.json"


class GradientAlignmentTrainer(Trainer):
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
    `cosine_<a>_<b>`, `norm_ratio_<b>_<a>`, `grad_norm_<view>`, `weight_<view>`, `loss_<view>`.

    Args:
        model: As for `Trainer`.
        args: As for `Trainer`, with the arguments of alignment.
        kwargs: As for `Trainer`.

    Raises:
        ValueError: If the model's class weights do not fit its labels, or the run is set up in a way in which the
            views' gradients could not be kept apart (DataParallel, DeepSpeed, FSDP, optimisers that update within the
            backward pass).
    """

    args: GradientAlignmentArguments

    # compute_loss scales the loss. Left to itself the base class takes any model whose forward has **kwargs to have
    # scaled its own, and accumulates a sum where it should accumulate a mean.
    loss_is_scaled_for_ga = True

    def __init__(self, model: PreTrainedModel | nn.Module, args: GradientAlignmentArguments, **kwargs: Any) -> None:
        self.class_weights = class_weights_of(getattr(model, "config", None))
        if kwargs.get("compute_loss_func") is not None:
            self.class_weights = None  # a loss of the user's own weighs as it likes
        if self.class_weights is not None:
            kwargs["compute_loss_func"] = WeightedCrossEntropy(self.class_weights, args.label_smoothing_factor)
        super().__init__(model=model, args=args, **kwargs)
        self._refuse_unfit_setup()
        self.model_accepts_loss_kwargs = False
        self.alignment_method = args.make_method()
        self.conflict_record = ConflictRecord()
        self._since_last_log = RunningMeans()
        self._view_losses: dict[str, Tensor] = {}
        self._view_gradients: ViewGradients | None = None
        self.add_callback(UpdateBoundaries(self))

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
        if not is_view_batch(inputs):
            return super().training_step(model, inputs, num_items_in_batch)
        totals = num_items_in_batch if num_items_in_batch is not None else {}
        if self._view_gradients is None:
            self._view_gradients = ViewGradients(model.parameters())

        losses = {}
        for view, view_inputs in inputs.items():
            with self._view_gradients.accumulate(view):
                losses[view] = super().training_step(model, view_inputs, totals.get(view))
            self._view_losses[view] = self._view_losses.get(view, 0) + losses[view]

        if self.accelerator.sync_gradients:
            gramian = self._view_gradients.gramian()
            weights = self.alignment_method(gramian)
            self._record_update(gramian, weights)
            self._view_gradients.combine(weights)
        return torch.stack(list(losses.values())).mean()

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
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        if not batches:
            return batches, None
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
        super().log(logs, start_time)

    def _inner_training_loop(self, *args: Any, **kwargs: Any) -> TrainOutput:
        # A second train(), or a start with a smaller batch, is a new run; a resumed one loads its state further down.
        self.alignment_method = self.args.make_method()
        self.conflict_record = ConflictRecord()
        self._since_last_log = RunningMeans()
        return super()._inner_training_loop(*args, **kwargs)

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        # Left to itself the base class trains one more update when a finished run is resumed.
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
        if not self.control.should_training_stop:
            super()._run_epoch(*args, **kwargs)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Floating-point operations of a batch, summed over its views."""
        if is_view_batch(inputs):
            return sum(super(GradientAlignmentTrainer, self).floating_point_ops(view) for view in inputs.values())
        return super().floating_point_ops(inputs)

    def start_update(self) -> None:
        """Forget what an update that was given up (out of memory, interrupted) may have left behind."""
        self._view_gradients = None
        self._view_losses = {}

    def _record_update(self, gramian: Tensor, weights: Tensor) -> None:
        statistics = conflict_statistics(gramian, weights, self._view_gradients.views)
        if (scaler := getattr(self.accelerator, "scaler", None)) is not None:
            for name in [name for name in statistics if name.startswith("grad_norm_")]:
                statistics[name] = statistics[name] / scaler.get_scale()
        for view, loss in self._view_losses.items():
            statistics[f"loss_{view}"] = loss
        self._view_losses = {}
        self._since_last_log.update(statistics)
        self.conflict_record.update(int(self.state.epoch or 0), gramian)

    def _refuse_unfit_setup(self) -> None:
        if self.args.n_gpu > 1:
            raise ValueError(
                f"{self.args.n_gpu} GPUs in one process would be used through DataParallel, which cannot keep the "
                "views' gradients apart; start one process a GPU with `torchrun --nproc_per_node N` or "
                "`accelerate launch`, or show one GPU only (CUDA_VISIBLE_DEVICES=0)"
            )
        optimiser = str(getattr(self.args.optim, "value", self.args.optim))
        if "lomo" in optimiser or "layerwise" in optimiser:
            raise ValueError(
                f"--optim {optimiser} updates parameters within the backward pass, before the views' gradients can be "
                "aligned; use another optimiser, such as adamw_torch"
            )
        if self.is_deepspeed_enabled or self.is_fsdp_enabled:
            owner = "DeepSpeed" if self.is_deepspeed_enabled else "FSDP"
            raise ValueError(f"{owner} owns the gradients and is not supported; use DDP (`torchrun`)")

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.args.should_save:
            state = {
                "method": self.args.align_gradients,
                "method_state": self.alignment_method.state_dict(),
                "since_last_log": self._since_last_log.state_dict(),
                "conflict_record": self.conflict_record.state_dict(),
            }
            Path(output_dir, ALIGNMENT_STATE_NAME).write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        path = Path(checkpoint, ALIGNMENT_STATE_NAME)
        if not path.is_file():
            logger.warning(
                f"{checkpoint} has no {ALIGNMENT_STATE_NAME}: the alignment method starts anew (the checkpoint was "
                "not written by GradientAlignmentTrainer, or with save_only_model)."
            )
            return
        state = json.loads(path.read_text(encoding="utf-8"))
        if state["method"] == self.args.align_gradients:
            self.alignment_method.load_state_dict(state["method_state"])
        else:
            logger.warning(
                f"{checkpoint} was trained with --align_gradients {state['method']}; this run goes on with "
                f"{self.args.align_gradients}, which starts anew."
            )
        self._since_last_log.load_state_dict(state["since_last_log"])
        self.conflict_record.load_state_dict(state["conflict_record"])


def is_view_batch(inputs: Any) -> bool:
    """Whether a batch maps views to model inputs, rather than being model inputs itself."""
    return isinstance(inputs, Mapping) and len(inputs) > 0 and all(isinstance(v, Mapping) for v in inputs.values())


__all__ = ["ALIGNMENT_STATE_NAME", "GradientAlignmentTrainer", "is_view_batch"]
