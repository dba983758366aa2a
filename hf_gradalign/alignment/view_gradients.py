"""Keeps each view's accumulated gradient apart and puts their combination where the optimiser looks for it."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from hf_gradalign.alignment.gradient_passes import GradientPasses


class ViewGradients:
    """Swaps view gradients in and out of `p.grad`; the tensors are never flattened or stacked.

    Between views `p.grad` is `None`; within `accumulate(view)` it is what that view has gathered so far, so that a
    backward pass accumulates into it exactly as in ordinary training (and so do gradient hooks, DDP's reduction and
    loss scaling). `combine` writes the weighted sum into the first view's tensors. The extra memory is one gradient
    for each view beyond the first.

    Args:
        parameters: The model's parameters. A frozen one has no gradient in any view, and may be unfrozen at any time.
        shared_storage: Whether `p.grad` lies in a buffer that the next backward pass writes to again (DDP's
            `gradient_as_bucket_view`, CUDA graphs). Only then gradients are copied, once a pass.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], shared_storage: bool = False) -> None:
        self._parameters = list(parameters)
        self._shared_storage = shared_storage
        self._held: dict[str, list[Tensor | None]] = {}
        self._passes: GradientPasses | None = None

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
            self._passes = None
            self._held[view] = [self._take(parameter.grad) for parameter in self._parameters]
            for parameter in self._parameters:
                parameter.grad = None

    def products(self) -> Tensor:
        """The views' inner products by parameter, (P, K, K), in the order of `views` (see `compute_products`)."""
        return self._over_held().products()

    def gramian(self) -> Tensor:
        """The K x K Gramian of the views held, over all parameters, in the order of `views`."""
        return self.products().sum(0)

    @torch.no_grad()
    def combine(self, weights: Tensor, index: Sequence[int] | None = None) -> None:
        """Set `p.grad` to the weighted sum of the views' gradients, in place, and forget the views.

        A parameter with no gradient in one view gets the others' weighted sum; with none in any view it keeps `None`,
        so that the optimiser passes it over as in ordinary training.

        Args:
            weights: Shape (K,), on the gradients' device, in the order of `views`; or (G, K), a row a group.
            index: With (G, K), each parameter's row.

        Raises:
            ValueError: If there is not one weight a view.
        """
        if weights.shape[-1:] != (len(self._held),):
            raise ValueError(f"{len(self._held)} views {self.views} need as many weights, got {tuple(weights.shape)}")
        passes, held = self._over_held(), list(self._held.values())
        self._held, self._passes = {}, None
        for parameter, *gradients in zip(self._parameters, *held, strict=True):
            parameter.grad = next((gradient for gradient in gradients if gradient is not None), None)
        passes.combine_(weights if index is not None else weights[None], index)

    def _over_held(self) -> GradientPasses:
        if self._passes is None:
            self._passes = GradientPasses(list(self._held.values()))
        return self._passes

    def _take(self, gradient: Tensor | None) -> Tensor | None:
        return gradient.clone() if self._shared_storage and gradient is not None else gradient
