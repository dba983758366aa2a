"""Weights that published checkpoints have and published code computes nothing with."""

from torch import nn


def keep_untrained(module: nn.Module) -> nn.Module:
    """Turn the module's parameters into buffers and return it.

    So they are saved and loaded, and neither an optimiser nor DDP waits for their gradients, which never come.
    """
    for part in module.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            delattr(part, name)
            part.register_buffer(name, parameter.detach())
    return module
