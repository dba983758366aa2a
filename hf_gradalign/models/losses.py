"""Losses of detectors: cross-entropy, and losses with margins on cosines, which need their own output layer."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize, one_hot, softplus

CROSS_ENTROPY = "cross_entropy"
LOSSES: dict[str, dict[str, float]] = {
    CROSS_ENTROPY: {},
    "am_softmax": {"margin": 0.35, "scale": 30.0},
    "oc_softmax": {"bonafide_margin": 0.9, "spoof_margin": 0.2, "scale": 20.0},
}
"""The options of each loss, with the published values."""


def loss_options(loss: str, given: Mapping[str, Any] | None = None) -> dict[str, float]:
    """Return all options of a loss, with the published values for those that are not passed.

    Raises:
        ValueError: If there is no such loss or option, or a value is out of range.
    """
    if loss not in LOSSES:
        raise ValueError(f"there is no loss {loss!r}; available: {', '.join(LOSSES)}")
    if unknown := sorted(set(given or {}) - set(LOSSES[loss])):
        known = ", ".join(LOSSES[loss]) or "none"
        raise ValueError(f"the loss {loss} has no option {', '.join(unknown)}; it has {known}")
    options = {**LOSSES[loss], **(given or {})}
    for name, value in options.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{name} of {loss} must be a number, got {value!r}")
    if options.get("scale", 1) <= 0:
        raise ValueError(f"scale of {loss} must be positive, got {options['scale']}")
    if not 0 <= options.get("margin", 0) < 2:
        raise ValueError(f"margin of {loss} must be at least 0 and below 2, got {options['margin']}")
    if loss == "oc_softmax" and not -1 <= options["spoof_margin"] < options["bonafide_margin"] <= 1:
        raise ValueError(
            "the margins of oc_softmax are cosines, with the spoof margin below the bona fide margin, got spoof_margin "
            f"{options['spoof_margin']} and bonafide_margin {options['bonafide_margin']}"
        )
    return {name: float(value) for name, value in options.items()}


def detection_loss(
    logits: Tensor,
    labels: Tensor,
    loss: str = CROSS_ENTROPY,
    options: Mapping[str, float] | None = None,
    class_weights: Tensor | None = None,
) -> Tensor:
    r"""Return the mean loss of a batch, weighted by class: :math:`\sum_i w_{y_i} l_i / \sum_i w_{y_i}`.

    - cross_entropy: of the logits.
    - am_softmax (Wang et al., "Additive margin softmax for face verification", 2018, equation 6): cross-entropy with
      the logits :math:`s \cos\theta_j`, from which :math:`s m` is subtracted for the true class.
    - oc_softmax (Zhang et al., "One-class learning towards synthetic voice spoofing detection", 2021, equation 5):
      :math:`\log(1 + e^{s (m_b - \cos\theta)})` for bona fide and :math:`\log(1 + e^{s (\cos\theta - m_s)})` for spoof
      clips, where :math:`\cos\theta` is the bona fide logit minus the spoof logit.

    Args:
        logits: Shape (B, 2), from the output layer of this loss.
        labels: Shape (B,), 0 for spoof and 1 for bona fide. -100 is ignored.
        loss: Name of the loss.
        options: All of its options, from `loss_options`.
        class_weights: Shape (2,); equal by default.

    Returns:
        A scalar.
    """
    options = loss_options(loss) if options is None else options
    if loss == CROSS_ENTROPY:
        return cross_entropy(logits, labels, weight=class_weights)
    if loss == "am_softmax":
        of_true_class = one_hot(labels.clamp(min=0), logits.shape[1])
        return cross_entropy(logits - options["scale"] * options["margin"] * of_true_class, labels, class_weights)
    cosines = logits[:, 1] - logits[:, 0]
    violations = torch.where(labels == 1, options["bonafide_margin"] - cosines, cosines - options["spoof_margin"])
    weights = (labels != -100).to(logits)
    if class_weights is not None:
        weights = weights * class_weights.to(logits)[labels.clamp(min=0)]
    return (weights * softplus(options["scale"] * violations)).sum() / weights.sum()


def make_output_layer(loss: str, options: Mapping[str, float], classifier: nn.Module | None) -> nn.Module:
    """Return the output layer of a loss with margins, in place of a head's linear `classifier`.

    Raises:
        ValueError: If the head does not end with a linear layer of two outputs.
    """
    if not isinstance(classifier, nn.Linear) or classifier.out_features != 2:
        raise ValueError(f"the loss {loss} needs a head that ends with a linear layer of two outputs")
    if loss == "am_softmax":
        return CosineClassifier(classifier.in_features, options["scale"])
    return OneClassClassifier(classifier.in_features)


class CosineClassifier(nn.Module):
    """The output layer of AM-softmax: the scaled cosines between an embedding and the direction of each class.

    Args:
        in_features: Width E of the embedding.
        scale: Factor of the cosines.
    """

    def __init__(self, in_features: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.weight = nn.Parameter(torch.empty(2, in_features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize the directions randomly."""
        nn.init.normal_(self.weight)

    def forward(self, embedding: Tensor) -> Tensor:
        """Embeddings (B, E) to logits (B, 2)."""
        return self.scale * _cosines(embedding, self.weight)


class OneClassClassifier(nn.Module):
    """The output layer of OC-softmax: the cosine between an embedding and the direction of bona fide speech.

    The logit of spoof is 0, so that the bona fide logit, and its difference from the spoof logit, are this cosine.

    Args:
        in_features: Width E of the embedding.
    """

    def __init__(self, in_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, in_features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize the direction randomly."""
        nn.init.normal_(self.weight)

    def forward(self, embedding: Tensor) -> Tensor:
        """Embeddings (B, E) to logits (B, 2)."""
        cosines = _cosines(embedding, self.weight)
        return torch.cat([torch.zeros_like(cosines), cosines], 1)


def _cosines(embedding: Tensor, weight: Tensor) -> Tensor:
    """Embeddings (B, E) and directions (C, E) to cosines (B, C).

    The sum of products stays in float32 under autocast, unlike a matrix product.
    """
    return (normalize(embedding.float(), dim=1)[:, None] * normalize(weight.float(), dim=1)).sum(2)
