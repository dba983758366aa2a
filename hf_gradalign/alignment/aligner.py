"""The heart of the method: the views' gradients go in, one aligned update comes out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_gradalign.alignment.methods import AlignmentMethod
from hf_gradalign.alignment.parameter_groups import ParameterGroups
from hf_gradalign.alignment.statistics import conflict_statistics
from hf_gradalign.alignment.view_gradients import ViewGradients


@dataclass(frozen=True)
class AlignedUpdate:
    """What is known of one aligned update. All tensors stay on the device: reading one makes the host wait.

    Attributes:
        views: The K views' names.
        products: Shape (P, K, K), inner products of the views' gradients per parameter (`compute_products`), in the
            order of `ParameterGroups.names`.
        gramians: Shape (G, K, K), one per group of parameters that are aligned together.
        weights: Shape (G, K), the factors that the views' gradients were multiplied by.
        losses: Each view's mean loss, as scalars. Set by the trainer; in a distributed run this process's share.
        loss_scale: The factor by which fp16 training multiplied the loss and so every gradient. Set by the trainer.
    """

    views: list[str]
    products: Tensor
    gramians: Tensor
    weights: Tensor
    losses: Mapping[str, Tensor] | None = None
    loss_scale: Tensor | None = None

    def statistics(self) -> dict[str, Tensor]:
        """The update's conflict statistics (see `conflict_statistics`), norms without the loss scale, and losses."""
        statistics = conflict_statistics(self.gramians, self.weights, self.views)
        for view in self.views:
            if self.loss_scale is not None:
                statistics[f"grad_norm_{view}"] = statistics[f"grad_norm_{view}"] / self.loss_scale
            if self.losses is not None:
                statistics[f"loss_{view}"] = self.losses[view]
        return statistics


class Aligner:
    r"""Combines the gradients of several views of a batch into one update (arXiv 2509.20682).

    From the K views' gradients :math:`g_i` it takes the Gramian :math:`G_{ij} = g_i \cdot g_j` of each group of
    parameters, asks the method for weights :math:`w(G)`, and puts :math:`\sum_i w_i g_i` into `p.grad`. Parameters
    outside all groups get the mean of the views' gradients. It needs torch alone:

    ```python
    aligner = Aligner(get_method("pcgrad"), ParameterGroups([name for name, _ in model.named_parameters()]))
    gradients = ViewGradients(model.parameters())
    for view, inputs in batch.items():
        with gradients.accumulate(view):
            loss(model(inputs), labels).backward()
    update = aligner.align(gradients)
    optimizer.step()
    ```

    Args:
        method: The alignment method. It may keep a state between updates.
        groups: Which parameters are aligned together; for the same parameters, in the same order, as the gradients.
        view_weights: How much each view counts, by name; 1 where nothing is given. Gradients are scaled by these
            weights, divided by their mean, before the method sees them.
    """

    def __init__(
        self, method: AlignmentMethod, groups: ParameterGroups, view_weights: Mapping[str, float] | None = None
    ) -> None:
        self.method = method
        self.groups = groups
        self.view_weights = view_weights

    @torch.no_grad()
    def align(self, view_gradients: ViewGradients) -> AlignedUpdate:
        """Put the aligned combination of the views' gradients into `p.grad`.

        Every process of a distributed run must call this alike. Nothing waits for the device.

        Args:
            view_gradients: Holds a gradient for each view; it holds none afterwards.

        Returns:
            What the update was made of.

        Raises:
            ValueError: If a weight is for a view that is not there, or the method cannot weigh this number of views.
        """
        views = view_gradients.views
        products = view_gradients.products()
        gramians = self.groups.gramians(products)
        scale = self.view_scale(views, gramians.device)
        weights = self.weigh(gramians, scale)
        rest = torch.ones_like(weights[:1]) if scale is None else scale[None]
        rows = torch.cat([weights, rest / len(views)])
        view_gradients.combine(rows, [len(weights) if group is None else group for group in self.groups.index])
        return AlignedUpdate(views, products, gramians, weights)

    @torch.no_grad()
    def weigh(self, gramians: Tensor, scale: Tensor | None = None) -> Tensor:
        """The method's weights for gradients that count by `scale`; the method sees the Gramians of scaled gradients.

        Args:
            gramians: Shape (G, K, K).
            scale: Shape (K,), of mean 1, as `view_scale` gives it.

        Returns:
            Shape (G, K), factors of the gradients as they are.
        """
        if scale is None:
            return self.method(gramians)
        return self.method(gramians * scale[:, None] * scale) * scale

    def view_scale(self, views: Sequence[str], device: torch.device) -> Tensor | None:
        """The views' weights divided by their mean, shape (K,); None where all views count the same.

        Raises:
            ValueError: If a weight is for a view that is not there.
        """
        check_view_weights(views, self.view_weights)
        factors = [(self.view_weights or {}).get(view, 1.0) for view in views]
        if len(set(factors)) == 1:
            return None
        mean = sum(factors) / len(factors)
        # Filled on the device: a copy from the host would wait for the device's pending work.
        return torch.stack([torch.full((), factor / mean, device=device) for factor in factors])


def check_view_weights(views: Sequence[str], weights: Mapping[str, float] | None) -> None:
    """Refuse weights of views that are not there.

    Raises:
        ValueError: If a weight is for a view that is not there.
    """
    if unknown := sorted(set(weights or ()) - set(views)):
        raise ValueError(f"--view_weights has a weight for {', '.join(unknown)}; the views are {', '.join(views)}")
