"""The models and batches whose steps are measured."""

from typing import Any

import torch
from torch import Tensor
from transformers import Wav2Vec2ForSequenceClassification

from hf_gradalign.models import small_wav2vec2_config

SAMPLING_RATE = 16_000
VIEWS = ("clean", "augmented")

# The seven-layer extractor of wav2vec 2.0, and nothing random: every variant has the same work to do.
COMMON: dict[str, Any] = {
    "conv_stride": (5, 2, 2, 2, 2, 2, 2),
    "conv_kernel": (10, 3, 3, 3, 3, 2, 2),
    "num_conv_pos_embeddings": 128,
    "num_conv_pos_embedding_groups": 16,
    **dict.fromkeys(
        ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout", "final_dropout"), 0.0
    ),
}
SIZES: dict[str, dict[str, Any]] = {
    # 11.7M parameters
    "small": {
        "conv_dim": (256,) * 7,
        "hidden_size": 256,
        "num_hidden_layers": 12,
        "num_attention_heads": 4,
        "intermediate_size": 1112,
    },
    # 94.6M: wav2vec2-base
    "base": {
        "conv_dim": (512,) * 7,
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "do_stable_layer_norm": False,
        "classifier_proj_size": 256,
    },
    # 316M: XLS-R 300M
    "large": {
        "conv_dim": (512,) * 7,
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
        "feat_extract_norm": "layer",
        "conv_bias": True,
        "classifier_proj_size": 256,
    },
}


def make_model(size: str) -> Wav2Vec2ForSequenceClassification:
    """A wav2vec 2.0 classifier of one of `SIZES`, the same each time."""
    torch.manual_seed(0)
    return Wav2Vec2ForSequenceClassification(small_wav2vec2_config(**COMMON, **SIZES[size])).train()


def make_batch(utterances: int, seconds: float) -> dict[str, dict[str, Tensor]]:
    """Two views of a batch of noise, float32 samples of shape (B, T) and labels (B,)."""
    samples = round(seconds * SAMPLING_RATE)
    return {
        view: {"input_values": torch.randn(utterances, samples), "labels": torch.arange(utterances) % 2}
        for view in VIEWS
    }
