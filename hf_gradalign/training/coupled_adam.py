"""Adam with coupled weight decay, as before AdamW."""

from collections.abc import Iterable
from typing import Any

import torch


class CoupledDecayAdam(torch.optim.Adam):
    """`torch.optim.Adam` with the same weight decay for all parameters, whatever their groups specify.

    Adam adds `weight_decay * p` to the gradient, so the decay is normalized along with the gradient. AdamW subtracts
    `lr * weight_decay * p` from the parameter, which is almost nothing at a learning rate of 1e-6. The `Trainer` puts
    biases and norms into a group without decay. Published code that passes `model.parameters()` decays them too.

    Args:
        groups: Parameter groups, as made by the `Trainer`.
        weight_decay: Weight decay of all groups.
        options: As for `torch.optim.Adam`.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], *, weight_decay: float, **options: Any) -> None:
        groups = [{**group, "params": list(group["params"]), "weight_decay": weight_decay} for group in groups]
        if all(parameter.is_cuda for group in groups for parameter in group["params"]):
            options.setdefault("fused", True)  # one kernel for many parameters, as the Trainer does by default
        super().__init__(groups, weight_decay=weight_decay, **options)
