"""The entrance that the Conformer-TCM and the Mamba head share."""

from torch import Tensor, nn


class FrameProjection(nn.Module):
    """Each frame to a smaller width, the whole map to zero mean and unit variance (one channel), SELU."""

    def __init__(self, backbone_size: int, size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(backbone_size, size)
        self.norm = nn.BatchNorm2d(1)
        self.activation = nn.SELU()

    def forward(self, frames: Tensor) -> Tensor:
        """(B, T, D) to (B, T, E)."""
        x = self.linear(frames).unsqueeze(1)  # (B, 1, T, E)
        return self.activation(self.norm(x)).squeeze(1)
