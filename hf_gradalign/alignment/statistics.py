"""Conflict statistics of an update, their means over many updates, and counts per epoch: what the paper plots."""

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
        cosine = torch.where(product == 0, 0.0, gramians[..., i, j] / product)
        statistics[f"cosine_{views[i]}_{views[j]}"] = cosine.clamp(-1, 1)
        statistics[f"norm_ratio_{views[j]}_{views[i]}"] = norms[..., j] / norms[..., i]
    for i, view in enumerate(views):
        statistics[f"grad_norm_{view}"] = norms[..., i]
    return statistics


@torch.no_grad()
def conflicts(gramians: Tensor) -> Tensor:
    """Whether any two views have a negative product: (..., K, K) -> (...), 1 or 0, NaN for a non-finite Gramian."""
    finite = gramians.flatten(-2).abs().amax(-1) < torch.inf  # nor NaN, which is in no order
    return torch.where(finite, (gramians < 0).flatten(-2).any(-1).to(gramians.dtype), torch.nan)


class RunningMeans:
    """Means of named scalars, summed on their device and read out only when asked for.

    A value that is not finite (an overflowed update, a ratio to a zero norm) is left out of its own mean, so that one
    bad step does not blot out the record of an epoch.
    """

    def __init__(self) -> None:
        # Updates with the same names share two vectors, so that an update is a few launches on a GPU.
        self._totals: dict[tuple[str, ...], Tensor] = {}  # (2, names): sums of finite values, and how many there were
        self._steps = 0

    def __len__(self) -> int:
        """Number of updates since the last `reset`."""
        return self._steps

    @torch.no_grad()
    def update(self, values: dict[str, Tensor]) -> None:
        """Add one update's scalars. No device is waited for."""
        self._steps += 1
        names = tuple(values)
        stacked = torch.stack([value.detach().float() for value in values.values()])
        finite = stacked.abs() < torch.inf  # NaN is not
        new = torch.stack([torch.where(finite, stacked, 0.0), finite.float()])
        self._totals[names] = self._totals[names].to(new.device) + new if names in self._totals else new

    def means(self, over_processes: Callable[[Tensor], Tensor] | None = None) -> dict[str, float]:
        """The means so far; a name that never had a finite value is left out.

        Args:
            over_processes: Sums a tensor over the processes of a distributed run, if the means are to be theirs all.
        """
        if not self._totals:
            return {}
        # All in one tensor, whose shape does not depend on what was finite: one reduction and one transfer.
        device = next(iter(self._totals.values())).device
        totals = torch.cat([total.to(device) for total in self._totals.values()], dim=1)
        gathered = over_processes(totals) if over_processes else totals
        return {name: total / n for name, (total, n) in self._by_name(gathered.tolist()).items() if n}

    def reset(self) -> None:
        """Start over."""
        self.__init__()

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers, fit for JSON."""
        parts = [total.cpu() for total in self._totals.values()]
        totals = self._by_name(torch.cat(parts, dim=1).tolist()) if parts else {}
        return {
            "steps": self._steps,
            "sums": {name: total for name, (total, _) in totals.items()},
            "counts": {name: int(n) for name, (_, n) in totals.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up where `state_dict` left off."""
        self._steps = state["steps"]
        rows = [list(state["sums"].values()), [state["counts"][name] for name in state["sums"]]]
        self._totals = {tuple(state["sums"]): torch.tensor(rows, dtype=torch.float32)} if state["sums"] else {}

    def _by_name(self, rows: list[list[float]]) -> dict[str, tuple[float, float]]:
        totals: dict[str, tuple[float, float]] = {}
        names = [name for group in self._totals for name in group]
        for name, total, n in zip(names, *rows, strict=True):
            before = totals.get(name, (0.0, 0.0))
            totals[name] = (before[0] + total, before[1] + n)
        return totals


class ConflictCounts:
    """Counts updates, conflicts and non-finite Gramians per epoch, on the device until read."""

    def __init__(self) -> None:
        self._counts: dict[int, Tensor] = {}

    @torch.no_grad()
    def update(self, epoch: int, conflict: Tensor) -> None:
        """Count one update.

        Args:
            epoch: Index of the epoch, from 0.
            conflict: Scalar, 1 for a conflict, 0 for none, NaN where the Gramian is not finite (`conflicts`).
        """
        counts = torch.stack([torch.ones_like(conflict), conflict == 1, conflict.isnan()]).long()
        self._counts[epoch] = self._counts[epoch].to(counts) + counts if epoch in self._counts else counts

    def rates(self) -> dict[int, float]:
        """Fraction of an epoch's finite updates in which two views conflicted, by epoch from 0."""
        return {epoch: rate for epoch, counts in self._counts.items() if (rate := _rate(counts)) is not None}

    def rate(self) -> float | None:
        """Fraction over the whole run; None before the first finite update."""
        return _rate(sum(self._counts.values())) if self._counts else None

    def nonfinite(self) -> int:
        """Updates whose gradients were not finite (or too large for their products to be)."""
        return sum(int(counts[2]) for counts in self._counts.values())

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers, fit for JSON."""
        return {str(epoch): counts.tolist() for epoch, counts in self._counts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up where `state_dict` left off."""
        self._counts = {int(epoch): torch.tensor(counts) for epoch, counts in state.items()}


def _rate(counts: Tensor) -> float | None:
    updates, conflicts, nonfinite = counts.tolist()
    return conflicts / (updates - nonfinite) if updates > nonfinite else None
