"""The Gramian of the views' gradients: all that an alignment method needs to know of them."""

from collections.abc import Sequence

import torch
from torch import Tensor

Gradients = Sequence[Tensor | None]
"""One view's gradients, a tensor a parameter; `None` where the view gave the parameter no gradient (a zero)."""


@torch.no_grad()
def compute_gramian(gradients: Sequence[Gradients]) -> Tensor:
    """Inner products of every pair of K views' gradients, taken over all parameters.

    Products are formed parameter by parameter and accumulated in float32 whatever the gradients' type, so that
    half-precision gradients neither overflow nor lose their small terms. Nothing of the model's size is allocated
    (half-precision gradients are widened one parameter at a time).

    Args:
        gradients: K sequences of the same length, entry p of each the gradient of parameter p (any shape).

    Returns:
        Float32 tensor of shape (K, K), symmetric, on the device of the first gradient found. Entry (i, j) is
        g_i . g_j; non-finite gradients make it non-finite.

    Raises:
        ValueError: If the sequences differ in length.
    """
    lengths = {len(view) for view in gradients}
    if len(lengths) > 1:
        raise ValueError(f"every view needs one entry a parameter, got sequences of lengths {sorted(lengths)}")
    views = len(gradients)
    device = next((g.device for view in gradients for g in view if g is not None), torch.device("cpu"))
    gramian = torch.zeros(views, views, dtype=torch.float32, device=device)
    for i in range(views):
        for j in range(i, views):
            product = _inner_product(gradients[i], gradients[j], device)
            gramian[i, j] = product
            gramian[j, i] = product
    return gramian


def _inner_product(left: Gradients, right: Gradients, device: torch.device) -> Tensor:
    products = [
        torch.dot(a.float().reshape(-1), b.float().reshape(-1)).to(device)
        for a, b in zip(left, right, strict=True)
        if a is not None and b is not None
    ]
    if not products:
        return torch.zeros((), dtype=torch.float32, device=device)
    return torch.stack(products).sum()
