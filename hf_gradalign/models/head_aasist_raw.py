"""AASIST as published, on filters of the raw waveform instead of an encoder's frames."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from .head_aasist import TEMPERATURES, SpectroTemporalGraphs, residual_encoder
from .head_parts import hide, mask_of_lengths

_POOLING = 3


class RawAASISTHead(SpectroTemporalGraphs):
    """Integrated spectro-temporal graph attention on the outputs of a `SincFrontEnd`.

    Jung et al., "AASIST: audio anti-spoofing using integrated spectro-temporal graph attention networks" (ICASSP 2022,
    arXiv 2110.01200)::

        filters -> absolute values -> residual encoder -> maximum over time      -> spectral graph -> ...
                                                       -> maximum over frequency -> temporal graph -> ...

    The graphs and what follows are those of `AASISTHead`. Each residual block is followed by max-pooling over time, by
    3. The defaults are the published AASIST; `hf_gradalign.models.ARCHITECTURES` has AASIST-L.

    Args:
        backbone_size: Number D of filters; the map has F = D // 3 spectral nodes.
        num_layers: Not used.
        num_labels: Number of classes C.
        channels: Output channels of each residual block; the last is the width of the map.
        graph_sizes: Width of the two graphs' nodes, and of the branches' nodes.
        pool_ratios: Fraction of nodes to keep: in the spectral graph, in the temporal graph, within a branch.
        temperatures: Temperature of the attention: in the spectral graph, in the temporal graph, in a branch.
    """

    def __init__(
        self,
        backbone_size: int,
        num_layers: int,
        num_labels: int,
        *,
        channels: Sequence[int] = (32, 32, 64, 64, 64, 64),
        graph_sizes: Sequence[int] = (64, 32),
        pool_ratios: Sequence[float] = (0.5, 0.7, 0.5),
        temperatures: Sequence[float] = TEMPERATURES,
    ) -> None:
        super().__init__()
        self.min_frames = _POOLING ** (1 + len(channels))
        self.input_norm = nn.BatchNorm2d(1)
        self.encoder = residual_encoder(channels)
        self.add_graphs(channels[-1], backbone_size // _POOLING, num_labels, graph_sizes, pool_ratios, temperatures)

    def forward(self, frames: Tensor, mask: Tensor | None = None) -> Tensor:
        """Outputs of the filters (B, T, D) and mask (B, T) to logits (B, C).

        Raises:
            ValueError: If a clip is shorter than one temporal node.
        """
        shortest = frames.shape[1] if mask is None else int(mask.sum(1).min())
        if shortest < self.min_frames:
            raise ValueError(
                f"a clip is too short: the filters give {max(shortest, 0)} values, and AASIST needs at least "
                f"{self.min_frames}. Repeat the clip, as the model's feature extractor does"
            )
        x = max_pool2d(frames.mT.unsqueeze(1).abs(), _POOLING)  # (B, 1, F, T / 3)
        mask = _pooled(mask, x)
        x = self.activation(self.input_norm(x))
        for block in self.encoder:
            x = max_pool2d(block(x, mask), (1, _POOLING))
            mask = _pooled(mask, x)
        x = x.abs()  # (B, W, F, T'), T' = T / 3^(1 + number of blocks)
        spectral, temporal = hide(x, mask, dim=3).amax(3), x.amax(2)
        return self.classify(spectral.mT, temporal.mT, mask)


def _pooled(mask: Tensor | None, x: Tensor) -> Tensor | None:
    """The mask of real frames after max-pooling over time, which gave x."""
    return None if mask is None else mask_of_lengths(mask.sum(1) // _POOLING, x.shape[-1])
