"""What every alignment method has in common: a Gramian in, weights out, and a state that survives a resume."""

import functools
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

METHODS: dict[str, "type[AlignmentMethod]"] = {}
"""The methods that `get_method` makes, by name."""


class AlignmentMethod(ABC):
    """A callable from the K x K Gramian of the views' gradients to the K weights of their combination.

    A subclass that gives its name, `class PCGrad(AlignmentMethod, name="pcgrad")`, can be asked for by that name as
    soon as its module is imported.

    Non-finite Gramians give the weights of the plain mean and leave what the method has learned alone: a gradient that
    overflowed then stays non-finite in the combination, where loss scaling and NaN filters look for it, and finite
    gradients whose products overflowed stay finite. Nothing here waits for the device.
    """

    def __init_subclass__(cls, name: str | None = None) -> None:
        super().__init_subclass__()
        if name is not None:
            METHODS[name] = cls

    @torch.no_grad()
    def __call__(self, gramian: Tensor) -> Tensor:
        """Weights of the views' gradients.

        Args:
            gramian: Shape (K, K), K >= 1, floating point, entry (i, j) the inner product g_i . g_j; or (G, K, K), one
                Gramian for each of G groups of parameters, always in the same order.

        Returns:
            Shape (K,) or (G, K), of the Gramian's type and device.

        Raises:
            ValueError: If the Gramian is not a square matrix, or not as many of them as before.
        """
        if gramian.ndim not in (2, 3) or gramian.shape[-2] != gramian.shape[-1] or gramian.shape[-1] == 0:
            raise ValueError(f"a Gramian is a square matrix, got shape {tuple(gramian.shape)}")
        views = gramian.shape[-1]
        if views == 1:
            return torch.ones_like(gramian[..., 0])
        # Weights are ratios of near-cancelling terms; K x K matrices in float64 cost nothing. Apple's GPU has none.
        work = gramian if gramian.device.type == "mps" else gramian.double()
        work = work.reshape(-1, views, views)
        finite = work.flatten(1).abs().amax(1) < torch.inf  # nor NaN, which is in no order
        work = torch.where(finite[:, None, None], work, _identity(views, work.dtype, work.device))
        weights = self._weights(work, finite, torch.finfo(gramian.dtype).eps).to(gramian.dtype)
        usable = finite & (weights.abs().amax(1) < torch.inf)
        weights = torch.where(usable[:, None], weights, 1 / views)
        return weights.reshape(gramian.shape[:-1])

    @abstractmethod
    def _weights(self, gramian: Tensor, valid: Tensor, precision: float) -> Tensor:
        """Weights (G, K) for finite Gramians (G, K, K).

        What is learned of a group may change only where the boolean `valid` (G,) is true. The Gramians' entries are
        known to `precision`, relative to the largest, whatever type they come in.
        """

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs, as plain numbers and lists (fit for JSON); empty for a stateless method."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave.

        Raises:
            ValueError: If the state is not this method's.
        """
        if state:
            raise ValueError(f"{type(self).__name__} keeps no state, got {sorted(state)}")


def check_reduction(reduction: str) -> str:
    """Return `reduction` if it is "mean" or "sum".

    Raises:
        ValueError: If it is neither.
    """
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction must be 'mean' (the published code) or 'sum' (the papers), got {reduction!r}")
    return reduction


def check_state_keys(method: AlignmentMethod, state: dict[str, Any], keys: set[str]) -> None:
    """Refuse a state that belongs to another method.

    Raises:
        ValueError: If `state` does not have exactly `keys`.
    """
    if set(state) != keys:
        raise ValueError(f"{type(method).__name__} expects the state {sorted(keys)}, got {sorted(state)}")


def visiting_order(views: int, view: int, seed: int, call: int) -> list[int]:
    """The other views in random order, a function of the arguments alone.

    With two views there is no choice, and nothing is drawn. Every process of a distributed run gets the same order
    without talking to the others, and a resumed run needs to remember only the number of calls.

    Args:
        views: Number of views K.
        view: The view that is being adjusted, in [0, K).
        seed: The method's seed.
        call: How many times the method was called before.
    """
    others = [other for other in range(views) if other != view]
    if len(others) < 2:
        return others
    generator = torch.Generator().manual_seed(hash((seed, call, view)) % 2**63)
    return [others[index] for index in torch.randperm(len(others), generator=generator)]


@functools.lru_cache(maxsize=16)
def _identity(views: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.eye(views, dtype=dtype, device=device)
