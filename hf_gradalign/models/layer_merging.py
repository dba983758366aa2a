"""Ways of merging the hidden states of all layers of an encoder into one sequence of frames, for any head.

The states are the input of each of the L transformer layers and the encoder's output, after its final layer norm if it
has one: S = L + 1 in all. Padding, by its mask as in `head_parts`, does not change the frames of a clip.
"""

import torch
from torch import Tensor, nn

from .head_parts import masked_mean, weighted_sum


class SqueezeExcitationAggregation(nn.Module):
    """SEA: a gate for each state, from the means of all states over time and width.

    Guragain et al., "Speech foundation model ensembles for the controlled singing voice deepfake detection (CtrSVDD)
    challenge 2024" (SLT 2024).

    Args:
        size: Width D of the frames; not used.
        num_states: Number of states S.
    """

    def __init__(self, size: int, num_states: int) -> None:
        super().__init__()
        hidden_size = max(1, num_states // 3)
        self.squeeze = nn.Linear(num_states, hidden_size, bias=False)
        self.excite = nn.Linear(hidden_size, num_states, bias=False)

    def forward(self, states: tuple[Tensor, ...], mask: Tensor | None = None) -> Tensor:
        """S states (B, T, D) and mask (B, T) to frames (B, T, D)."""
        means = torch.stack([masked_mean(state, mask).mean(1) for state in states], 1)  # (B, S)
        gates = self.excite(self.squeeze(means).relu()).sigmoid()
        return weighted_sum(states, gates.mT[:, :, None, None])


class WeightedSum(nn.Module):
    """The sum of all states, weighted by the softmax of one learned number per state.

    Args:
        size: Width D of the frames; not used.
        num_states: Number of states S.
    """

    def __init__(self, size: int, num_states: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_states))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize all weights to be equal."""
        nn.init.ones_(self.weight)

    def forward(self, states: tuple[Tensor, ...], mask: Tensor | None = None) -> Tensor:
        """S states (B, T, D) to frames (B, T, D). A mask changes nothing."""
        return weighted_sum(states, self.weight.softmax(0))


class AttentiveMerging(nn.Module):
    """AttM: a gate for each state, from the means of all states over time, and a linear layer over all gated states.

    Pan et al., "Attentive merging of hidden embeddings from pre-trained speech model for anti-spoofing detection"
    (Interspeech 2024).

    Args:
        size: Width D of the frames.
        num_states: Number of states S.
    """

    def __init__(self, size: int, num_states: int) -> None:
        super().__init__()
        hidden_size = max(1, num_states // 2)
        self.score = nn.Parameter(torch.empty(size, 1))
        self.squeeze = nn.Parameter(torch.empty(num_states, hidden_size))
        self.excite = nn.Parameter(torch.empty(hidden_size, num_states))
        self.activation = nn.SiLU()
        self.projection = nn.Linear(num_states * size, size)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize the gates' weights from a standard normal distribution, as in the published code."""
        for weight in (self.score, self.squeeze, self.excite):
            nn.init.normal_(weight)

    def forward(self, states: tuple[Tensor, ...], mask: Tensor | None = None) -> Tensor:
        """S states (B, T, D) and mask (B, T) to frames (B, T, D)."""
        means = torch.stack([masked_mean(state, mask) for state in states], 1)  # (B, S, D)
        scores = self.activation((means @ self.score).squeeze(2))  # (B, S)
        gates = (self.activation(scores @ self.squeeze) @ self.excite).sigmoid()
        gated = torch.stack(states, 3) * gates[:, None, None]  # (B, T, D, S)
        return self.projection(gated.flatten(2))


LAYER_MERGING: dict[str, type[nn.Module]] = {
    "sea": SqueezeExcitationAggregation,
    "weighted_sum": WeightedSum,
    "attm": AttentiveMerging,
}


def make_layer_merging(name: str, size: int, num_layers: int, head_takes_all_layers: bool) -> nn.Module:
    """Create a way of merging layers by name.

    Args:
        name: A name in `LAYER_MERGING`.
        size: Width D of the encoder's frames.
        num_layers: Number L of the encoder's transformer layers.
        head_takes_all_layers: Whether the head takes the frames of all layers itself.

    Raises:
        ValueError: If there is no such way, or it does not fit the encoder or the head.
    """
    if name not in LAYER_MERGING:
        raise ValueError(f"there is no layer_merging {name!r}; available: {', '.join(LAYER_MERGING)}")
    if num_layers == 0:
        raise ValueError(f"layer_merging {name} needs an encoder with transformer layers")
    if head_takes_all_layers:
        raise ValueError(f"layer_merging {name} is for heads that take one layer; this one takes all layers")
    return LAYER_MERGING[name](size, num_layers + 1)
