"""CR-MOGM: smooth the weights of any method over updates."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hf_gradalign.alignment.methods.base import AlignmentMethod, check_state_keys


class CRMOGM(AlignmentMethod):
    r"""Uses a moving average of another method's weights, so a single noisy batch cannot reverse them.

    Algorithm 1 of Zhou et al., "On the Convergence of Stochastic Multi-Objective Gradient Manipulation and Beyond"
    (NeurIPS 2022). With :math:`\hat\lambda_k` the weights from the method at update :math:`k`,

    .. math:: \lambda_k = \alpha \lambda_{k-1} + (1 - \alpha) \hat\lambda_k .

    Each group of parameters has its own average. A non-finite Gramian does not change it. TorchJD's `CRMOGMWeighting`
    does the same on the host for one group at a time. Here the averages stay on the device.

    Args:
        method: The method whose weights are smoothed.
        alpha: Weight of the past, in [0, 1]; 0 gives the method's own weights.
        initial_weights: :math:`\lambda_0`, one weight per view; by default the first weights from the method.

    Raises:
        ValueError: If `alpha` is outside [0, 1] or an initial weight is not finite; when called, if there is not one
            initial weight per view.
    """

    def __init__(
        self, method: AlignmentMethod, alpha: float = 0.9, initial_weights: Sequence[float] | None = None
    ) -> None:
        if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not 0 <= alpha <= 1:
            raise ValueError(f"alpha of crmogm must be in [0, 1], got {alpha!r}")
        self.method = method
        self.alpha = alpha
        self.initial_weights = None if initial_weights is None else _to_finite_floats(initial_weights)
        self._average: Tensor | None = None  # (G, K); NaN for a group without weights so far

    def _weights(self, gramian: Tensor, valid: Tensor, precision: float) -> Tensor:
        latest = self.method._weights(gramian, valid, precision)
        latest = torch.where(torch.isfinite(latest).all(1, keepdim=True), latest, 1 / gramian.shape[-1])
        past = self._previous_average(latest)
        average = self.alpha * torch.where(torch.isnan(past), latest, past) + (1 - self.alpha) * latest
        self._average = torch.where(valid[:, None], average, past)
        return average

    def _previous_average(self, latest: Tensor) -> Tensor:
        if self._average is None:
            return self._initial_average(latest)
        if self._average.shape != latest.shape:
            raise ValueError(
                f"CR-MOGM has averages for (groups, views) = {tuple(self._average.shape)} and was given Gramians of "
                f"shape {tuple(latest.shape)}; create a new method for other views or another scope"
            )
        return self._average.to(latest)

    def _initial_average(self, latest: Tensor) -> Tensor:
        if self.initial_weights is None:
            return torch.full_like(latest, torch.nan)
        if len(self.initial_weights) != latest.shape[1]:
            raise ValueError(f"crmogm has {len(self.initial_weights)} initial_weights for {latest.shape[1]} views")
        return latest.new_tensor(self.initial_weights).expand_as(latest)

    def state_dict(self) -> dict[str, Any]:  # noqa: D102
        average = self._average
        rows = None if average is None else [None if row[0] != row[0] else row for row in average.tolist()]
        return {"average": rows, "method": self.method.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: D102
        check_state_keys(self, state, {"average", "method"})
        self.method.load_state_dict(state["method"])
        rows = state["average"]
        if rows is not None:
            views = max((len(row) for row in rows if row is not None), default=0)
            rows = [[torch.nan] * views if row is None else row for row in rows]
        # If no group has an average yet, there is nothing to restore.
        self._average = torch.tensor(rows, dtype=torch.float64) if rows and rows[0] else None


def _to_finite_floats(weights: Sequence[float]) -> list[float]:
    try:
        tensor = torch.tensor(weights, dtype=torch.float64)
    except (TypeError, ValueError):
        tensor = torch.empty(0)
    if tensor.ndim != 1 or not len(tensor) or not torch.isfinite(tensor).all():
        raise ValueError(f"initial_weights of crmogm must be a list of numbers, one per view, got {weights!r}")
    return tensor.tolist()
