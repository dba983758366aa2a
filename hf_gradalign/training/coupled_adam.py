"""Adam as it was before AdamW: weight decay is part of the gradient."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch


class CoupledDecayAdam(torch.optim.Adam):
    """`torch.optim.Adam` with the same weight decay for all parameters, whatever the groups say.

    Adam adds `weight_decay * p` to the gradient, so that the decay is divided by the gradient's running size with it,
    where AdamW takes `lr * weight_decay * p` off the parameter. With a learning rate of 1e-6 the latter is next to
    nothing. The `Trainer` gives biases and norms a group of their own without decay; published code that passes
    `model.parameters()` decays them too.

    Args:
        groups: Parameter groups, as the `Trainer` makes them.
        weight_decay: Weight decay of all of them.
        options: As for `torch.optim.Adam`.
    """

    def __init__(self, groups: Iterable[Mapping[str, Any]], *, weight_decay: float, **options: Any) -> None:
        groups = [{**group, "params": list(group["params"]), "weight_decay": weight_decay} for group in groups]
        if all(parameter.is_cuda for group in groups for parameter in group["params"]):
            options.setdefault("fused", True)  # one kernel for many parameters, as in the Trainer's own default
        super().__init__(groups, weight_decay=weight_decay, **options)


__all__ = ["CoupledDecayAdam"]
