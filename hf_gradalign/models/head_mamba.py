"""The head of XLSR-Mamba: one column of Mamba blocks forward in time and one backward, pooled by attention."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import initialization as init

from .head_parts import FrameProjection, as_buffers, hide, silence
from .mamba_kernels import FusedMixer
from .selective_scan import fused_mixer_runs, selective_scan

_DROPOUT = 0.1


class MambaHead(nn.Module):
    """Dual-column bidirectional Mamba.

    Xiao and Das, "XLSR-Mamba: a dual-column bidirectional state space model for spoofing attack detection" (IEEE SPL
    2025, arXiv 2411.10027)::

        frames -> projection -> h +-> forward blocks  -> norm(h + residual) -> attention pooling -+
                                  +-> backward blocks -> norm(h + residual) -> attention pooling -+-> linear -> logits

    As in the published code, a column returns the residual that enters its last block, and the output of that block is
    dropped. The residual of the backward column, which is reversed in time, is added to h, which is not. So the last
    block of a column does not affect the logits. It is kept for the checkpoints, as buffers that are not trained.

    Args:
        backbone_size: Width D of the backbone's frames.
        num_layers: Number of hidden states of the backbone; not used.
        num_labels: Number of classes C.
        size: Width E of the columns.
        num_blocks: Number of blocks in each column.
        state_size: Number of states N per channel.
        kernel_size: Kernel size of the causal convolution.
        expansion: Inner width of a block, as a multiple of E.
    """

    def __init__(
        self,
        backbone_size: int,
        num_layers: int,
        num_labels: int,
        *,
        size: int = 144,
        num_blocks: int = 6,
        state_size: int = 16,
        kernel_size: int = 4,
        expansion: int = 2,
    ) -> None:
        super().__init__()
        self.projection = FrameProjection(backbone_size, size)
        self.dropout = nn.Dropout(_DROPOUT)
        self.forward_column, self.backward_column = (
            nn.ModuleList(MambaBlock(size, state_size, kernel_size, expansion) for _ in range(num_blocks))
            for _ in range(2)
        )
        for column in (self.forward_column, self.backward_column):
            as_buffers(column[-1])
        self.norm = nn.RMSNorm(size, eps=1e-5)
        self.forward_pool = nn.Linear(size, 1)
        self.backward_pool = nn.Linear(size, 1)
        self.merge = nn.Linear(2 * size, size)
        self.classifier = nn.Linear(size, num_labels)

    def forward(self, frames: Tensor, mask: Tensor | None = None) -> Tensor:
        """Frames (B, T, D) and mask (B, T) to logits (B, C)."""
        h = self.dropout(self.projection(frames))  # (B, T, E)
        forward = self.norm(h + _residual(self.forward_column, h))
        backward = self.norm(h + _residual(self.backward_column, reverse(h, mask)))
        pooled = torch.cat([_pool(self.forward_pool, forward, mask), _pool(self.backward_pool, backward, mask)], 1)
        return self.classifier(self.dropout(self.merge(pooled)))


class MambaBlock(nn.Module):
    """Norm and mixer."""

    def __init__(self, size: int, state_size: int, kernel_size: int, expansion: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(size, eps=1e-5)
        self.mixer = MambaMixer(size, state_size, kernel_size, expansion)

    def forward(self, residual: Tensor) -> Tensor:
        """Return the block's contribution to the residual (B, T, E)."""
        return self.mixer(self.norm(residual))


class MambaMixer(nn.Module):
    """Mamba-1 (Gu and Dao, arXiv 2312.00752, figure 3): causal convolution and gated selective scan."""

    def __init__(self, size: int, state_size: int, kernel_size: int, expansion: int) -> None:
        super().__init__()
        inner, rank = expansion * size, math.ceil(size / 16)
        self.rank, self.state_size = rank, state_size
        self.in_proj = nn.Linear(size, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, kernel_size, groups=inner)
        self.x_proj = nn.Linear(inner, rank + 2 * state_size, bias=False)
        self.dt_proj = nn.Linear(rank, inner)
        self.A_log = nn.Parameter(torch.empty(inner, state_size))
        self.D = nn.Parameter(torch.empty(inner))
        self.out_proj = nn.Linear(inner, size, bias=False)
        self.activation = nn.SiLU()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize decay rates to 1 to N, step sizes to 0.001 to 0.1, and the skip connection to 1."""
        init.copy_(self.A_log, torch.arange(1.0, self.state_size + 1).log().expand_as(self.A_log))
        steps = torch.empty(self.dt_proj.out_features).uniform_(math.log(0.001), math.log(0.1)).exp()
        init.copy_(self.dt_proj.bias, steps + torch.log(-torch.expm1(-steps)))  # the inverse of softplus
        nn.init.ones_(self.D)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, E) to the same shape. Causal: a frame only depends on earlier ones."""
        if self._can_be_fused(x):
            return self._fused(x)
        x, gate = self.in_proj(x).mT.chunk(2, 1)  # (B, inner, T) each
        x = self.activation(self.conv1d(pad(x, (self.conv1d.kernel_size[0] - 1, 0))))
        step, b, c = self.x_proj(x.mT).split([self.rank, self.state_size, self.state_size], -1)
        step = self.dt_proj(step).mT  # (B, inner, T)
        y = selective_scan(x, step, -torch.exp(self.A_log), b.mT, c.mT, self.D, gate, softplus=True)
        return self.out_proj(y.mT)

    def _can_be_fused(self, x: Tensor) -> bool:
        """Whether the kernels run here. They only see the weights, and not hooks or adapters of the modules."""
        if not x.is_cuda or x.numel() == 0 or torch.compiler.is_exporting() or not fused_mixer_runs(x.device):
            return False
        modules = (self.in_proj, self.conv1d, self.x_proj, self.dt_proj, self.out_proj)
        return not any(
            type(module) not in (nn.Linear, nn.Conv1d)
            or module._forward_hooks
            or module._forward_pre_hooks
            or module._backward_hooks
            or module._backward_pre_hooks
            for module in modules
        )

    @torch.compiler.disable
    def _fused(self, x: Tensor) -> Tensor:
        frames = x.flatten(0, 1)
        products = [frames, self.in_proj.weight, self.x_proj.weight, self.dt_proj.weight, self.out_proj.weight]
        if torch.is_autocast_enabled(x.device.type):
            dtype = torch.get_autocast_dtype(x.device.type)
            with torch.autocast(x.device.type, enabled=False):
                y = self._fused_products(len(x), *(one.to(dtype) for one in products))
        else:
            y = self._fused_products(len(x), *products)
        return y.unflatten(0, x.shape[:2])

    def _fused_products(
        self, clips: int, frames: Tensor, in_weight: Tensor, x_weight: Tensor, dt_weight: Tensor, out_weight: Tensor
    ) -> Tensor:
        """The mixer, with the type of its matrix products chosen."""
        conv, dt_bias = (self.conv1d.weight, self.conv1d.bias), self.dt_proj.bias
        scan = (x_weight, dt_weight, dt_bias, self.A_log, self.D, out_weight)
        return FusedMixer.apply(frames, in_weight, *conv, *scan, clips, torch.is_grad_enabled())


def _residual(column: nn.ModuleList, h: Tensor) -> Tensor:
    """The residual that enters the last block of a column."""
    for block in column[:-1]:
        h = h + block(h)
    return h


def _pool(score: nn.Linear, x: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over time (B, E), weighted by the softmax of the frames' scores."""
    return (hide(score(x), mask).softmax(1) * x).sum(1)


def reverse(x: Tensor, mask: Tensor | None) -> Tensor:
    """Reverse the real frames (B, T, E) of each clip and leave padding at the end."""
    if mask is None:
        return x.flip(1)
    time = torch.arange(x.shape[1], device=x.device)
    lengths = mask.sum(1, keepdim=True)
    index = torch.where(mask, lengths - 1 - time, time)
    return silence(x.gather(1, index[:, :, None].expand_as(x)), mask)
