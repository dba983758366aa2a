"""Keeps each view's accumulated gradient apart and puts their combination where the optimiser looks for it."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from hf_gradalign.alignment.gramian import compute_gramian


class ViewGradients:
    """Swaps view gradients in and out of `p.grad`; the tensors are never copied, flattened or stacked.

    Between views `p.grad` is `None`; within `accumulate(view)` it is what that view has gathered so far, so that a
    backward pass accumulates into it exactly as in ordinary training (and so do gradient hooks, DDP's reduction and
    loss scaling). `combine` writes the weighted sum into the first view's tensors. The extra memory is one gradient
    for each view beyond the first.

    Args:
        parameters: The model's parameters. A frozen one has no gradient in any view, and may be unfrozen at any time.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self._parameters = list(parameters)
        self._held: dict[str, list[Tensor | None]] = {}

    @property
    def views(self) -> list[str]:
        """Names of the views that hold a gradient, in the order in which they were first seen."""
        return list(self._held)

    @contextmanager
    def accumulate(self, view: str) -> Iterator[None]:
        """Within this context `p.grad` is the gradient that `view` has accumulated since the last `combine`."""
        held = self._held.get(view, [None] * len(self._parameters))
        for parameter, gradient in zip(self._parameters, held, strict=True):
            parameter.grad = gradient
        try:
            yield
        finally:
            self._held[view] = [parameter.grad for parameter in self._parameters]
            for parameter in self._parameters:
                parameter.grad = None

    def gramian(self) -> Tensor:
        """The K x K Gramian of the views held, in the order of `views` (see `compute_gramian`)."""
        return compute_gramian(list(self._held.values()))

    @torch.no_grad()
    def combine(self, weights: Tensor) -> None:
        """Set `p.grad` to the weighted sum of the views' gradients, in place, and forget the views.

        A parameter with no gradient in one view gets the others' weighted sum; with none in any view it keeps `None`,
        so that the optimiser passes it over as in ordinary training.

        Args:
            weights: Shape (K,), on the gradients' device, in the order of `views`.

        Raises:
            ValueError: If there is not one weight a view.
        """
        if weights.shape != (len(self._held),):
            raise ValueError(f"{len(self._held)} views {self.views} need as many weights, got {tuple(weights.shape)}")
        held = list(self._held.values())
        self._held = {}
        for parameter, *gradients in zip(self._parameters, *held, strict=True):
            parameter.grad = _weighted_sum_(gradients, weights)


def _weighted_sum_(gradients: Sequence[Tensor | None], weights: Tensor) -> Tensor | None:
    # The weights stay on the device: reading them out would make the host wait for the backward pass.
    total = None
    for gradient, weight in zip(gradients, weights.unbind(), strict=True):
        if gradient is None:
            continue
        weight = weight.to(gradient.device)
        if total is None:
            total = gradient.mul_(weight)
        elif gradient.dtype == weight.dtype:
            total.addcmul_(gradient, weight)
        else:
            total.add_(gradient.mul_(weight))  # a weight rounded to half precision would favour a view
    return total
