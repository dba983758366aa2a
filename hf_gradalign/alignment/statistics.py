"""Conflict statistics of an update, means over many updates, and counts per epoch, as plotted in the paper."""

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import torch
from torch import Tensor


@torch.no_grad()
def conflict_statistics(gramian: Tensor, weights: Tensor, views: Sequence[str]) -> dict[str, Tensor]:
    """Return the statistics of one update, as scalars on the Gramian's device, or of N updates at once.

    Args:
        gramian: Shape (K, K), the inner products of the views' gradients; or (G, K, K), one Gramian per group of
            parameters, which add up to the Gramian of all parameters; or (N, G, K, K) for N updates.
        weights: Shape (K,), (G, K) or (N, G, K), the weights from the alignment method.
        views: Names of the K views.

    Returns:
        `conflict_rate` (1 if any two views have a negative cosine, else 0; NaN for a non-finite Gramian; missing for a
        single view); `cosine_<a>_<b>` in [-1, 1] (0 for a zero gradient) and `norm_ratio_<b>_<a>` = |g_b| / |g_a| for
        each pair; `grad_norm_<view>` and `weight_<view>` (the mean over groups). For more than one group also
        `group_conflict_rate`, the fraction of groups in which any two views conflict. For N updates, tensors of shape
        (N,) with the same values.
    """
    k = len(views)
    groups = gramian if gramian.ndim == 4 else gramian.reshape(1, -1, k, k)
    weights = weights.reshape(len(groups), -1, k)
    has_groups = groups.shape[1] > 1
    # Sum over groups one update at a time, because a larger tensor may be summed in another order, with other rounding.
    totals = torch.stack([update.sum(0) for update in groups]) if has_groups else groups[:, 0]
    means = torch.stack([update.mean(0) for update in weights]) if has_groups else weights[:, 0]
    statistics = {}
    if k > 1:
        statistics["conflict_rate"] = conflicts(totals)
        if has_groups:
            statistics["group_conflict_rate"] = conflicts(groups).mean(-1)
    statistics |= gradient_statistics(totals, views)
    for i, view in enumerate(views):
        statistics[f"weight_{view}"] = means[:, i]
    return statistics if gramian.ndim == 4 else {name: values[0] for name, values in statistics.items()}


@torch.no_grad()
def gradient_statistics(gramians: Tensor, views: Sequence[str]) -> dict[str, Tensor]:
    """Return the cosines and norms of gradients from their Gramians.

    Args:
        gramians: Shape (..., K, K).
        views: Names of the K views.

    Returns:
        Tensors of shape (...): `cosine_<a>_<b>` in [-1, 1] (0 for a zero gradient) and `norm_ratio_<b>_<a>` =
        |g_b| / |g_a| for each pair, and `grad_norm_<view>`. Non-finite values stay non-finite.
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
    """Return 1 if any two views have a negative product, else 0; NaN for a non-finite Gramian: (..., K, K) -> (...)."""
    finite = gramians.abs().amax((-2, -1)) < torch.inf  # False for NaN; the infinity norm ignores NaN on MPS
    return torch.where(finite, (gramians.amin((-2, -1)) < 0).to(gramians.dtype), torch.nan)


class RunningMeans:
    """Means of named scalars. They are summed on the device and copied to the host only on request.

    A non-finite value (from an overflowed update, or a ratio to a zero norm) is left out of its mean, so that one bad
    step does not hide the others.
    """

    def __init__(self) -> None:
        # Updates with the same names share two vectors, so an update takes only a few launches on a GPU.
        self._totals: dict[tuple[str, ...], Tensor] = {}  # (2, names): sums of finite values and their counts
        self._steps = 0

    def __len__(self) -> int:
        """Return the number of updates since the last `reset`."""
        return self._steps

    @torch.no_grad()
    def update(self, values: dict[str, Tensor]) -> None:
        """Add the scalars of one update, or the vectors of several, without waiting for the device."""
        names = tuple(values)
        stacked = torch.stack([value.detach().float().reshape(-1) for value in values.values()], 1)  # (updates, names)
        finite = stacked.abs() < torch.inf  # False for NaN
        # Added one by one, so that the sums do not depend on how updates are batched.
        for new in torch.stack([torch.where(finite, stacked, 0.0), finite.float()], 1):
            self._totals[names] = self._totals[names].to(new.device) + new if names in self._totals else new
        self._steps += len(stacked)

    def means(self, over_processes: Callable[[Tensor], Tensor] | None = None) -> dict[str, float]:
        """Return the means so far. Names that never had a finite value are left out.

        Args:
            over_processes: Function that sums a tensor over all processes; the means are then those of all processes.
        """
        if not self._totals:
            return {}
        # One tensor, whose shape does not depend on the values, takes one reduction and one transfer.
        device = next(iter(self._totals.values())).device
        totals = torch.cat([total.to(device) for total in self._totals.values()], dim=1)
        gathered = over_processes(totals) if over_processes else totals
        return {name: total / n for name, (total, n) in self._by_name(gathered.tolist()).items() if n}

    def reset(self) -> None:
        """Clear all sums."""
        self._totals, self._steps = {}, 0

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain numbers for JSON."""
        parts = [total.cpu() for total in self._totals.values()]
        totals = self._by_name(torch.cat(parts, dim=1).tolist()) if parts else {}
        return {
            "steps": self._steps,
            "sums": {name: total for name, (total, _) in totals.items()},
            "counts": {name: int(n) for name, (_, n) in totals.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
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
    """Counts updates, conflicts and non-finite Gramians per epoch, on the device until they are read."""

    def __init__(self) -> None:
        self._counts: dict[int, Tensor] = {}

    @torch.no_grad()
    def update(self, epoch: int, conflict: Tensor) -> None:
        """Count one update, or several.

        Args:
            epoch: Index of the epoch, from 0.
            conflict: Scalar or vector from `conflicts`: 1 for a conflict, 0 for none, NaN for a non-finite Gramian.
        """
        conflict = conflict.reshape(-1)
        counts = torch.stack([torch.ones_like(conflict), conflict == 1, conflict.isnan()]).long().sum(1)
        self._counts[epoch] = self._counts[epoch].to(counts) + counts if epoch in self._counts else counts

    def rates(self) -> dict[int, float]:
        """Return the fraction of finite updates in which any two views conflict, for each epoch (counted from 0)."""
        return {epoch: rate for epoch, counts in self._counts.items() if (rate := _rate(counts)) is not None}

    def rate(self) -> float | None:
        """Return the fraction of `rates` over the whole run; None before the first finite update."""
        # In a resumed run, the counts of earlier epochs are on the CPU.
        return _rate(torch.stack([counts.cpu() for counts in self._counts.values()]).sum(0)) if self._counts else None

    def nonfinite(self) -> int:
        """Return the number of updates with non-finite gradients, or with gradients too large for their products."""
        return sum(int(counts[2]) for counts in self._counts.values())

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain numbers for JSON."""
        return {str(epoch): counts.tolist() for epoch, counts in self._counts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._counts = {int(epoch): torch.tensor(counts) for epoch, counts in state.items()}


def _rate(counts: Tensor) -> float | None:
    updates, conflicts, nonfinite = counts.tolist()
    return conflicts / (updates - nonfinite) if updates > nonfinite else None
