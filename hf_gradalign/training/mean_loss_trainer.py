"""A `Trainer` whose loss is a mean over the items of an update, with class weights."""

from typing import Any

import torch
from torch import Tensor, nn

from hf_gradalign.training.loss import (
    LossOfMicroBatch,
    WeightedCrossEntropy,
    are_class_indices,
    items_weight,
    loss_terms,
    read_class_weights,
)
from hf_gradalign.training.selecting_trainer import SelectingTrainer


class MeanLossTrainer(SelectingTrainer):
    """Trains with the mean loss over items, exact for micro-batches of any size on any number of processes.

    The loss is the one that the model returns or, with class weights in `model.config.class_weights`, the weighted
    cross-entropy, unless the model has a margin loss (`has_margin_loss`), which it weights itself. A
    `compute_loss_func`, or the `compute_loss` of a subclass, can define another loss. It must return the mean over the
    items of a micro-batch, whose number it gets as `num_items_in_batch` (not the number of the whole update). Of the
    losses that weight items, only `WeightedCrossEntropy` stays exact. (If the last batch of an epoch cannot be divided
    by the number of processes, accelerate repeats items.)

    Attributes:
        class_weights: Shape (C,), on the device; None without class weights.
    """

    # By default, the base class assumes that a model whose forward takes **kwargs scales its own loss, and would
    # accumulate a sum instead of a mean. With False, it divides the loss of each micro-batch (`run_pass`).
    loss_is_scaled_for_ga = False

    def __init__(self, **kwargs: Any) -> None:
        self.class_weights: Tensor | None = None
        self._weighted_loss: WeightedCrossEntropy | None = None
        super().__init__(**kwargs)
        self.model_accepts_loss_kwargs = False
        given = self.compute_loss_func
        self._has_given_loss = given is not None
        if isinstance(given, WeightedCrossEntropy):
            # Moved once instead of at every loss.
            self.class_weights = given.class_weights = given.class_weights.to(self.args.device)
            self._weighted_loss = given
        elif given is not None:
            self.compute_loss_func = LossOfMicroBatch(given)

    def weigh_classes(self) -> None:
        """Use the weighted loss if the configuration has class weights, unless the model applies them itself."""
        if self._has_given_loss:
            return  # it applies the weights itself
        weights = read_class_weights(getattr(self.model, "config", None))
        # Moved once, to avoid a wait at every loss.
        self.class_weights = None if weights is None else weights.to(self.args.device)
        self._weighted_loss = (
            None
            if self.class_weights is None or getattr(self.model, "has_margin_loss", False)
            else WeightedCrossEntropy(self.class_weights, self.args.label_smoothing_factor)
        )
        self.compute_loss_func = self._weighted_loss

    def run_pass(self, model: nn.Module, inputs: dict[str, Any], total: Tensor | None) -> Tensor:
        """Run the forward and backward pass of a micro-batch.

        Args:
            model: The (wrapped) model.
            inputs: Model inputs.
            total: Weight of the update's items over all processes (`items_weight`); None for a whole update.

        Returns:
            The micro-batch's part of the update's mean loss, a detached scalar.
        """
        inputs = self._prepare_inputs(inputs)  # so that the weight is computed on the device
        weight = items_weight(inputs, self.class_weights)
        # The base class divides the loss by this number, even if a subclass overrides `compute_loss`.
        self.current_gradient_accumulation_steps = 1
        if total is not None:
            # DDP averages gradients over processes, but the shares must be summed.
            processes = self.args.world_size if self.args.average_tokens_across_devices else 1
            self.current_gradient_accumulation_steps = total / (weight.to(total.device) * processes)
        return super().training_step(model, inputs, weight).reshape(())

    def compute_loss(  # ty: ignore[incompatible-method-override]  # the weight is always a tensor
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        """Return the mean loss of a micro-batch.

        Args:
            model: The (wrapped) model.
            inputs: Model inputs.
            return_outputs: Whether to also return the model's outputs.
            num_items_in_batch: Weight of the micro-batch's items, for the losses of subclasses; not used here.
        """
        labels = inputs.get("labels")  # read first, because the base class may remove them
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True)
        if model.training and are_class_indices(labels):
            # The mean over no items is NaN, but its share must be 0.
            loss = torch.where((labels != -100).any(), loss, 0.0)
        if self.class_weights is not None and not model.training and are_class_indices(labels):
            self.record_loss(loss_terms(loss, outputs, labels, self.class_weights, self._weighted_loss))
        return (loss, outputs) if return_outputs else loss
