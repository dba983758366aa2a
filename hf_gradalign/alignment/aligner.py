"""The core of the paper: combine the gradients of several views into one aligned update."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import cast

import torch
from torch import Tensor

from hf_gradalign.alignment.methods import AlignmentMethod
from hf_gradalign.alignment.parameter_groups import ParameterGroups
from hf_gradalign.alignment.statistics import conflict_statistics
from hf_gradalign.alignment.view_gradients import ViewGradients


@dataclass(frozen=True)
class AlignedUpdate:
    """An aligned update: its Gramians, weights and losses. Tensors stay on the device; reading one makes the host wait.

    Attributes:
        views: Names of the K views.
        products: Shape (P, K, K), inner products of the views' gradients per parameter (`compute_products`), in the
            order of `ParameterGroups.names`.
        gramians: Shape (G, K, K), one per group of parameters that are aligned together.
        weights: Shape (G, K), the factors that the views' gradients were multiplied by.
        losses: Mean loss of each view, as scalars. Set by the trainer; in a distributed run, the share of this process.
        loss_scale: The factor by which fp16 training multiplied the loss, and therefore every gradient. Set by the
            trainer; None for 1.
    """

    views: list[str]
    products: Tensor
    gramians: Tensor
    weights: Tensor
    losses: Mapping[str, Tensor] | None = None
    loss_scale: Tensor | None = None

    def statistics(self) -> dict[str, Tensor]:
        """Return the losses and the statistics of `conflict_statistics`, with norms divided by the loss scale."""
        return {name: values[0] for name, values in statistics_of_updates([self]).items()}


@torch.no_grad()
def statistics_of_updates(updates: Sequence[AlignedUpdate]) -> dict[str, Tensor]:
    """Return the statistics of N updates of the same views and groups, as `AlignedUpdate.statistics` would.

    Takes about as many kernel launches as for one update.

    Returns:
        Tensors of shape (N,).
    """
    views = updates[0].views
    gramians = torch.stack([update.gramians for update in updates])
    weights = torch.stack([update.weights for update in updates])
    statistics = conflict_statistics(gramians, weights, views)
    for view in views:
        if updates[0].loss_scale is not None:
            scales = torch.stack([cast(Tensor, update.loss_scale) for update in updates])
            statistics[f"grad_norm_{view}"] = statistics[f"grad_norm_{view}"] / scales
        if updates[0].losses is not None:
            losses = [cast(Mapping[str, Tensor], update.losses)[view] for update in updates]
            statistics[f"loss_{view}"] = torch.stack(losses)
    return statistics


class Aligner:
    r"""Combines the gradients of several views of a batch into one update (arXiv 2509.20682).

    From the gradients :math:`g_i` of K views, it computes the Gramian :math:`G_{ij} = g_i \cdot g_j` of each group of
    parameters. The method turns the Gramian into weights :math:`w(G)`, and :math:`\sum_i w_i g_i` is written to
    `p.grad`. Parameters outside all groups get the mean of the views' gradients. Only torch is needed:

    ```python
    aligner = Aligner(get_method("pcgrad"), ParameterGroups([name for name, _ in model.named_parameters()]))
    gradients = ViewGradients(model.parameters())
    for view, inputs in batch.items():
        with gradients.accumulate(view):
            loss(model(inputs), labels).backward()
    update = aligner.align(gradients)
    optimizer.step()
    optimizer.zero_grad()
    ```

    Args:
        method: The alignment method. It may keep state between updates.
        groups: The groups of parameters that are aligned together. They must list the parameters in the order of the
            gradients.
        view_weights: Weight of each view by name, above 0; 1 by default. Gradients are scaled by these weights, divided
            by their mean, before the method sees them.

    Raises:
        ValueError: If a weight is not a positive number.
    """

    def __init__(
        self, method: AlignmentMethod, groups: ParameterGroups, view_weights: Mapping[str, float] | None = None
    ) -> None:
        self.method = method
        self.groups = groups
        self.view_weights = positive_weights(view_weights)

    @torch.no_grad()
    def align(self, view_gradients: ViewGradients) -> AlignedUpdate:
        """Write the aligned combination of the views' gradients to `p.grad`.

        Every process of a distributed run must call this. The host never waits for the device (except for MPS).

        Args:
            view_gradients: Gradients of each view; cleared by this call.

        Returns:
            The update's products, Gramians and weights.

        Raises:
            ValueError: If there is no view, a missing view has a weight, the method does not support this number of
                views, or the groups are for another number of parameters.
            RuntimeError: If a pass of this update failed.
        """
        views = view_gradients.views
        products = view_gradients.products()
        if len(products) != len(self.groups.index):
            raise ValueError(
                f"there are gradients of {len(products)} parameters, but the groups have {len(self.groups.index)}: "
                "make both from the same parameters, in the same order"
            )
        gramians = self.groups.gramians(products)
        scale = self.view_scale(views, gramians.device)
        weights = self.weigh(gramians, scale)
        rows = weights
        if None in self.groups.index:
            rest = torch.ones_like(weights[:1]) if scale is None else scale[None]
            rows = torch.cat([weights, rest / len(views)])
        view_gradients.combine(rows, [len(weights) if group is None else group for group in self.groups.index])
        return AlignedUpdate(views, products, gramians, weights)

    @torch.no_grad()
    def weigh(self, gramians: Tensor, scale: Tensor | None = None) -> Tensor:
        """Return the method's weights, given the Gramians of gradients scaled by `scale`.

        Args:
            gramians: Shape (G, K, K), of the unscaled gradients.
            scale: Shape (K,), with mean 1, from `view_scale`.

        Returns:
            Shape (G, K), the factors for the unscaled gradients.
        """
        if scale is None:
            return self.method(gramians)
        return self.method(gramians * scale[:, None] * scale) * scale

    def view_scale(self, views: Sequence[str], device: torch.device) -> Tensor | None:
        """Return the views' weights divided by their mean, shape (K,); None if all are equal.

        Raises:
            ValueError: If a missing view has a weight.
        """
        check_view_weights(views, self.view_weights)
        factors = [(self.view_weights or {}).get(view, 1.0) for view in views]
        if len(set(factors)) == 1:
            return None
        mean = sum(factors) / len(factors)
        # Filled on the device, because a copy from the host would wait for the device.
        return torch.stack([torch.full((), factor / mean, device=device) for factor in factors])


def check_view_weights(views: Sequence[str], weights: Mapping[str, float] | None) -> None:
    """Check that every weight belongs to a view.

    Raises:
        ValueError: If a missing view has a weight.
    """
    if unknown := sorted(set(weights or ()) - set(views)):
        raise ValueError(f"--view_weights names {', '.join(unknown)}, but the views are {', '.join(views)}")


def positive_weights(weights: Mapping[str, float] | None) -> dict[str, float] | None:
    """Return the views' weights as floats.

    Raises:
        ValueError: If one is not a positive, finite number.
    """
    for view, weight in (weights or {}).items():
        if isinstance(weight, bool) or not isinstance(weight, Real) or not 0 < weight < math.inf:
            raise ValueError(f"--view_weights: the weight of {view!r} must be a positive number, got {weight!r}")
    return None if weights is None else {view: float(weight) for view, weight in weights.items()}
