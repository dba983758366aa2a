"""Nes2Net: Res2Net blocks that are nested in a Res2Net, straight on the backbone's wide frames."""

import torch
from torch import Tensor, nn

from .head_parts import hide, masked_mean, silence

VARIANTS = ("nes2net", "nes2net_x")
ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "selu": nn.SELU}
POOLINGS = ("mean", "attentive")


class Nes2NetHead(nn.Module):
    r"""Nested Res2Net.

    Liu et al., "Nes2Net: A lightweight nested architecture for foundation model driven speech anti-spoofing" (IEEE
    T-IFS 2025). The D channels are split into N groups :math:`x_i`. Block :math:`B_i` reads
    :math:`y_{i-1} + x_i` (:math:`B_0` reads :math:`x_0`), and :math:`y_i = \mathrm{BN}(\sigma(B_i(\cdot)))`. The last
    group has no block. All :math:`y_i` and the last group are concatenated, normalized, pooled over time and
    classified. A block is a Res2Net with squeeze-excitation. In Nes2Net-X, its scales are mixed by learned weights.

    Args:
        backbone_size: Width D of the backbone's frames.
        num_layers: Number of hidden states of the backbone; not used.
        num_labels: Number of classes C.
        variant: "nes2net_x" or "nes2net".
        num_groups: Number of groups N, which must divide D (the first of the paper's nesting ratios).
        num_scales: Number of scales in a block, at most D / N (the second nesting ratio).
        dilation: Dilation of the convolutions: 2 for the published XLS-R detector, 1 for those with WavLM.
        activation: "relu" or "selu".
        pooling: "mean" or "attentive" (attentive statistics).
        squeeze_size: Width of the squeeze-excitation between its two layers, which is D / N divided by the paper's SE
            ratio; D / N by default.
        attention_size: Width of the attentive pooling's hidden layer.

    Raises:
        ValueError: If a name is unknown, or sizes do not fit.
    """

    def __init__(
        self,
        backbone_size: int,
        num_layers: int,
        num_labels: int,
        *,
        variant: str = "nes2net_x",
        num_groups: int = 8,
        num_scales: int = 8,
        dilation: int = 2,
        activation: str = "relu",
        pooling: str = "mean",
        squeeze_size: int | None = None,
        attention_size: int = 128,
    ) -> None:
        super().__init__()
        for name, value, known in (
            ("variant", variant, VARIANTS),
            ("activation", activation, ACTIVATIONS),
            ("pooling", pooling, POOLINGS),
        ):
            if value not in known:
                raise ValueError(f"{name} of nes2net must be {' or '.join(known)}, got {value!r}")
        if num_groups < 2 or backbone_size % num_groups:
            raise ValueError(
                f"num_groups of nes2net must be at least 2 and divide the width of {backbone_size}, got {num_groups}"
            )
        if not 2 <= num_scales <= backbone_size // num_groups:
            raise ValueError(
                f"num_scales of nes2net must be at least 2 and at most {backbone_size // num_groups}, the width of a "
                f"group ({backbone_size} / {num_groups}), got {num_scales}"
            )
        size = backbone_size // num_groups
        block = WeightedRes2NetBlock if variant == "nes2net_x" else Res2NetBlock
        self.blocks = nn.ModuleList(
            block(size, num_scales, dilation, activation, squeeze_size or size) for _ in range(num_groups - 1)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(size) for _ in self.blocks)
        self.norm = nn.BatchNorm1d(backbone_size)
        self.activation = ACTIVATIONS[activation]()
        self.pooling = AttentiveStatistics(backbone_size, attention_size) if pooling == "attentive" else None
        self.classifier = nn.Linear(backbone_size * (1 if self.pooling is None else 2), num_labels)

    def forward(self, frames: Tensor, mask: Tensor | None = None) -> Tensor:
        """Frames (B, T, D) and mask (B, T) to logits (B, C)."""
        *groups, last = frames.mT.chunk(len(self.blocks) + 1, dim=1)  # (B, D / N, T) each
        x, outputs = torch.zeros_like(last), []
        for group, block, norm in zip(groups, self.blocks, self.norms, strict=True):
            x = norm(self.activation(block(x + group, mask)))
            outputs.append(x)
        x = self.activation(self.norm(torch.cat([*outputs, last], 1)))  # (B, D, T)
        pooled = masked_mean(x, mask, 2) if self.pooling is None else self.pooling(x, mask)
        return self.classifier(pooled)


class Res2NetBlock(nn.Module):
    """A residual block that splits its channels into scales, each of which also sees the scales before it.

    The activation comes before the batch norm. If the number of scales does not divide the width, the layers between
    are narrower.
    """

    def __init__(self, size: int, num_scales: int, dilation: int, activation: str, squeeze_size: int) -> None:
        super().__init__()
        width = size // num_scales
        self.conv1 = nn.Conv1d(size, width * num_scales, 1)
        self.norm1 = nn.BatchNorm1d(width * num_scales)
        self.activation = ACTIVATIONS[activation]()
        self._add_scales(num_scales - 1, width, dilation)
        self.conv2 = nn.Conv1d(width * num_scales, size, 1)
        self.norm2 = nn.BatchNorm1d(size)
        self.squeeze = nn.Conv1d(size, squeeze_size, 1)
        self.excite = nn.Conv1d(squeeze_size, size, 1)

    def _add_scales(self, count: int, width: int, dilation: int) -> None:
        self.convs = nn.ModuleList(
            nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation) for _ in range(count)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(count))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B, D / N, T) to the same shape."""
        scales = self.norm1(self.activation(self.conv1(x))).chunk(len(self.convs) + 1, dim=1)
        mixed = self.norm2(self.activation(self.conv2(self._mix(scales, mask))))
        gate = self.squeeze(masked_mean(mixed, mask, 2)[:, :, None]).relu()  # ReLU in all published detectors
        return mixed * self.excite(gate).sigmoid() + x

    def _mix(self, scales: tuple[Tensor, ...], mask: Tensor | None) -> Tensor:
        *first, last = scales
        x, outputs = torch.zeros_like(last), []
        for scale, conv, norm in zip(first, self.convs, self.norms, strict=True):
            x = norm(self.activation(conv(silence(x + scale, mask, 2))))
            outputs.append(x)
        return torch.cat([*outputs, last], 1)


class WeightedRes2NetBlock(Res2NetBlock):
    """The block of Nes2Net-X: a scale is processed with all scales before it, and their weighted sum is its output.

    The scales are columns of an image (B, width, T, columns). The last scale is the first column. Each step adds a
    column and convolves all of them over time with the same kernel.
    """

    def _add_scales(self, count: int, width: int, dilation: int) -> None:
        self.convs = nn.ModuleList(
            nn.Conv2d(width, width, (3, 1), padding=(dilation, 0), dilation=(dilation, 1)) for _ in range(count)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(count))
        self.sums = nn.ModuleList(ColumnSum(index + 2) for index in range(count))

    def _mix(self, scales: tuple[Tensor, ...], mask: Tensor | None) -> Tensor:
        *first, last = scales
        columns, outputs = last[..., None], []
        for scale, conv, norm, weighted_sum in zip(first, self.convs, self.norms, self.sums, strict=True):
            columns = torch.cat([columns, scale[..., None]], 3)
            columns = norm(self.activation(conv(silence(columns, mask, 2))))
            outputs.append(weighted_sum(columns))
        return torch.cat([*outputs, last], 1)


class ColumnSum(nn.Module):
    """The weighted sum of an image's columns; at first, their mean."""

    def __init__(self, num_columns: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, 1, 1, num_columns))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize all weights to be equal."""
        nn.init.constant_(self.weight, 1 / self.weight.shape[3])

    def forward(self, columns: Tensor) -> Tensor:
        """(B, width, T, columns) to (B, width, T)."""
        return (columns * self.weight).sum(3)


class AttentiveStatistics(nn.Module):
    """Attentive statistics pooling: the mean and standard deviation over time, weighted by attention per channel.

    Okabe et al., "Attentive statistics pooling for deep speaker embedding" (Interspeech 2018).
    """

    def __init__(self, size: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden = nn.Conv1d(size, hidden_size, 1)
        self.score = nn.Conv1d(hidden_size, size, 1)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B, D, T) to (B, 2 D)."""
        attention = hide(self.score(self.hidden(x).tanh()), mask, 2).softmax(2)
        mean = (attention * x).sum(2)
        variance = (attention * x.square()).sum(2) - mean.square()
        return torch.cat([mean, variance.clamp(min=1e-10).sqrt()], 1)
