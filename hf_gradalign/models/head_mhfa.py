"""MHFA: attention over time, with separate mixtures of the backbone's layers for keys and values."""

import torch
from torch import Tensor, nn

from .head_parts import hide, weighted_sum


class MHFAHead(nn.Module):
    r"""Multi-head factorized attentive pooling.

    Peng et al., "An attention-based backend allowing efficient fine-tuning of transformer models for speaker
    verification" (SLT 2022, arXiv 2210.01273): with layer outputs :math:`Z_l`,

    .. math:: K = \sum_l \mathrm{softmax}(w^k)_l Z_l S^k, \quad V = \sum_l \mathrm{softmax}(w^v)_l Z_l S^v, \quad
              A = \mathrm{softmax}_t(K Q), \quad c_h = \sum_t A_{t,h} V_t .

    The concatenated :math:`c_h` pass through a linear layer to the embedding, which is classified.

    Args:
        backbone_size: Width D of the backbone's frames.
        num_layers: Number L of hidden states of the backbone, including the one before its first layer.
        num_labels: Number of classes C.
        num_heads: Number of attention heads H.
        compression_size: Width E of keys and values.
        embedding_size: Width of the utterance's embedding.
    """

    takes_all_layers = True

    def __init__(
        self,
        backbone_size: int,
        num_layers: int,
        num_labels: int,
        *,
        num_heads: int = 32,
        compression_size: int = 128,
        embedding_size: int = 256,
    ) -> None:
        super().__init__()
        self.key_layers = nn.Parameter(torch.empty(num_layers))
        self.value_layers = nn.Parameter(torch.empty(num_layers))
        self.key = nn.Linear(backbone_size, compression_size)
        self.value = nn.Linear(backbone_size, compression_size)
        self.query = nn.Linear(compression_size, num_heads, bias=False)
        self.embedding = nn.Linear(num_heads * compression_size, embedding_size)
        self.classifier = nn.Linear(embedding_size, num_labels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize the weights of all layers to be equal."""
        nn.init.ones_(self.key_layers)
        nn.init.ones_(self.value_layers)

    def forward(self, layers: tuple[Tensor, ...], mask: Tensor | None = None) -> Tensor:
        """L layers' frames (B, T, D) and mask (B, T) to logits (B, C)."""
        keys = self.key(weighted_sum(layers, self.key_layers.softmax(0)))  # (B, T, E)
        values = self.value(weighted_sum(layers, self.value_layers.softmax(0)))  # (B, T, E)
        attention = hide(self.query(keys), mask).softmax(1)  # (B, T, H)
        pooled = attention.mT @ values  # (B, H, E)
        return self.classifier(self.embedding(pooled.flatten(1)))
