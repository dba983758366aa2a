"""CAGrad: the update near the mean gradient that is best for the worst view."""

import functools
import math

import torch
from torch import Tensor

from hf_gradalign.alignment.methods.base import AlignmentMethod

# The optimum is searched over all sets of views: 4095 small systems for 12 views.
_MAX_VIEWS = 12


class CAGrad(AlignmentMethod, name="cagrad"):
    r"""Conflict-averse gradient descent, solved exactly.

    Algorithm 1 of Liu et al. (NeurIPS 2021, arXiv 2110.14048). With :math:`g_0` the mean gradient, the update
    :math:`g = g_0 + d` maximizes the worst view's improvement :math:`\min_i g_i \cdot g` within
    :math:`\|d\| \le c \|g_0\|`. Its dual finds, on the simplex,

    .. math:: w^* = \arg\min_w \; g_w \cdot g_0 + c \|g_0\| \|g_w\|, \quad g_w = \sum_i w_i g_i ,

    and then :math:`d = c \|g_0\| g_w / \|g_w\|`. At the optimum, all views with :math:`w_i > 0` improve equally and no
    other view improves less. For a given set of such views, this is a linear system and a quadratic equation. A few
    views have few sets, so all are solved, and the set that meets these conditions gives the weights.

    A view with a zero gradient cannot improve and is ignored. Where :math:`g_w` is zero (the views cannot all be
    improved), or too small to have a direction, the update is :math:`g_0` alone.

    Args:
        c: Radius of the ball in units of the mean gradient's norm, finite and >= 0; 0 gives the mean.
        rescale: Whether to divide by :math:`1 + c^2`, as in the published code but not in the paper.

    Raises:
        ValueError: If `c` is out of range; when called, if there are more than 12 views.
    """

    def __init__(self, c: float = 0.5, rescale: bool = True) -> None:
        if not 0 <= c < math.inf:
            raise ValueError(f"c must be finite and not negative, got {c}")
        self.c = c
        self.rescale = rescale

    def _weights(self, gramian: Tensor, valid: Tensor, precision: float) -> Tensor:
        views = gramian.shape[-1]
        if views > _MAX_VIEWS:
            raise ValueError(f"CAGrad supports at most {_MAX_VIEWS} views, got {views}; PCGrad supports any number")
        # Weights do not depend on the scale of the gradients, and squares of tiny or huge norms may under- or overflow.
        largest = gramian.diagonal(dim1=-2, dim2=-1).amax(-1)
        gramian = gramian / largest.clamp(min=torch.finfo(largest.dtype).tiny)[:, None, None]
        weights = _ascent_weights(gramian, self.c, precision) + 1 / views
        return weights / (1 + self.c**2) if self.rescale else weights


def _ascent_weights(gramian: Tensor, c: float, precision: float) -> Tensor:
    r"""Return the weights (G, K) of d, all zero where d has no direction.

    In unit gradients :math:`u_i = g_i / n_i` with Gramian C, and :math:`p_i = u_i \cdot g_0`, the views of a set
    improve equally, by :math:`\lambda`, under :math:`d = \sum_i v_i u_i` with :math:`C v = \lambda / n - p`. So
    :math:`v = \lambda x - y` with :math:`C x = 1 / n` and :math:`C y = p`, and the surface of the ball
    :math:`v^T C v = c^2 \|g_0\|^2` gives :math:`\lambda`; the larger root is the maximum.
    """
    inverse = gramian.diagonal(dim1=-2, dim2=-1).clamp(min=0).rsqrt().nan_to_num(posinf=0)  # 0 for a zero gradient
    unit = gramian * inverse[:, :, None] * inverse[:, None, :]
    unit.diagonal(dim1=-2, dim2=-1).fill_(1)  # so a view with a zero gradient gets a weight of 0 in every set
    means = gramian.mean(-1)
    products = means * inverse
    radius = c * means.mean(-1, keepdim=True).clamp(min=0).sqrt()

    members, both_members, others = _subsets(gramian.shape[-1], gramian.dtype, gramian.device)
    systems = torch.addcmul(others, unit[:, None], both_members)
    sides = torch.stack([inverse, products], -1)[:, None] * members[..., None]
    solutions = torch.linalg.solve_ex(systems, sides)[0]
    x, y = solutions.unbind(-1)
    (a, b), (_, rest) = (row.unbind(-1) for row in (solutions.mT @ sides).unbind(-2))
    spread = b.square() - a * (rest - radius.square())
    improvement = (b + spread.sqrt()) / a
    v = improvement[..., None] * x - y

    # Distance from the optimum: a negative weight, or a view outside the set that improves less.
    gains = v @ unit
    total, length = torch.linalg.vector_norm(v, 1, -1), (v * gains).sum(-1).clamp(min=0).sqrt()
    behind = improvement[..., None] * inverse[:, None] - products[:, None] - gains
    furthest = radius * (1 + 1 / c if c > 0 else 1)
    off = torch.maximum(-v.amin(-1) / total, behind.amax(-1) / furthest)
    # A sum below the precision of the products is only rounding error, and its direction means nothing.
    sound = (spread > 0) & (length > (8 * precision) ** 0.5 * total)
    off, best = torch.where(sound, off, torch.inf).nan_to_num(nan=torch.inf, posinf=torch.inf).min(-1)

    chosen = best[:, None, None].expand(-1, 1, v.shape[-1])
    weights = (v * (radius / length)[..., None] * inverse[:, None]).gather(1, chosen).squeeze(1).clamp(min=0)
    is_optimum = off <= torch.finfo(off.dtype).eps ** 0.5
    return torch.where(is_optimum[:, None], weights, 0.0)


@functools.lru_cache(maxsize=16)
def _subsets(views: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return all 2^K - 1 non-empty sets of views.

    Returns:
        Members, shape (2^K - 1, K); pairs of members, shape (2^K - 1, K, K); and the diagonal matrices, of the same
        shape, with 1 for each view that is not a member.
    """
    numbers = torch.arange(1, 2**views, device=device)
    members = ((numbers[:, None] >> torch.arange(views, device=device)) % 2).to(dtype)
    return members, members[:, :, None] * members[:, None, :], torch.diag_embed(1 - members)
