"""A `Trainer` whose loss is a mean over the items of an update, with class weights."""

from typing import Any

import torch
from torch import Tensor, nn

from hf_gradalign.training.loss import (
    LossOfMicroBatch,
    WeightedCrossEntropy,
    are_classes,
    class_weights_of,
    items_weight,
    loss_terms,
)
from hf_gradalign.training.selecting_trainer import SelectingTrainer


class MeanLossTrainer(SelectingTrainer):
    """Trains with the mean loss over items, exact for micro-batches of any size on any number of processes.

    The loss is what the model returns or, with class weights in `model.config.class_weights`, the weighted
    cross-entropy, unless the model has a margin loss (`has_margin_loss`) that it weights itself. It can also be that of
    a `compute_loss_func`, or of the `compute_loss` of a subclass. Each of them returns the mean over the items of a
    micro-batch, and is given their number, not that of the update, as `num_items_in_batch`. Of the losses that weight
    their items, only a `WeightedCrossEntropy` stays exact. (If the last batch of an epoch cannot be divided by the
    number of processes, accelerate repeats items.)

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
            # Moved once, and not at every loss.
            self.class_weights = given.class_weights = given.class_weights.to(self.args.device)
            self._weighted_loss = given
        elif given is not None:
            self.compute_loss_func = LossOfMicroBatch(given)

    def weigh_classes(self) -> None:
        """Use the weighted loss if the model's configuration has class weights and the model has no loss of its own."""
        if self._has_given_loss:
            return  # it does its own weighting
        weights = class_weights_of(getattr(self.model, "config", None))
        # Moving them once avoids a wait at every loss.
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
        inputs = self._prepare_inputs(inputs)  # a weight on the host would have to be copied
        weight = items_weight(inputs, self.class_weights)
        # The base class divides the loss by this number, also if a subclass overrides `compute_loss`.
        self.current_gradient_accumulation_steps = 1
        if total is not None:
            # DDP averages the gradients over processes, and the shares must be summed.
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
        labels = inputs.get("labels")  # before the base class, which may remove them
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True)
        if model.training and are_classes(labels):
            # The mean over no items is not a number, and must count with a share of 0.
            loss = torch.where((labels != -100).any(), loss, 0.0)
        if self.class_weights is not None and not model.training and are_classes(labels):
            self.record_loss(loss_terms(loss, outputs, labels, self.class_weights, self._weighted_loss))
        return (loss, outputs) if return_outputs else loss
