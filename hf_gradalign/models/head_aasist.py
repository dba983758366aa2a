"""AASIST: spectral and temporal graphs of the frames, and two branches in which they attend to each other."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from .head_parts import as_buffers, hide, mask_of_lengths, masked_max, masked_mean, silence

_NODE_DROPOUT, _POOL_DROPOUT, _READOUT_DROPOUT = 0.2, 0.3, 0.5
TEMPERATURES = (2.0, 2.0, 100.0)
"""Published temperatures of the attention in the spectral graph, in the temporal graph and in the branches."""


class SpectroTemporalGraphs(nn.Module):
    """The part of AASIST after the spectral and temporal nodes, which its variants share."""

    def add_graphs(
        self,
        width: int,
        n_spectral: int,
        num_labels: int,
        graph_sizes: Sequence[int],
        pool_ratios: Sequence[float],
        temperatures: Sequence[float] = TEMPERATURES,
    ) -> None:
        """Create the modules, after those that make the nodes.

        Args:
            width: Width W of the nodes.
            n_spectral: Number F of spectral nodes.
            num_labels: Number of classes C.
            graph_sizes: Width of the two graphs' nodes, and of the branches' nodes.
            pool_ratios: Fraction of nodes to keep: in the spectral graph, in the temporal graph, within a branch.
            temperatures: Temperature of the attention: in the spectral graph, in the temporal graph, in a branch.

        Raises:
            ValueError: If a ratio or temperature is out of range, or the number of sizes or spectral nodes is.
        """
        if len(pool_ratios) != 3 or not all(0 < ratio <= 1 for ratio in pool_ratios):
            raise ValueError(f"pool_ratios must be three numbers above 0 and up to 1, got {list(pool_ratios)}")
        if len(temperatures) != 3 or not min(temperatures) > 0:
            raise ValueError(f"temperatures must be three positive numbers, got {list(temperatures)}")
        if len(graph_sizes) != 2:
            raise ValueError(f"graph_sizes must be two whole numbers, got {list(graph_sizes)}")
        if n_spectral < 1:
            raise ValueError("aasist needs at least one spectral node: projection_size must be at least 3")
        graph_size, branch_size = graph_sizes
        spectral_ratio, temporal_ratio, branch_ratio = pool_ratios
        spectral_temperature, temporal_temperature, branch_temperature = temperatures
        self.spectral_position = nn.Parameter(torch.empty(1, n_spectral, width))
        self.spectral_graph = GraphAttention(width, graph_size, spectral_temperature)
        self.temporal_graph = GraphAttention(width, graph_size, temporal_temperature)
        self.spectral_pool = GraphPool(graph_size, spectral_ratio)
        self.temporal_pool = GraphPool(graph_size, temporal_ratio)
        self.branches = nn.ModuleList(
            Branch(graph_size, branch_size, branch_ratio, branch_temperature) for _ in range(2)
        )
        self.activation = nn.SELU()
        self.node_dropout = nn.Dropout(_NODE_DROPOUT)
        self.readout_dropout = nn.Dropout(_READOUT_DROPOUT)
        self.classifier = nn.Linear(5 * branch_size, num_labels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize the positions of the spectral nodes."""
        nn.init.normal_(self.spectral_position)

    def classify(self, spectral: Tensor, temporal: Tensor, mask: Tensor | None) -> Tensor:
        """Spectral (B, F, W) and temporal nodes (B, T, W) and the mask (B, T) of the latter to logits (B, C)."""
        spectral, _ = self.spectral_pool(self.spectral_graph(spectral + self.spectral_position))
        temporal, mask = self.temporal_pool(self.temporal_graph(temporal, mask), mask)

        first, second = (branch(temporal, spectral, mask) for branch in self.branches)
        temporal, spectral, master = (
            torch.maximum(self.node_dropout(one), self.node_dropout(other))
            for one, other in zip(first[:3], second[:3], strict=True)
        )
        mask = first[3]
        readout = [masked_max(temporal.abs(), mask), masked_mean(temporal, mask)]
        readout += [spectral.abs().amax(1), spectral.mean(1), master.squeeze(1)]
        return self.classifier(self.readout_dropout(torch.cat(readout, 1)))


class AASISTHead(SpectroTemporalGraphs):
    """Integrated spectro-temporal graph attention on self-supervised features.

    Jung et al., "AASIST" (ICASSP 2022, arXiv 2110.01200), on a wav2vec 2.0 as in Tak et al. (Odyssey 2022,
    arXiv 2202.12233)::

        frames -> linear -> residual encoder -> attention over time      -> spectral graph -> pool --+--> branch 1 --+
                                             -> attention over frequency -> temporal graph -> pool --+--> branch 2 --+
                                                                                                                     |
                                             logits <- linear <- readout of both graphs and master <- maximum <------+

    Args:
        backbone_size: Width D of the backbone's frames.
        num_layers: Number of hidden states of the backbone; not used.
        num_labels: Number of classes C.
        projection_size: Width E of the projected frames; the map has F = E // 3 spectral nodes.
        channels: Output channels of each residual block; the last is the width of the map.
        attention_size: Width of the attention over the map.
        graph_sizes: Width of the two graphs' nodes, and of the branches' nodes.
        pool_ratios: Fraction of nodes to keep: in the spectral graph, in the temporal graph, within a branch.
    """

    def __init__(
        self,
        backbone_size: int,
        num_layers: int,
        num_labels: int,
        *,
        projection_size: int = 128,
        channels: Sequence[int] = (32, 32, 64, 64, 64, 64),
        attention_size: int = 128,
        graph_sizes: Sequence[int] = (64, 32),
        pool_ratios: Sequence[float] = (0.5, 0.5, 0.5),
    ) -> None:
        super().__init__()
        width = channels[-1]
        self.projection = nn.Linear(backbone_size, projection_size)
        self.projection_norm = nn.BatchNorm2d(1)
        self.encoder = residual_encoder(channels)
        self.encoder_norm = nn.BatchNorm2d(width)
        self.attention = MapAttention(width, attention_size)
        self.add_graphs(width, projection_size // 3, num_labels, graph_sizes, pool_ratios)

    def forward(self, frames: Tensor, mask: Tensor | None = None) -> Tensor:
        """Frames (B, T, D) and mask (B, T) to logits (B, C)."""
        x = max_pool2d(self.projection(frames).mT.unsqueeze(1), 3)  # (B, 1, F, T / 3)
        if mask is not None:
            mask = mask_of_lengths((mask.sum(1) // 3).clamp(min=1), x.shape[-1])
        x = self.activation(self.projection_norm(x))
        for block in self.encoder:
            x = block(x, mask)
        x = self.activation(self.encoder_norm(x))  # (B, W, F, T / 3)
        spectral, temporal = self.attention(x, mask)  # (B, F, W), (B, T / 3, W)
        return self.classify(spectral, temporal, mask)


def residual_encoder(channels: Sequence[int]) -> nn.ModuleList:
    """Return AASIST's residual blocks with the given numbers of output channels, for a map with one channel."""
    return nn.ModuleList(
        ResidualBlock(before, after, first=index == 0)
        for index, (before, after) in enumerate(zip([1, *channels[:-1]], channels, strict=True))
    )


class ResidualBlock(nn.Module):
    """Two convolutions over (frequency, time) with a shortcut.

    The published code normalizes the input of every block but the first, and then convolves the unnormalized input. So
    the weights of this norm are loaded but unused, as in the original code.
    """

    def __init__(self, before: int, after: int, first: bool) -> None:
        super().__init__()
        if not first:
            self.norm1 = as_buffers(nn.BatchNorm2d(before))
        self.conv1 = nn.Conv2d(before, after, (2, 3), padding=(1, 1))
        self.norm2 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, (2, 3), padding=(0, 1))
        self.shortcut = nn.Conv2d(before, after, (1, 3), padding=(0, 1)) if before != after else nn.Identity()
        self.activation = nn.SELU()

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B, W, F, T) to (B, W', F, T)."""
        x = silence(x, mask, dim=3)
        y = self.activation(self.norm2(self.conv1(x)))  # one more row of frequencies
        return self.conv2(silence(y, mask, dim=3)) + self.shortcut(x)


class MapAttention(nn.Module):
    """Weighted sums of the map over time (spectral nodes) and over frequency (temporal nodes)."""

    def __init__(self, width: int, hidden_size: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, hidden_size, 1)
        self.norm = nn.BatchNorm2d(hidden_size)
        self.conv2 = nn.Conv2d(hidden_size, width, 1)
        self.activation = nn.SELU()

    def forward(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B, W, F, T) to (B, F, W) and (B, T, W)."""
        scores = self.conv2(self.norm(self.activation(self.conv1(x))))
        spectral = (x * hide(scores, mask, dim=3).softmax(3)).sum(3)
        temporal = (x * scores.softmax(2)).sum(2)
        return spectral.mT, temporal.mT


class GraphAttention(nn.Module):
    """Graph attention in which the weights depend on products of nodes."""

    def __init__(self, before: int, after: int, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.dropout = nn.Dropout(_NODE_DROPOUT)
        self.pair = nn.Linear(before, after)
        self.pair_score = nn.Parameter(torch.empty(after, 1))
        self.attended = nn.Linear(before, after)
        self.itself = nn.Linear(before, after)
        self.norm = nn.BatchNorm1d(after)
        self.activation = nn.SELU()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize the weights of the scores."""
        nn.init.xavier_normal_(self.pair_score)

    def forward(self, nodes: Tensor, mask: Tensor | None = None) -> Tensor:
        """Nodes (B, N, W) to (B, N, W')."""
        nodes = self.dropout(nodes)
        pairs = self.pair(nodes[:, :, None] * nodes[:, None]).tanh()  # (B, N, N, W')
        scores = (pairs @ self.pair_score).squeeze(3) / self.temperature
        attention = hide(scores, mask, dim=2).softmax(2)
        nodes = self.attended(attention @ nodes) + self.itself(nodes)
        return self.activation(_normalize(self.norm, nodes))


class GraphPool(nn.Module):
    """Scales nodes by their scores and keeps the best, in the order of scores."""

    def __init__(self, width: int, ratio: float) -> None:
        super().__init__()
        self.ratio = ratio
        self.dropout = nn.Dropout(_POOL_DROPOUT)
        self.score = nn.Linear(width, 1)

    def forward(self, nodes: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Nodes (B, N, W) and their mask to the kept nodes and their mask."""
        scores = self.score(self.dropout(nodes)).sigmoid()  # (B, N, 1)
        keep = max(int(nodes.shape[1] * self.ratio), 1)
        best = hide(scores, mask).topk(keep, dim=1).indices
        kept = (nodes * scores).gather(1, best.expand(-1, -1, nodes.shape[2]))
        if mask is not None:
            # A lookup table, because a product of tensors may be rounded differently than a product of floats.
            sizes = [max(int(n * self.ratio), 1) for n in range(nodes.shape[1] + 1)]
            mask = mask_of_lengths(torch.tensor(sizes, device=mask.device)[mask.sum(1)], keep)
        return kept, mask


class Branch(nn.Module):
    """Two heterogeneous layers with pooling in between, and the branch's own master node."""

    def __init__(self, before: int, after: int, ratio: float, temperature: float) -> None:
        super().__init__()
        self.master = nn.Parameter(torch.empty(1, 1, before))
        self.layer1 = HeterogeneousAttention(before, after, temperature)
        self.temporal_pool = GraphPool(after, ratio)
        self.spectral_pool = GraphPool(after, ratio)
        self.layer2 = HeterogeneousAttention(after, after, temperature)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize the master node."""
        nn.init.normal_(self.master)

    def forward(
        self, temporal: Tensor, spectral: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Temporal (B, N, W) and spectral nodes (B, M, W) to both, the master (B, 1, W') and the temporal mask."""
        master = self.master.expand(temporal.shape[0], -1, -1)  # len() would fix the batch size of an exported model
        temporal, spectral, master = self.layer1(temporal, spectral, master, mask)
        temporal, mask = self.temporal_pool(temporal, mask)
        spectral, _ = self.spectral_pool(spectral)
        more = self.layer2(temporal, spectral, master, mask)
        return temporal + more[0], spectral + more[1], master + more[2], mask


class HeterogeneousAttention(nn.Module):
    """Graph attention over nodes of two types, with a score for each pair of types. The master attends to all nodes."""

    def __init__(self, before: int, after: int, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.temporal = nn.Linear(before, before)
        self.spectral = nn.Linear(before, before)
        self.dropout = nn.Dropout(_NODE_DROPOUT)
        self.pair = nn.Linear(before, after)
        self.temporal_score = nn.Parameter(torch.empty(after, 1))
        self.spectral_score = nn.Parameter(torch.empty(after, 1))
        self.cross_score = nn.Parameter(torch.empty(after, 1))
        self.attended = nn.Linear(before, after)
        self.itself = nn.Linear(before, after)
        self.master_pair = nn.Linear(before, after)
        self.master_score = nn.Parameter(torch.empty(after, 1))
        self.master_attended = nn.Linear(before, after)
        self.master_itself = nn.Linear(before, after)
        self.norm = nn.BatchNorm1d(after)
        self.activation = nn.SELU()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize the weights of the scores."""
        for weight in (self.temporal_score, self.spectral_score, self.cross_score, self.master_score):
            nn.init.xavier_normal_(weight)

    def forward(
        self, temporal: Tensor, spectral: Tensor, master: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Nodes (B, N, W), (B, M, W) and master (B, 1, W) to the same with width W'. The mask is for temporal nodes."""
        n_temporal = temporal.shape[1]
        nodes = self.dropout(torch.cat([self.temporal(temporal), self.spectral(spectral)], 1))
        if mask is not None:
            mask = torch.cat([mask, mask.new_ones(spectral.shape[:2])], 1)

        pairs = self.pair(nodes[:, :, None] * nodes[:, None]).tanh()  # (B, N + M, N + M, W')
        within_temporal = pairs[:, :n_temporal, :n_temporal] @ self.temporal_score
        across = pairs[:, :n_temporal, n_temporal:] @ self.cross_score
        across_back = pairs[:, n_temporal:, :n_temporal] @ self.cross_score
        within_spectral = pairs[:, n_temporal:, n_temporal:] @ self.spectral_score
        upper, lower = torch.cat([within_temporal, across], 2), torch.cat([across_back, within_spectral], 2)
        scores = torch.cat([upper, lower], 1).squeeze(3) / self.temperature
        attention = hide(scores, mask, dim=2).softmax(2)

        master_scores = self.master_pair(nodes * master).tanh() @ self.master_score / self.temperature
        master_attention = hide(master_scores, mask).softmax(1)  # (B, N + M, 1)
        master = self.master_attended(master_attention.mT @ nodes) + self.master_itself(master)

        nodes = self.attended(attention @ nodes) + self.itself(nodes)
        nodes = self.activation(_normalize(self.norm, nodes))
        return nodes[:, :n_temporal], nodes[:, n_temporal:], master


def _normalize(norm: nn.BatchNorm1d, nodes: Tensor) -> Tensor:
    """Apply batch norm over all nodes of all clips (B, N, W)."""
    return norm(nodes.flatten(0, 1)).view_as(nodes)
