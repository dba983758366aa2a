"""The plainest head: the mean frame, and a linear layer."""

from torch import Tensor, nn

from .frame_masking import masked_mean


class LinearHead(nn.Module):
    """Mean over time of the backbone's last layer, then logits.

    Args:
        backbone_size: Width D of the backbone's frames.
        num_layers: Hidden states of the backbone; of no use here.
        num_labels: Number of classes C.
        dropout: On the mean frame, in [0, 1).
    """

    def __init__(self, backbone_size: int, num_layers: int, num_labels: int, *, dropout: float = 0.1) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(backbone_size, num_labels)

    def forward(self, frames: Tensor, mask: Tensor | None = None) -> Tensor:
        """Frames (B, T, D) and mask (B, T) to logits (B, C)."""
        return self.classifier(self.dropout(masked_mean(frames, mask)))
