"""Conformer-TCM: a Conformer with a class token, and with tokens for the channels of the attention heads."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import glu, scaled_dot_product_attention
from transformers import initialization as init

from .head_parts import FrameProjection, masked_mean, silence


class ConformerTCMHead(nn.Module):
    """Conformer blocks with temporal-channel modeling.

    Truong et al., "Temporal-channel modeling in multi-head self-attention for synthetic speech detection"
    (Interspeech 2024, arXiv 2406.17376)::

        frames -> projection -> + positions -> [class | patches] -> N blocks -> linear(class) = logits

    Args:
        backbone_size: Width D of the backbone's frames.
        num_layers: Number of hidden states of the backbone; not used.
        num_labels: Number of classes C.
        size: Width E of the tokens.
        num_blocks: Number of Conformer blocks.
        num_heads: Number of attention heads H; must divide E.
        kernel_size: Kernel size of the depthwise convolution.
        feed_forward_factor: Inner width of the feed-forward modules, as a multiple of E.
        conv_factor: Width of the depthwise convolution, as a multiple of E.
        num_positions: Maximum number of frames in a clip; 10,000 frames are 200 s.

    Raises:
        ValueError: If `num_heads` does not divide `size`.
    """

    def __init__(
        self,
        backbone_size: int,
        num_layers: int,
        num_labels: int,
        *,
        size: int = 144,
        num_blocks: int = 4,
        num_heads: int = 4,
        kernel_size: int = 31,
        feed_forward_factor: int = 4,
        conv_factor: int = 2,
        num_positions: int = 10_000,
    ) -> None:
        super().__init__()
        if size % num_heads:
            raise ValueError(f"conformer_tcm: num_heads ({num_heads}) must divide size ({size})")
        self.projection = FrameProjection(backbone_size, size)
        self.positions: Tensor
        self.register_buffer("positions", torch.empty(1, num_positions, size))
        self.class_token = nn.Parameter(torch.empty(1, size))
        self.blocks = nn.ModuleList(
            ConformerBlock(size, num_heads, kernel_size, feed_forward_factor, conv_factor) for _ in range(num_blocks)
        )
        self.classifier = nn.Linear(size, num_labels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize the class token and the sinusoidal positions."""
        nn.init.uniform_(self.class_token)
        init.copy_(self.positions, sinusoids(*self.positions.shape[1:]))

    def forward(self, frames: Tensor, mask: Tensor | None = None) -> Tensor:
        """Frames (B, T, D) and mask (B, T) to logits (B, C).

        Raises:
            ValueError: If there are more frames than positions.
        """
        if frames.shape[1] > self.positions.shape[1]:
            raise ValueError(f"conformer_tcm supports at most {self.positions.shape[1]} frames, got {frames.shape[1]}")
        x = self.projection(frames)
        x = x + self.positions[:, : x.shape[1]]
        class_token = self.class_token.expand(x.shape[0], 1, -1)  # len() would fix the batch size of an exported model
        x = torch.cat([class_token, x], 1)  # (B, 1 + T, E)
        if mask is not None:
            mask = torch.cat([mask.new_ones(mask.shape[0], 1), mask], 1)
        for block in self.blocks:
            x = block(x, mask)
        return self.classifier(x[:, 0])


class ConformerBlock(nn.Module):
    """Half a feed-forward module, attention, convolution, half a feed-forward module, each with a residual."""

    def __init__(self, size: int, num_heads: int, kernel_size: int, feed_forward_factor: int, conv_factor: int) -> None:
        super().__init__()
        self.feed_forward1 = FeedForward(size, feed_forward_factor)
        self.attention_norm = nn.LayerNorm(size)
        self.attention = HeadTokenAttention(size, num_heads)
        self.convolution = ConvolutionModule(size, kernel_size, conv_factor)
        self.feed_forward2 = FeedForward(size, feed_forward_factor)
        self.norm = nn.LayerNorm(size)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Tokens (B, N, E) to the same shape."""
        x = x + 0.5 * self.feed_forward1(x)
        x = x + self.attention(self.attention_norm(x), mask)
        x = x + self.convolution(x, mask)
        x = x + 0.5 * self.feed_forward2(x)
        return self.norm(x)


class FeedForward(nn.Module):
    """Layer norm and two linear layers with swish between them."""

    def __init__(self, size: int, factor: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size)
        self.expand = nn.Linear(size, factor * size)
        self.activation = nn.SiLU()
        self.contract = nn.Linear(factor * size, size)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, E) to the same shape."""
        return self.contract(self.activation(self.expand(self.norm(x))))


class ConvolutionModule(nn.Module):
    """Pointwise convolution, gate, depthwise convolution, batch norm, swish, pointwise convolution."""

    def __init__(self, size: int, kernel_size: int, factor: int) -> None:
        super().__init__()
        inner = factor * size
        self.norm = nn.LayerNorm(size)
        self.expand = nn.Conv1d(size, 2 * inner, 1)
        before = kernel_size // 2
        self.padding = nn.ConstantPad1d((before, before - (kernel_size + 1) % 2), 0.0)
        self.depthwise = nn.Conv1d(inner, inner, kernel_size, groups=inner)
        self.inner_norm = nn.BatchNorm1d(inner)
        self.activation = nn.SiLU()
        self.contract = nn.Conv1d(inner, size, 1)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B, N, E) to the same shape."""
        x = glu(self.expand(self.norm(x).mT), dim=1)  # (B, inner, N)
        x = self.depthwise(self.padding(silence(x, mask, dim=2)))
        return self.contract(self.activation(self.inner_norm(x))).mT


class HeadTokenAttention(nn.Module):
    """Self-attention over the tokens and H more tokens, each computed from one head's channels averaged over time."""

    def __init__(self, size: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads, head_size = num_heads, size // num_heads
        self.head_projection = nn.Linear(head_size, size)
        self.head_norm = nn.LayerNorm(head_size)
        self.head_activation = nn.GELU()
        self.head_position = nn.Parameter(torch.empty(1, num_heads, size))
        self.query_key_value = nn.Linear(size, 3 * size, bias=False)
        self.output = nn.Linear(size, size)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize the positions of head tokens to zero."""
        nn.init.zeros_(self.head_position)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Tokens (B, N, E), starting with the class token, to the same shape."""
        batch, n_tokens, _ = x.shape
        x = torch.cat([x, self._head_tokens(x, mask)], 1)  # (B, N + H, E)
        query, key, value = (self._split_heads(part) for part in self.query_key_value(x).chunk(3, -1))
        allowed = None
        if mask is not None:
            allowed = torch.cat([mask, mask.new_ones(batch, self.num_heads)], 1)[:, None, None]
        x = scaled_dot_product_attention(query, key, value, attn_mask=allowed)  # (B, H, N + H, E / H)
        x = self.output(x.transpose(1, 2).flatten(2))
        class_token, patches, head_tokens = x.split([1, n_tokens - 1, self.num_heads], 1)
        patch_mask = None if mask is None else mask[:, 1:]
        summary = head_tokens.mean(1, keepdim=True) + masked_mean(patches, patch_mask)[:, None]
        return torch.cat([class_token + summary, patches], 1)

    def _head_tokens(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Tokens (B, N, E) to head tokens (B, H, E)."""
        channels = masked_mean(x, mask).unflatten(1, (self.num_heads, -1))  # (B, H, E / H)
        tokens = self.head_projection(channels).unflatten(2, (self.num_heads, -1))  # (B, H, H, E / H)
        return self.head_activation(self.head_norm(tokens)).flatten(2) + self.head_position

    def _split_heads(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)  # (B, H, N + H, E / H)


def sinusoids(n_positions: int, size: int) -> Tensor:
    """Return the positions of Vaswani et al. (arXiv 1706.03762, section 3.5): even channels sine, odd ones cosine."""
    position = torch.arange(n_positions)[:, None].float()
    frequency = torch.exp(torch.arange(0, size, 2).float() * (-math.log(10_000.0) / size))
    table = torch.zeros(n_positions, size)
    table[:, 0::2] = torch.sin(position * frequency)
    table[:, 1::2] = torch.cos(position * frequency)[:, : size // 2]
    return table[None]
