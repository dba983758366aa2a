"""The base class of alignment methods: a Gramian in, weights out, and a state that survives a resume."""

import functools
import re
import sys
from typing import Any

import torch
from torch import Tensor

METHODS: dict[str, "type[AlignmentMethod]"] = {}
"""The methods known to `get_method`, by name."""


def _definition_of(kind: type) -> tuple[str, str]:
    """Return where a class is defined, its file (or its module if there is no file), and its name there."""
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    return file or kind.__module__, kind.__qualname__


class AlignmentMethod:
    """A callable that maps the K x K Gramian of the views' gradients to the K weights of their combination.

    A subclass with a name, `class PCGrad(AlignmentMethod, name="pcgrad")`, is available to `get_method` under that name
    once its module is imported. A name that is already taken raises a ValueError; for a name of TorchJD, when the
    method is first used.

    Non-finite Gramians give the weights of the mean and do not change the method's state. A gradient that overflowed
    therefore stays non-finite in the combination, where loss scaling and NaN filters look for it, and finite gradients
    whose products overflowed stay finite. The host never waits for the device, except for Apple's GPU (MPS), where the
    weights are computed on the CPU.
    """

    def __init_subclass__(cls, name: str | None = None) -> None:
        super().__init_subclass__()
        if name is None:
            return
        taken = next((known for known in METHODS if plain_name(known) == plain_name(name)), name)
        other = METHODS.get(taken)
        # Running a notebook cell again, or importing a script that is also run, defines the same class twice.
        if other is not None and _definition_of(other) != _definition_of(cls):
            raise ValueError(
                f"{cls.__module__}.{cls.__qualname__} cannot have the name {name!r}, which {other.__module__}."
                f"{other.__qualname__} already has; choose another one"
            )
        METHODS[taken] = cls

    @torch.no_grad()
    def __call__(self, gramian: Tensor) -> Tensor:
        """Return the weights of the views' gradients.

        Args:
            gramian: Shape (K, K), K >= 1, floating point, where entry (i, j) is the inner product g_i . g_j; or
                (G, K, K), one Gramian for each of G groups of parameters, always in the same order.

        Returns:
            Shape (K,) or (G, K), with the Gramian's type and device.

        Raises:
            ValueError: If the Gramian is not a square matrix, the number of groups or views has changed, or `_weights`
                returns another shape.
        """
        if gramian.ndim not in (2, 3) or gramian.shape[-2] != gramian.shape[-1] or gramian.shape[-1] == 0:
            raise ValueError(f"a Gramian must be a square matrix, got shape {tuple(gramian.shape)}")
        views = gramian.shape[-1]
        if views == 1:
            return torch.ones_like(gramian[..., 0])
        # Weights are ratios of nearly canceling terms, and float64 is cheap for K x K matrices. MPS has no float64, and
        # solves linear systems one by one, each with a wait of the host.
        work = gramian.cpu().double() if gramian.device.type == "mps" else gramian.double()
        work = work.reshape(-1, views, views)
        finite = torch.linalg.vector_norm(work, torch.inf, (1, 2)) < torch.inf  # False for NaN
        work = torch.where(finite[:, None, None], work, identity(views, work.dtype, work.device))
        weights = self._weights(work, finite, torch.finfo(gramian.dtype).eps).to(gramian.dtype)
        if weights.shape != work.shape[:2]:
            raise ValueError(
                f"{type(self).__name__}._weights must return one weight per group and view, of shape "
                f"{tuple(work.shape[:2])}; got {tuple(weights.shape)}"
            )
        usable = finite & (torch.linalg.vector_norm(weights, torch.inf, 1) < torch.inf)
        weights = torch.where(usable[:, None], weights, 1 / views)
        return weights.reshape(gramian.shape[:-1]).to(gramian.device)

    # Not an abstract class, because ABCMeta in Python 3.10 does not accept the keyword `name`.
    def _weights(self, gramian: Tensor, valid: Tensor, precision: float) -> Tensor:
        """Return weights (G, K) for finite Gramians (G, K, K).

        The state of a group may only change where the boolean `valid` (G,) is true. `precision` is the relative
        precision of the Gramians' entries, whatever their type.
        """
        raise NotImplementedError(f"{type(self).__name__} has no method _weights")

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a resumed run as plain numbers and lists for JSON; empty for a stateless method."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError: If the state belongs to another method.
        """
        if state:
            raise ValueError(f"{type(self).__name__} has no state, got {sorted(state)}")


def plain_name(name: str) -> str:
    """Return a name in lower case without hyphens, underscores and spaces, for comparing names."""
    return re.sub(r"[-_\s]", "", name.lower())


def check_reduction(reduction: str) -> str:
    """Return `reduction` if it is "mean" or "sum".

    Raises:
        ValueError: If it is neither.
    """
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction must be 'mean' (the published code) or 'sum' (the papers), got {reduction!r}")
    return reduction


def check_state_keys(method: AlignmentMethod, state: dict[str, Any], keys: set[str]) -> None:
    """Check that a state belongs to this method.

    Raises:
        ValueError: If `state` does not have exactly `keys`.
    """
    if set(state) != keys:
        raise ValueError(f"{type(method).__name__} expects the state {sorted(keys)}, got {sorted(state)}")


def visiting_order(views: int, view: int, seed: int, call: int) -> list[int]:
    """Return the other views in a random order that depends only on the arguments.

    Nothing is drawn for two views. Every process of a distributed run gets the same order without communication, and a
    resumed run needs only the number of calls.

    Args:
        views: Number of views K.
        view: The view to adjust, in [0, K).
        seed: The method's seed.
        call: Number of earlier calls of the method.
    """
    others = [other for other in range(views) if other != view]
    if len(others) < 2:
        return others
    generator = torch.Generator().manual_seed(hash((seed, call, view)) % 2**63)
    return [others[index] for index in torch.randperm(len(others), generator=generator)]


@functools.lru_cache(maxsize=16)
def identity(views: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the identity matrix, shape (views, views), the same each time. Do not change it."""
    return torch.eye(views, dtype=dtype, device=device)


@functools.lru_cache(maxsize=64)
def pair_mask(others: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return a mask (K, K) that is true at column `others[i]` of each row i, and these columns (1, K, 1)."""
    # Filled on the device, because a copy from the host would wait for the device.
    column = torch.stack([torch.full((), other, device=device) for other in others])[:, None]
    return column == torch.arange(len(others), device=device), column[None]


def take_column(matrices: Tensor, column: Tensor) -> Tensor:
    """Return the entry in column `column[0, i, 0]` of each row i of matrices (G, K, K), shape (G, K)."""
    return matrices.gather(2, column.expand(len(matrices), -1, 1)).squeeze(2)


def sum_rows(matrices: Tensor) -> Tensor:
    """Sum the rows of matrices (G, K, K), always in the same order: shape (G, K)."""
    total, *rows = matrices.unbind(1)
    for row in rows:
        total = total + row
    return total
