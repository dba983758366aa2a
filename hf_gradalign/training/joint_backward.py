"""Alignment by the classification head's gradients, with one backward pass through the model for all views."""

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import Trainer
from transformers.modeling_outputs import SequenceClassifierOutput

from hf_gradalign.alignment import compute_products
from hf_gradalign.training.aligned_update import view_scale, weigh_views
from hf_gradalign.training.loss import items_weight


class JointBackward:
    r"""One forward pass over all views, a backward pass of each view through the head, one through the whole model.

    The head's gradients give the Gramian, the method its weights :math:`w`, and the update is the gradient of
    :math:`\sum_k w_k l_k`: what the method would do to the whole model's gradients if their Gramian were the head's.
    There is no second gradient, and the trunk sees one batch of all views. Where the head is the whole model this is
    the ordinary aligned step. Layers that mix items (batch normalisation) see all views at once.

    The head is what `alignment_parameters` names, else all parameters outside the model's `base_model`. The model
    must give `logits` of shape (B, C) for integer labels, unless the trainer has a `compute_loss_func`.

    Args:
        trainer: A `GradientAlignmentTrainer`.

    Attributes:
        views: The last batch's views.
        losses: Each view's loss, detached, as its share of the update.
        alignment: Products (P, K, K) (zero outside the head), Gramian (1, K, K) and weights (1, K).

    Raises:
        ValueError: If no head can be found.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = weakref.proxy(trainer)  # or the two would keep each other, and the loaders' workers, alive
        self._totals: Mapping[str, Tensor] = {}
        self.is_open = False
        self.views: list[str] = []
        self.losses: dict[str, Tensor] = {}
        self.alignment: tuple[Tensor, Tensor, Tensor]
        groups = trainer.parameter_groups
        if trainer.args.alignment_parameters:
            self._is_head = [group is not None for group in groups.index]
        else:
            self._is_head = find_head(trainer.model, groups.names)

    @contextmanager
    def batch(self, inputs: Mapping[str, Mapping[str, Any]], totals: Mapping[str, Tensor]) -> Iterator[dict[str, Any]]:
        """Within this context `loss` is to be called for the joined batch that it gives.

        Raises:
            ValueError: If the views' inputs cannot be put into one batch.
        """
        self.views, self._totals, self.is_open = list(inputs), totals, True
        try:
            yield _join(inputs)
        finally:
            self.is_open = False

    def loss(self, model: nn.Module, inputs: dict[str, Any]) -> Tensor:
        """The weighted sum of the views' losses, ready for the one backward pass.

        Raises:
            ValueError: If the head is frozen, or the labels are such as only a `compute_loss_func` could handle.
        """
        trainer = self._trainer
        labels = inputs.pop("labels").chunk(len(self.views))
        outputs = model(**inputs)
        logits = outputs["logits"] if isinstance(outputs, dict) else outputs[0]
        compute = trainer.compute_loss_func or _cross_entropy(trainer)
        losses = []
        for view, part, view_labels in zip(self.views, logits.chunk(len(self.views)), labels, strict=True):
            loss = compute(SequenceClassifierOutput(logits=part), view_labels, num_items_in_batch=None)
            if (total := self._totals.get(view)) is not None:
                weight = items_weight({"labels": view_labels}, trainer.class_weights)
                loss = trainer.share_of_update(loss, weight, total)
            losses.append(loss)
        self.losses = {view: loss.detach() for view, loss in zip(self.views, losses, strict=True)}
        products = self._products(model, losses)
        gramians = products.sum(0, keepdim=True)
        scale = view_scale(self.views, trainer.args.view_weights, gramians.device)
        weights = weigh_views(trainer.alignment_method, gramians, scale)
        self.alignment = (products, gramians, weights)
        return (torch.stack(losses) * weights[0].to(losses[0])).sum()

    def _products(self, model: nn.Module, losses: list[Tensor]) -> Tensor:
        parameters = list(model.parameters())
        taking = [head and p.requires_grad for p, head in zip(parameters, self._is_head, strict=True)]
        head = [p for p, takes in zip(parameters, taking, strict=True) if takes]
        if not head:
            raise ValueError("--joint_backward aligns by the gradients of the head, and all of the head is frozen")
        scaler = getattr(self._trainer.accelerator, "scaler", None)
        gradients = []
        for loss in losses:
            scaled = loss if scaler is None else scaler.scale(loss)  # or half-precision gradients would vanish
            taken = iter(torch.autograd.grad(scaled, head, retain_graph=True, allow_unused=True))
            gradients.append([self._average(next(taken)) if takes else None for takes in taking])
        return compute_products(gradients)

    def _average(self, gradient: Tensor | None) -> Tensor | None:
        if gradient is None or self._trainer.args.world_size == 1:
            return gradient
        return self._trainer.accelerator.reduce(gradient, reduction="mean")


def find_head(model: nn.Module, names: Sequence[str]) -> list[bool]:
    """Which of a transformers model's parameters are its head: those outside its `base_model`.

    Args:
        model: The model, not wrapped.
        names: Its parameters' names.

    Raises:
        ValueError: If the model has no `base_model` with a part of the parameters.
    """
    prefix = getattr(model, "base_model_prefix", "") or "."
    is_head = [not name.startswith(f"{prefix}.") for name in names]
    if all(is_head) or not any(is_head):
        raise ValueError(
            f"--joint_backward: {type(model).__name__} does not say which of its parameters are the head; name them "
            "with --alignment_parameters"
        )
    return is_head


def _cross_entropy(trainer: Trainer) -> Callable[..., Tensor]:
    def compute(outputs: Mapping[str, Tensor], labels: Tensor, num_items_in_batch: Tensor | None = None) -> Tensor:
        if labels.is_floating_point():
            raise ValueError(
                "--joint_backward computes the cross-entropy of integer labels; for labels of another kind give the "
                "trainer a compute_loss_func"
            )
        logits = outputs["logits"].float()
        return cross_entropy(logits, labels.view(-1), label_smoothing=trainer.args.label_smoothing_factor)

    return compute


def _join(inputs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    first, *others = inputs.values()
    if "labels" not in first:
        raise ValueError("--joint_backward computes the views' losses from logits and labels, and there are no labels")
    joined = {}
    for name, value in first.items():
        values = [value, *(other.get(name) for other in others)]
        shapes = [tuple(v.shape) if isinstance(v, Tensor) else None for v in values]
        if any(set(other) != set(first) for other in others) or len(set(shapes)) > 1 or shapes[0] is None:
            raise ValueError(
                f"--joint_backward makes one batch of all views, and their {name!r} cannot be joined "
                f"(shapes {shapes}); leave it out, or give the views equal shapes"
            )
        joined[name] = torch.cat(values)
    return joined


__all__ = ["JointBackward", "find_head"]
