"""What is known of one aligned update, for those who record it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_gradalign.alignment import AlignmentMethod


@dataclass(frozen=True)
class AlignedUpdate:
    """One update's figures, on the device: reading them out makes the host wait.

    Attributes:
        views: The K views' names.
        products: Shape (P, K, K), inner products of the views' gradients by parameter (`compute_products`); P is the
            number of parameters, in the order of `GradientAlignmentTrainer.parameter_groups.names`.
        gramians: Shape (G, K, K), those of the groups that were aligned.
        weights: Shape (G, K), what the views' gradients were multiplied by.
        losses: Each view's mean loss, scalars; on a distributed run this process's share of it.
        loss_scale: Factor by which fp16 training multiplied the loss, and so every gradient; 1 otherwise.
    """

    views: list[str]
    products: Tensor
    gramians: Tensor
    weights: Tensor
    losses: dict[str, Tensor]
    loss_scale: Tensor


@torch.no_grad()
def weigh_views(method: AlignmentMethod, gramians: Tensor, view_scale: Tensor | None) -> Tensor:
    """Weights (G, K) of gradients that count by `view_scale` (K,), with mean 1: the method sees them scaled."""
    if view_scale is None:
        return method(gramians)
    return method(gramians * view_scale[:, None] * view_scale) * view_scale


def check_view_weights(views: Sequence[str], weights: Mapping[str, float] | None) -> None:
    """Refuse weights of views that are not there.

    Raises:
        ValueError: If a weight is for a view that is not there.
    """
    if unknown := sorted(set(weights or ()) - set(views)):
        raise ValueError(f"--view_weights has a weight for {', '.join(unknown)}; the views are {', '.join(views)}")


def view_scale(views: list[str], weights: dict[str, float] | None, device: torch.device) -> Tensor | None:
    """The views' weights over their mean, shape (K,); None where all count alike.

    Raises:
        ValueError: If a weight is for a view that is not there.
    """
    check_view_weights(views, weights)
    factors = [(weights or {}).get(view, 1.0) for view in views]
    if len(set(factors)) == 1:
        return None
    mean = sum(factors) / len(factors)
    # Filled in on the device: a copy from the host would wait for what the device has still to do.
    return torch.stack([torch.full((), factor / mean, device=device) for factor in factors])
