"""PCGrad: project conflicting gradients."""

from typing import Any

import torch
from torch import Tensor

from hf_gradalign.alignment.methods.base import (
    AlignmentMethod,
    check_reduction,
    check_state_keys,
    identity,
    pair_mask,
    sum_rows,
    take_column,
    visiting_order,
)


class PCGrad(AlignmentMethod, name="pcgrad"):
    r"""Removes from each gradient its component along the gradients it conflicts with.

    Algorithm 1 of Yu et al., "Gradient Surgery for Multi-Task Learning" (NeurIPS 2020, arXiv 2001.06782): for each
    view i, over the other views j in random order, where :math:`g_i' \cdot g_j < 0`,

    .. math:: g_i' \leftarrow g_i' - \frac{g_i' \cdot g_j}{\|g_j\|^2} g_j .

    For two views with Gramian [[a, c], [c, b]] and c < 0 the weights of the mean are
    :math:`((1 - c/a)/2, (1 - c/b)/2)`. A zero gradient conflicts with nothing.

    Args:
        reduction: "mean" of the adjusted gradients (the published code of arXiv 2509.20682) or "sum" (the paper).
        seed: Seed of the random order, for three or more views.
    """

    def __init__(self, reduction: str = "mean", seed: int = 0) -> None:
        self.reduction = check_reduction(reduction)
        self.seed = seed
        self._calls = 0

    def _weights(self, gramian: Tensor, valid: Tensor, precision: float) -> Tensor:
        views = gramian.shape[-1]
        # Row i: the adjusted gradient i in terms of all views' gradients. All rows are adjusted at the same time.
        coefficients = identity(views, gramian.dtype, gramian.device).expand_as(gramian)
        squares = gramian.diagonal(dim1=-2, dim2=-1)[:, None].expand_as(gramian)
        products = gramian  # inner products of the adjusted gradients with each view's
        orders = [visiting_order(views, i, self.seed, self._calls) for i in range(views)]
        for step, others in enumerate(zip(*orders, strict=True)):
            if step > 0:
                products = (coefficients[:, :, None] * gramian[:, None]).sum(-1)
            is_pair, column = pair_mask(others, gramian.device)
            product, square = take_column(products, column), take_column(squares, column)
            conflict = (product < 0) & (square > 0)
            change = torch.where(conflict, product / square, 0.0)
            coefficients = torch.where(is_pair, coefficients - change[..., None], coefficients)
        weights = sum_rows(coefficients)
        self._calls += 1
        return weights / views if self.reduction == "mean" else weights

    def state_dict(self) -> dict[str, Any]:  # noqa: D102
        return {"calls": self._calls}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: D102
        check_state_keys(self, state, {"calls"})
        self._calls = int(state["calls"])
