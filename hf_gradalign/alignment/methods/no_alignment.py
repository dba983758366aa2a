"""Dual-path training without alignment: the mean of the views' gradients."""

import torch
from torch import Tensor

from hf_gradalign.alignment.methods.base import AlignmentMethod


class NoAlignment(AlignmentMethod, name="none"):
    """Gives every view the weight 1/K. The result is the gradient of the mean loss (DPDA in arXiv 2509.20682)."""

    def _weights(self, gramian: Tensor, valid: Tensor, precision: float) -> Tensor:
        return torch.full_like(gramian[..., 0], 1 / gramian.shape[-1])
