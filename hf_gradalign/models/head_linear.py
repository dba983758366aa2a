"""The simplest head: the mean frame and a linear layer."""

from torch import Tensor, nn

from .head_parts import masked_mean


class LinearHead(nn.Module):
    """Averages the backbone's last layer over time and computes logits.

    Args:
        backbone_size: Width D of the backbone's frames.
        num_layers: Number of hidden states of the backbone; not used.
        num_labels: Number of classes C.
        dropout: Dropout on the mean frame, in [0, 1).

    Raises:
        ValueError: If `dropout` is out of range.
    """

    def __init__(self, backbone_size: int, num_layers: int, num_labels: int, *, dropout: float = 0.1) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout of linear must be at least 0 and below 1, got {dropout}")
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(backbone_size, num_labels)

    def forward(self, frames: Tensor, mask: Tensor | None = None) -> Tensor:
        """Frames (B, T, D) and mask (B, T) to logits (B, C)."""
        return self.classifier(self.dropout(masked_mean(frames, mask)))
