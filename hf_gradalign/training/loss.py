"""The weighted cross-entropy of a classifier, with the class weights that its configuration carries."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PretrainedConfig


def class_weights_of(config: PretrainedConfig | None) -> Tensor | None:
    """The configuration's `class_weights` as a tensor, or None where it has none.

    Raises:
        ValueError: If there is not one positive, finite weight a label.
    """
    weights = getattr(config, "class_weights", None)
    if weights is None:
        return None
    tensor = torch.tensor([float(weight) for weight in weights])
    if len(tensor) != config.num_labels or not bool(((tensor > 0) & torch.isfinite(tensor)).all()):
        raise ValueError(f"class_weights must be {config.num_labels} positive numbers, one a label, got {weights}")
    return tensor


class WeightedCrossEntropy:
    r"""Cross-entropy in which each item counts by its class: :math:`\sum_i w_{y_i} l_i / \sum_i w_{y_i}`.

    Fit for `Trainer(compute_loss_func=...)`. As a mean over the items it is given it can be put together again from
    micro-batches and processes, which `GradientAlignmentTrainer` does by `items_weight`.

    Args:
        class_weights: Shape (C,), positive.
        label_smoothing: Share of the target spread over all classes, in [0, 1).
    """

    def __init__(self, class_weights: Tensor, label_smoothing: float = 0.0) -> None:
        self.class_weights = class_weights
        self.label_smoothing = label_smoothing

    def __call__(self, outputs: Any, labels: Tensor, num_items_in_batch: Tensor | None = None) -> Tensor:
        """Weighted mean loss of logits (B, C) against integer labels (B,); `num_items_in_batch` is not needed."""
        logits = outputs["logits"] if isinstance(outputs, dict) else outputs[0]
        weights = self.class_weights.to(logits.device, torch.float32)
        logits = logits.float().view(-1, weights.numel())
        return cross_entropy(logits, labels.view(-1), weight=weights, label_smoothing=self.label_smoothing)


def items_weight(inputs: dict[str, Any], class_weights: Tensor | None) -> Tensor:
    """How much of an update's mean loss one micro-batch stands for.

    Args:
        inputs: Model inputs of one view (or an ordinary batch).
        class_weights: Shape (C,), or None for equal weights.

    Returns:
        Scalar float32 tensor: the labels' summed class weights, the number of labels (-100 left out) where classes
        are not weighted, or the batch size where labels are no class indices.
    """
    labels = inputs.get("labels")
    if isinstance(labels, Tensor) and not labels.is_floating_point():
        # Without indexing by a mask, for which the host would have to wait for the device.
        counts = (labels != -100).float()
        weights = 1.0 if class_weights is None else class_weights.to(labels.device)[labels.clamp(min=0)]
        return (counts * weights).sum()
    tensors = [value for value in inputs.values() if isinstance(value, Tensor)]
    return torch.as_tensor(tensors[0].shape[0] if tensors else 1, dtype=torch.float32)
