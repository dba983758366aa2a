"""CAGrad: the update in a ball around the mean gradient that is best for the worst view."""

from itertools import combinations

import torch
from torch import Tensor

from hf_gradalign.alignment.methods.base import AlignmentMethod

# One exact line search settles two views; more views are cycled through in pairs.
_SWEEPS = 40


class CAGrad(AlignmentMethod):
    r"""Conflict-averse gradient descent.

    Algorithm 1 of Liu et al. (NeurIPS 2021, arXiv 2110.14048). With :math:`g_0` the mean gradient, the update
    maximises the worst view's improvement within :math:`\|g - g_0\| \le c \|g_0\|`; its dual finds, on the simplex,

    .. math:: w^* = \arg\min_w \; g_w \cdot g_0 + c \|g_0\| \|g_w\|, \quad g_w = \sum_i w_i g_i ,

    and then :math:`g = g_0 + c \|g_0\| g_w / \|g_w\|`. The objective is convex, and along the line on which two views
    exchange weight its minimum has a closed form: exact for two views, a descent over pairs for more (which
    for four views and more may stop short of it where the gradients' lengths differ a thousandfold). Where
    :math:`g_w` vanishes (the views cannot all be improved), or is too small to have a direction, the update is
    :math:`g_0` alone; in no case is it worse for the worst view than :math:`g_0`.

    Args:
        c: Radius of the ball in units of the mean gradient's norm, >= 0; 0 gives the mean.
        rescale: Divide by :math:`1 + c^2`, as the published code does and the paper does not.

    Raises:
        ValueError: If `c` is negative.
    """

    def __init__(self, c: float = 0.5, rescale: bool = True) -> None:
        if not c >= 0:
            raise ValueError(f"c must not be negative, got {c}")
        self.c = c
        self.rescale = rescale

    def _weights(self, gramian: Tensor, valid: Tensor, precision: float) -> Tensor:
        views = gramian.shape[-1]
        # Weights do not depend on the gradients' common scale, and squares of tiny or huge norms leave the range.
        largest = gramian.diagonal(dim1=-2, dim2=-1).amax(-1)
        gramian = gramian / torch.where(largest > 0, largest, torch.ones_like(largest))[:, None, None]
        mean = torch.full_like(gramian[..., 0], 1 / views)
        radius = self.c * _norm(gramian, mean)
        w = mean.clone()
        for _ in range(1 if views == 2 else _SWEEPS):
            for i, j in combinations(range(views), 2):
                step = _best_exchange(gramian, mean, w, i, j, radius)
                w[:, i] += step
                w[:, j] -= step
        norm = _norm(gramian, w)
        # Below the precision of the products its direction would be rounding's.
        scale = torch.where(norm > (8 * precision) ** 0.5, radius / norm, torch.zeros_like(norm))
        towards = scale[:, None] * w
        improves = _apply(gramian, mean + towards).amin(-1) >= _apply(gramian, mean).amin(-1)
        weights = mean + torch.where(improves[:, None], towards, torch.zeros_like(towards))
        return weights / (1 + self.c**2) if self.rescale else weights


def _apply(gramian: Tensor, weights: Tensor) -> Tensor:
    """Inner products (G, K) of the views' gradients with their weighted sum."""
    return (gramian * weights[:, None]).sum(-1)


def _norm(gramian: Tensor, weights: Tensor) -> Tensor:
    """Norm (G,) of the weighted sum."""
    return (weights * _apply(gramian, weights)).sum(-1).clamp(min=0).sqrt()


def _best_exchange(gramian: Tensor, mean: Tensor, w: Tensor, i: int, j: int, radius: Tensor) -> Tensor:
    """The t (G,) in [-w_i, w_j] that minimises the objective at w + t (e_i - e_j).

    Along d = g_i - g_j the objective is A t + k sqrt(B t^2 + 2 C t + D), with A = d . g_0, B = |d|^2, C = d . g_w,
    D = |g_w|^2 and k the radius. Its derivative vanishes where u = B t + C satisfies u = -A sqrt(S / (B k^2 - A^2)),
    S = B D - C^2; without such a point it falls all the way to an end.
    """
    direction = gramian[:, i] - gramian[:, j]
    a, c = (direction * mean).sum(-1), (direction * w).sum(-1)
    b = (direction[:, i] - direction[:, j]).clamp(min=0)
    d = (w * _apply(gramian, w)).sum(-1).clamp(min=0)
    spread = (b * d - c * c).clamp(min=0)
    curvature = b * radius**2 - a**2
    inside = (-a * (spread / curvature.clamp(min=1e-300)).sqrt() - c) / b
    end = torch.where(a > 0, -w[:, i], torch.where(a < 0, w[:, j], torch.zeros_like(a)))
    step = torch.where(curvature > 0, inside, end)
    step = torch.where(b > 0, step, torch.zeros_like(step))
    return torch.minimum(torch.maximum(step, -w[:, i]), w[:, j])
