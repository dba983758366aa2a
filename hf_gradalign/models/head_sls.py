"""SLS: each layer of the backbone gates itself, and what they sum to is classified as one picture."""

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from .frame_masking import masked_mean


class SLSHead(nn.Module):
    r"""Sensitive layer selection.

    Zhang et al., "Audio deepfake detection with self-supervised XLS-R and SLS classifier" (ACM MM 2024): a layer's
    mean frame decides by a sigmoid how much the layer counts, :math:`X = \sum_l \sigma(w \cdot \bar x_l + b) X_l`;
    then batch norm, SELU, 3 x 3 max-pooling, and two fully connected layers over time and width at once.

    The first of these fixes the number of frames. Clips with fewer real frames are repeated, of longer ones the first
    are taken, as waveforms are in the scoring protocol. The paper's last SELU and log-softmax are left out: they
    follow the logits. Its layers are the encoder's outputs, without the one before its first layer.

    Args:
        backbone_size: Width D of the backbone's frames.
        num_layers: Hidden states of the backbone, the one before its first layer among them.
        num_labels: Number of classes C.
        n_frames: Frames T0 that are classified: 208 are 66,800 samples at a stride of 320.
        hidden_size: Width between the two fully connected layers; by default the backbone's.
    """

    takes_all_layers = True

    def __init__(
        self,
        backbone_size: int,
        num_layers: int,
        num_labels: int,
        *,
        n_frames: int = 208,
        hidden_size: int | None = None,
    ) -> None:
        super().__init__()
        hidden_size = hidden_size or backbone_size
        self.n_frames = n_frames
        self.gate = nn.Linear(backbone_size, 1)
        self.norm = nn.BatchNorm2d(1)
        self.activation = nn.SELU()
        self.hidden = nn.Linear((n_frames // 3) * (backbone_size // 3), hidden_size)
        self.classifier = nn.Linear(hidden_size, num_labels)

    def forward(self, layers: tuple[Tensor, ...], mask: Tensor | None = None) -> Tensor:
        """L layers' frames (B, T, D) and mask (B, T) to logits (B, C)."""
        picture = torch.zeros_like(layers[0])
        for layer in layers[1:]:
            gate = self.gate(masked_mean(layer, mask)).sigmoid()  # (B, 1)
            picture = picture + gate[:, None] * layer  # (B, T, D)
        picture = self.activation(self.norm(self._of_fixed_length(picture, mask)[:, None]))  # (B, 1, T0, D)
        picture = max_pool2d(picture, 3)  # (B, 1, T0 / 3, D / 3)
        return self.classifier(self.activation(self.hidden(picture.flatten(1))))

    def _of_fixed_length(self, x: Tensor, mask: Tensor | None) -> Tensor:
        index = torch.arange(self.n_frames, device=x.device)
        if mask is None:
            return x[:, index % x.shape[1]]
        index = index % mask.sum(1, keepdim=True).clamp(min=1)  # (B, T0)
        return x.gather(1, index[:, :, None].expand(-1, -1, x.shape[2]))
