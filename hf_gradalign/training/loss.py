"""Weighted cross-entropy with the class weights of the model's configuration."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeGuard

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PretrainedConfig

from hf_gradalign.training.view_batch import is_view_batch


def read_class_weights(config: PretrainedConfig | None) -> Tensor | None:
    """Return the configuration's `class_weights` as a tensor, or None if it has none.

    Raises:
        ValueError: If there is not one positive, finite weight per label, or the model has a single output.
    """
    weights = getattr(config, "class_weights", None)
    if config is None or weights is None:
        return None
    if config.num_labels == 1:
        raise ValueError(
            f"class_weights {weights} need one output per class, but the model has a single output: load it with "
            "hf_gradalign.models.load_audio_classifier, which gives it two outputs"
        )
    tensor = torch.tensor([float(weight) for weight in weights])
    if len(tensor) != config.num_labels or not bool(((tensor > 0) & torch.isfinite(tensor)).all()):
        raise ValueError(f"class_weights must be {config.num_labels} positive numbers, one per label, got {weights}")
    return tensor


class WeightedCrossEntropy:
    r"""Cross-entropy weighted by class: :math:`\sum_i w_{y_i} l_i / \sum_i w_{y_i}`.

    `GradientAlignmentTrainer` uses it for models with class weights, or as its `compute_loss_func`. The loss is a mean
    over the items of a batch. The trainer combines these means over micro-batches and processes with `items_weight`.
    The `__call__` of a subclass must also accept `reduction`.

    Args:
        class_weights: Shape (C,), positive. The trainer moves them to its device.
        label_smoothing: Fraction of the target spread over all classes, in [0, 1).
    """

    def __init__(self, class_weights: Tensor, label_smoothing: float = 0.0) -> None:
        self.class_weights = class_weights
        self.label_smoothing = label_smoothing

    def __call__(
        self, outputs: Any, labels: Tensor, num_items_in_batch: Tensor | None = None, reduction: str = "mean"
    ) -> Tensor:
        """Return the loss of logits (B, C) and integer labels (B,): the weighted mean or, for "none", each w_y l."""
        logits = outputs["logits"] if isinstance(outputs, dict) else outputs[0]
        weights = self.class_weights.to(logits.device, torch.float32)
        logits = logits.float().view(-1, weights.numel())
        smoothing = self.label_smoothing
        return cross_entropy(logits, labels.view(-1), weight=weights, label_smoothing=smoothing, reduction=reduction)


class LossOfMicroBatch:
    """Calls a `compute_loss_func` with the number of items of its micro-batch, instead of the number of the update.

    A function that divides a sum by `num_items_in_batch` then returns the mean over the items of a micro-batch, as
    functions that take the mean do.

    Args:
        function: Called with the outputs, the labels and `num_items_in_batch`, a scalar tensor: the number of labels
            other than -100, or the batch size if labels are not class indices; None without labels.
    """

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self.function = function

    def __call__(self, outputs: Any, labels: Any, num_items_in_batch: Tensor | None = None) -> Tensor:
        """Return the function's loss."""
        items = items_weight({"labels": labels}, None) if isinstance(labels, Tensor) else None
        return self.function(outputs, labels, num_items_in_batch=items)


def are_class_indices(labels: Any) -> TypeGuard[Tensor]:
    """Return whether labels are class indices."""
    return isinstance(labels, Tensor) and not labels.is_floating_point()


def items_weight(inputs: Mapping[str, Any], class_weights: Tensor | None) -> Tensor:
    """Return the weight of a micro-batch in an update's mean loss.

    Args:
        inputs: Model inputs of one view, or an ordinary batch.
        class_weights: Shape (C,), or None for equal weights.

    Returns:
        Scalar float32 tensor: the sum of the labels' class weights; without class weights the number of labels other
        than -100; the batch size if labels are not class indices.
    """
    labels = inputs.get("labels")
    if are_class_indices(labels):
        # Indexing with a mask instead would make the host wait for the device.
        counts = (labels != -100).float()
        weights = 1.0 if class_weights is None else class_weights.to(labels.device)[labels.clamp(min=0)]
        return (counts * weights).sum()
    tensors = [value for value in inputs.values() if isinstance(value, Tensor)]
    return torch.as_tensor(tensors[0].shape[0] if tensors else 1, dtype=torch.float32)


def weight_by_view(
    batches: Sequence[Mapping[str, Any]], class_weights: Tensor | None, device: torch.device
) -> dict[str, Tensor]:
    """Return the weight of an update's micro-batches (`items_weight`) by view; under "" if they have no views."""
    by_view = is_view_batch(batches[0])
    weights: dict[str, Tensor] = {}
    for batch in batches:
        for view, inputs in batch.items() if by_view else [("", batch)]:
            weights[view] = weights.get(view, 0) + items_weight(inputs, class_weights).to(device)
    return weights


def loss_terms(
    loss: Tensor, outputs: Any, labels: Tensor, class_weights: Tensor, weighted_loss: WeightedCrossEntropy | None
) -> Tensor:
    """Return what each item adds to the numerator and the denominator of a weighted mean loss.

    Args:
        loss: Weighted mean loss of the batch, used for every item if `weighted_loss` is None.
        outputs: Model outputs with logits (B, C) or (B, T, C).
        labels: Integer labels, shape (B,) or (B, T); -100 for none.
        class_weights: Shape (C,).
        weighted_loss: Loss that gives each item its own value.

    Returns:
        Shape (B, 2), float32.
    """
    weights = class_weights.to(labels.device)[labels.clamp(min=0)] * (labels != -100)
    losses = weights * loss if weighted_loss is None else weighted_loss(outputs, labels, reduction="none")
    return torch.stack([losses.reshape(len(labels), -1).sum(1), weights.reshape(len(labels), -1).sum(1)], 1).float()
