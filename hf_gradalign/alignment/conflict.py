"""Conflict statistics of an update, and their means over many: what the paper plots."""

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import torch
from torch import Tensor


@torch.no_grad()
def conflict_statistics(gramian: Tensor, weights: Tensor, views: Sequence[str]) -> dict[str, Tensor]:
    """Statistics of one update, as scalars on the Gramian's device.

    Args:
        gramian: Shape (K, K), the views' inner products; or (G, K, K), those of each group of parameters, whose sum is
            that of all.
        weights: Shape (K,) or (G, K), what the alignment method made of it.
        views: The K views' names.

    Returns:
        `conflict_rate` (1 where any two views have a negative cosine, else 0; NaN for a non-finite Gramian; left out
        where there is one view),
        `cosine_<a>_<b>` in [-1, 1] (0 where a gradient is zero) and
        `norm_ratio_<b>_<a>` = |g_b| / |g_a| for each pair, `grad_norm_<view>` and
        `weight_<view>` (the groups' mean); for more than one group also `group_conflict_rate`, the fraction of the
        groups in which any two views conflict.
    """
    groups = gramian if gramian.ndim == 3 else gramian[None]
    gramian = groups.sum(0)
    weights = weights if weights.ndim == 1 else weights.mean(0)
    statistics = {}
    if len(views) > 1:
        statistics["conflict_rate"] = conflicts(gramian)
        if len(groups) > 1:
            statistics["group_conflict_rate"] = conflicts(groups).mean()
    statistics |= gradient_statistics(gramian, views)
    for i, view in enumerate(views):
        statistics[f"weight_{view}"] = weights[i]
    return statistics


@torch.no_grad()
def gradient_statistics(gramians: Tensor, views: Sequence[str]) -> dict[str, Tensor]:
    """What Gramians say of the gradients themselves.

    Args:
        gramians: Shape (..., K, K).
        views: The K views' names.

    Returns:
        Tensors of shape (...): `cosine_<a>_<b>` in [-1, 1] (0 where a gradient is zero) and `norm_ratio_<b>_<a>` =
        |g_b| / |g_a| for each pair, `grad_norm_<view>`. What is not finite stays so.
    """
    norms = gramians.diagonal(dim1=-2, dim2=-1).clamp(min=0).sqrt()
    statistics = {}
    for i, j in combinations(range(len(views)), 2):
        product = norms[..., i] * norms[..., j]
        cosine = torch.where(product == 0, torch.zeros_like(product), gramians[..., i, j] / product)
        statistics[f"cosine_{views[i]}_{views[j]}"] = cosine.clamp(-1, 1)
        statistics[f"norm_ratio_{views[j]}_{views[i]}"] = norms[..., j] / norms[..., i]
    for i, view in enumerate(views):
        statistics[f"grad_norm_{view}"] = norms[..., i]
    return statistics


@torch.no_grad()
def conflicts(gramians: Tensor) -> Tensor:
    """Whether any two views have a negative product: (..., K, K) -> (...), 1 or 0, NaN for a non-finite Gramian."""
    finite = torch.isfinite(gramians).flatten(-2).all(-1)
    return torch.where(finite, (gramians < 0).flatten(-2).any(-1).to(gramians.dtype), torch.nan)


class RunningMeans:
    """Means of named scalars, summed on their device and read out only when asked for.

    A value that is not finite (an overflowed update, a ratio to a zero norm) is left out of its own mean, so that one
    bad step does not blot out the record of an epoch.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, Tensor] = {}
        self._steps = 0

    def __len__(self) -> int:
        """Number of updates since the last `reset`."""
        return self._steps

    @torch.no_grad()
    def update(self, values: dict[str, Tensor]) -> None:
        """Add one update's scalars. No device is waited for."""
        self._steps += 1
        for name, value in values.items():
            value = value.detach().float()
            finite = torch.isfinite(value)
            total = self._sums.get(name, torch.zeros_like(value)).to(value.device)
            self._sums[name] = total + torch.where(finite, value, torch.zeros_like(value))
            self._counts[name] = self._counts.get(name, torch.zeros_like(finite)).to(value.device) + finite.long()

    def means(self, over_processes: Callable[[Tensor], Tensor] | None = None) -> dict[str, float]:
        """The means so far; a name that never had a finite value is left out.

        Args:
            over_processes: Sums a tensor over the processes of a distributed run, if the means are to be theirs all.
        """
        if not self._sums:
            return {}
        # All in one tensor, whose shape does not depend on what was finite: one reduction and one transfer.
        totals = torch.stack([torch.stack(list(self._sums.values())), torch.stack(list(self._counts.values())).float()])
        sums, counts = (over_processes(totals) if over_processes else totals).tolist()
        return {name: total / n for name, total, n in zip(self._sums, sums, counts, strict=True) if n}

    def reset(self) -> None:
        """Start anew."""
        self.__init__()

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers, fit for JSON."""
        return {
            "steps": self._steps,
            "sums": {name: float(value) for name, value in self._sums.items()},
            "counts": {name: int(value) for name, value in self._counts.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up where `state_dict` left off."""
        self._steps = state["steps"]
        self._sums = {name: torch.tensor(value, dtype=torch.float32) for name, value in state["sums"].items()}
        self._counts = {name: torch.tensor(value) for name, value in state["counts"].items()}
