"""SLS: a gate for each layer of the backbone, and a classifier of their sum as one map."""

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from .head_parts import masked_mean


class SLSHead(nn.Module):
    r"""Sensitive layer selection.

    Zhang et al., "Audio deepfake detection with self-supervised XLS-R and SLS classifier" (ACM MM 2024). The mean frame
    of a layer gives its weight, :math:`X = \sum_l \sigma(w \cdot \bar x_l + b) X_l`. Batch norm, SELU, 3 x 3
    max-pooling and two fully connected layers over time and width follow.

    The first fully connected layer fixes the number of frames. Clips with fewer real frames are repeated, and longer
    ones are cut, as waveforms are in the scoring protocol. In training, longer ones are refused. The layers are the
    outputs of the encoder's layers, without the input of the first and without the encoder's final layer norm.

    The published detector applies a SELU to the logits and returns log-probabilities (`log_probabilities`). The SELU
    keeps the logits above -1.76, so scores saturate for clips that are clearly of one class. By default, the head
    returns the logits themselves.

    Args:
        backbone_size: Width D of the backbone's frames.
        num_layers: Number of hidden states of the backbone, including the one before its first layer.
        num_labels: Number of classes C.
        n_frames: Number of frames T0 to classify; 208 for 66,800 samples at a stride of 320.
        hidden_size: Width between the two fully connected layers. Defaults to the backbone's width.
        log_probabilities: Whether to return log-probabilities, at most 0, as the published detector does.

    Raises:
        ValueError: If there are log-probabilities of a single label, or fewer than 3 frames.
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
        log_probabilities: bool = False,
    ) -> None:
        super().__init__()
        if log_probabilities and num_labels < 2:
            raise ValueError("log_probabilities of sls need at least two labels: with one they are always 0")
        if n_frames < 3:
            raise ValueError(f"n_frames of sls must be at least 3, which are pooled to one, got {n_frames}")
        hidden_size = hidden_size or backbone_size
        self.n_frames = n_frames
        self.log_probabilities = log_probabilities
        self.gate = nn.Linear(backbone_size, 1)
        self.norm = nn.BatchNorm2d(1)
        self.activation = nn.SELU()
        self.hidden = nn.Linear((n_frames // 3) * (backbone_size // 3), hidden_size)
        self.classifier = nn.Linear(hidden_size, num_labels)

    def forward(self, layers: tuple[Tensor, ...], mask: Tensor | None = None) -> Tensor:
        """L layers' frames (B, T, D) and mask (B, T) to logits or log-probabilities (B, C).

        Raises:
            ValueError: If training clips have more frames than the head, which would discard them.
        """
        picture = torch.zeros_like(layers[0])
        for layer in layers[1:]:
            gate = self.gate(masked_mean(layer, mask)).sigmoid()  # (B, 1)
            picture = picture + gate[:, None] * layer  # (B, T, D)
        picture = self.activation(self.norm(self._of_fixed_length(picture, mask)[:, None]))  # (B, 1, T0, D)
        picture = max_pool2d(picture, 3)  # (B, 1, T0 / 3, D / 3)
        logits = self.classifier(self.activation(self.hidden(picture.flatten(1))))
        return self.activation(logits).log_softmax(1) if self.log_probabilities else logits

    def refuse_longer(self, n_frames: int) -> None:
        """Check that training clips of this many frames fit into the head.

        Raises:
            ValueError: If frames would be discarded.
        """
        if n_frames // 3 > self.n_frames // 3:  # what does not fill a pooling window never counts
            raise ValueError(
                f"the head sls takes {self.n_frames} frames (n_frames) and would discard the rest of a training window "
                f"of {n_frames} frames: train on shorter windows (window_seconds), or make a new head with n_frames "
                f"{n_frames}"
            )

    def _of_fixed_length(self, x: Tensor, mask: Tensor | None) -> Tensor:
        if self.training:
            self.refuse_longer(x.shape[1])
        index = torch.arange(self.n_frames, device=x.device)
        if mask is None:
            return x[:, index % x.shape[1]]
        index = index % mask.sum(1, keepdim=True).clamp(min=1)  # (B, T0)
        return x.gather(1, index[:, :, None].expand(-1, -1, x.shape[2]))
