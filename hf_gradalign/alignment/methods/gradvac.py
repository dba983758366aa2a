"""GradVac: raise the cosine of gradients to a target, even if they do not conflict."""

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

# The adjustment grows without bound as the target approaches 1, where it is dominated by rounding.
_MAX_TARGET = 1 - 1e-6


class GradVac(AlignmentMethod, name="gradvac"):
    r"""Raises the cosine of each pair of gradients to a target, a moving average of the cosines seen.

    Equations 2 and 3 of Wang et al., "Gradient Vaccine" (ICLR 2021, arXiv 2010.05874). With :math:`\rho` the cosine of
    :math:`g_i'` and :math:`g_j` and :math:`t` the target of the pair, where :math:`\rho < t`,

    .. math::

        g_i' \leftarrow g_i' + w g_j, \quad
        w = \frac{\|g_i'\| (t \sqrt{1 - \rho^2} - \rho \sqrt{1 - t^2})}{\|g_j\| \sqrt{1 - t^2}} ;

    then :math:`t \leftarrow (1 - \beta) t + \beta \rho`. The targets start at 0, so the first update is that of
    PCGrad. A pair with a zero gradient is not changed.

    Args:
        beta: Weight of the newest cosine in the target, in [0, 1].
        update_on_conflict: Whether cosines <= 0 also update the moving average, as in the GradVac paper. The published
            code of arXiv 2509.20682 only updates it for positive cosines.
        reduction: "mean" of the adjusted gradients (the published code) or "sum" (the paper).
        seed: Seed of the random order of the pairs, for three or more views.

    Raises:
        ValueError: If `beta` is outside [0, 1] or `reduction` is unknown.
    """

    def __init__(
        self, beta: float = 0.5, update_on_conflict: bool = False, reduction: str = "mean", seed: int = 0
    ) -> None:
        if not 0 <= beta <= 1:
            raise ValueError(f"beta must be in [0, 1], got {beta}")
        self.beta = beta
        self.update_on_conflict = update_on_conflict
        self.reduction = check_reduction(reduction)
        self.seed = seed
        self._calls = 0
        self._targets: Tensor | None = None

    def _weights(self, gramian: Tensor, valid: Tensor, precision: float) -> Tensor:
        views = gramian.shape[-1]
        targets = self._targets_for(gramian)
        updated = targets
        norms = gramian.diagonal(dim1=-2, dim2=-1).clamp(min=0).sqrt()
        orders = [visiting_order(views, i, self.seed, self._calls) for i in range(views)]
        # Row i: the adjusted gradient i in terms of all views' gradients. All rows are updated at the same time.
        coefficients = identity(views, gramian.dtype, gramian.device).expand_as(gramian)
        products, norm = gramian, norms  # inner products of adjusted gradients with each view's, and their norms
        for step, others in enumerate(zip(*orders, strict=True)):
            if step > 0:
                products = (coefficients[:, :, None] * gramian[:, None]).sum(-1)
                norm = (coefficients * products).sum(-1).clamp(min=0).sqrt()
            is_pair, column = pair_mask(others, gramian.device)
            product_with, target = take_column(products, column), take_column(targets, column)
            norm_of = take_column(norms[:, None].expand_as(gramian), column)
            product = norm * norm_of
            defined = product > 0
            cosine = torch.where(defined, product_with / product, 0.0).clamp(-1, 1)
            low = target.clamp(max=_MAX_TARGET)
            sine, target_sine = (1 - torch.stack([cosine, low]) ** 2).sqrt().unbind()
            change = norm * (low * sine - cosine * target_sine) / (norm_of * target_sine)
            change = torch.where(defined & (cosine < low), change, 0.0)
            counts = defined & valid[:, None]
            if not self.update_on_conflict:
                counts = counts & (cosine > 0)
            latest = torch.where(counts, (1 - self.beta) * target + self.beta * cosine, target)
            coefficients = torch.where(is_pair, coefficients + change[..., None], coefficients)
            updated = torch.where(is_pair, latest[..., None], updated)
        weights = sum_rows(coefficients)
        self._targets = updated
        self._calls += 1
        return weights / views if self.reduction == "mean" else weights

    def _targets_for(self, gramian: Tensor) -> Tensor:
        if self._targets is None:
            return torch.zeros_like(gramian)
        if self._targets.shape != gramian.shape:
            raise ValueError(
                f"GradVac has targets for (groups, views, views) = {tuple(self._targets.shape)} and was given Gramians "
                f"of shape {tuple(gramian.shape)}; create a new method for other views or another scope"
            )
        return self._targets.to(gramian)

    def state_dict(self) -> dict[str, Any]:  # noqa: D102
        return {"calls": self._calls, "targets": None if self._targets is None else self._targets.tolist()}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: D102
        check_state_keys(self, state, {"calls", "targets"})
        self._calls = int(state["calls"])
        targets = state["targets"]
        self._targets = None if targets is None else torch.tensor(targets, dtype=torch.float64)
