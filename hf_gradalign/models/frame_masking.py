"""What heads do about the frames that only pad a batch of clips of different lengths.

A mask is boolean, shape (B, T), true for real frames, which come first; None where all are real. With a mask a padded
clip gets the logits that it gets alone.
"""

import torch
from torch import Tensor


def silence(x: Tensor, mask: Tensor | None, dim: int = 1) -> Tensor:
    """Padding as zeros, as a convolution sees what lies beyond the end; `dim` is the frames' (its batch's is 0)."""
    return x if mask is None else x * _along(mask, x, dim).to(x.dtype)


def hide(scores: Tensor, mask: Tensor | None, dim: int = 1) -> Tensor:
    """Padding as minus infinity, as a softmax or a maximum has to see it."""
    return scores if mask is None else scores.masked_fill(~_along(mask, scores, dim), -torch.inf)


def masked_mean(x: Tensor, mask: Tensor | None, dim: int = 1) -> Tensor:
    """Mean over the real frames."""
    if mask is None:
        return x.mean(dim)
    counts = mask.sum(1).clamp(min=1).to(x.dtype)
    return silence(x, mask, dim).sum(dim) / counts.view(-1, *[1] * (x.ndim - 2))


def masked_max(x: Tensor, mask: Tensor | None, dim: int = 1) -> Tensor:
    """Maximum over the real frames."""
    return hide(x, mask, dim).amax(dim)


def mask_of_lengths(lengths: Tensor, size: int) -> Tensor:
    """The mask (B, `size`) of clips of so many frames (B,)."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def _along(mask: Tensor, x: Tensor, dim: int) -> Tensor:
    shape = [1] * x.ndim
    shape[0], shape[dim] = mask.shape
    return mask.view(shape)
