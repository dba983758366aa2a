"""The Gramian of the views' gradients: all that an alignment method needs to know of them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from hf_gradalign.alignment.gradient_passes import GradientPasses

Gradients = Sequence[Tensor | None]
"""One view's gradients, a tensor a parameter; `None` where the view gave the parameter no gradient (a zero)."""


@torch.no_grad()
def compute_products(gradients: Sequence[Gradients]) -> Tensor:
    """Inner products of every pair of K views' gradients, parameter by parameter.

    Accumulated in float32 (in float64 for gradients of that type), so that half-precision gradients neither overflow
    nor lose their small terms. Each gradient is read from memory once for all pairs, and the host waits for no device
    (see `GradientPasses`). Gradients that are sharded over processes (`DTensor`, FSDP2) are multiplied shard by shard
    and the products summed over the shards; every process must then call this alike.

    Args:
        gradients: K sequences of P entries, entry p of each the gradient of parameter p (any shape).

    Returns:
        Float32 tensor of shape (P, K, K), each matrix symmetric, on the device of the first gradient found. Entry
        (p, i, j) is the inner product of views i and j for parameter p; non-finite gradients make it non-finite.

    Raises:
        ValueError: If the sequences differ in length, or a gradient is sparse.
    """
    return GradientPasses(gradients).products()


def compute_gramian(gradients: Sequence[Gradients]) -> Tensor:
    """Inner products of every pair of K views' gradients, taken over all parameters.

    Args:
        gradients: As for `compute_products`.

    Returns:
        Float32 tensor of shape (K, K), symmetric. Entry (i, j) is g_i . g_j.

    Raises:
        ValueError: As by `compute_products`.
    """
    return compute_products(gradients).sum(0)
