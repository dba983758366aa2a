"""Parts that several heads share: masks for padded batches, sums of layers, the projection of frames, and weights that
are not trained.

A mask is boolean with shape (B, T), True for real frames, which come first; None if all frames are real. With a mask, a
padded clip gets the same logits as the clip alone.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def silence(x: Tensor, mask: Tensor | None, dim: int = 1) -> Tensor:
    """Set padding to zero, as convolutions pad their input; `dim` is the dimension of frames (the batch is 0)."""
    return x if mask is None else x * _along(mask, x, dim).to(x.dtype)


def hide(scores: Tensor, mask: Tensor | None, dim: int = 1) -> Tensor:
    """Set padding to minus infinity, for a softmax or a maximum."""
    return scores if mask is None else scores.masked_fill(~_along(mask, scores, dim), -torch.inf)


def masked_mean(x: Tensor, mask: Tensor | None, dim: int = 1) -> Tensor:
    """Return the mean over real frames."""
    if mask is None:
        return x.mean(dim)
    counts = mask.sum(1).clamp(min=1).to(x.dtype)
    return silence(x, mask, dim).sum(dim) / counts.view(-1, *[1] * (x.ndim - 2))


def masked_max(x: Tensor, mask: Tensor | None, dim: int = 1) -> Tensor:
    """Return the maximum over real frames."""
    return hide(x, mask, dim).amax(dim)


def mask_of_lengths(lengths: Tensor, size: int) -> Tensor:
    """Return the mask (B, `size`) of clips with the given numbers of frames (B,)."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def weighted_sum(layers: tuple[Tensor, ...], weights: Iterable[Tensor]) -> Tensor:
    """Return the sum of layers (B, T, D), each times its weight, one layer at a time to save memory."""
    total = torch.zeros_like(layers[0])
    for layer, weight in zip(layers, weights, strict=True):
        total = total + weight * layer
    return total


def _along(mask: Tensor, x: Tensor, dim: int) -> Tensor:
    shape = [1] * x.ndim
    shape[0], shape[dim] = mask.shape
    return mask.view(shape)


class FrameProjection(nn.Module):
    """Projects frames to a smaller width, normalizes the whole map (batch norm with one channel) and applies SELU."""

    def __init__(self, backbone_size: int, size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(backbone_size, size)
        self.norm = nn.BatchNorm2d(1)
        self.activation = nn.SELU()

    def forward(self, frames: Tensor) -> Tensor:
        """(B, T, D) to (B, T, E)."""
        x = self.linear(frames).unsqueeze(1)  # (B, 1, T, E)
        return self.activation(self.norm(x)).squeeze(1)


def as_buffers(module: nn.Module) -> nn.Module:
    """Turn a module's parameters into buffers and return it.

    For weights of published checkpoints that the published code never uses. Buffers are saved and loaded, but neither
    an optimizer nor DDP waits for gradients that never come.
    """
    for part in module.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            delattr(part, name)
            part.register_buffer(name, parameter.detach())
    return module
