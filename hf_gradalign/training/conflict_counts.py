"""How often the views conflicted, epoch by epoch: the figure of the paper, kept for the whole run."""

from typing import Any

import torch
from torch import Tensor


class ConflictCounts:
    """Counts updates, conflicts and non-finite Gramians by epoch, on the device until read."""

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
