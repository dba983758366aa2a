"""Encoders that take features of the waveform instead of the waveform: w2v-BERT 2.0 and Whisper's encoder.

Their own feature extractor, a transformers class, runs inside the detector's feature extractor, after the window and
the normalization. Its settings are saved with the detector.
"""

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from .head_parts import mask_of_lengths

FEATURE_EXTRACTORS = {"wav2vec2-bert": "SeamlessM4TFeatureExtractor", "whisper": "WhisperFeatureExtractor"}
"""The feature extractor of each encoder, by the `model_type` of its configuration."""


def default_extractor(config: PretrainedConfig) -> dict[str, Any] | None:
    """Return the settings of an encoder's own feature extractor; None if the encoder takes waveforms."""
    name = FEATURE_EXTRACTORS.get(config.model_type)
    if name is None:
        return None
    sizes = {"feature_size": config.num_mel_bins} if config.model_type == "whisper" else {}
    return {"feature_extractor_type": name, **sizes}


def make_extractor(settings: Mapping[str, Any]) -> Any:
    """Create an encoder's own feature extractor from its settings.

    Raises:
        ValueError: If it is not one of `FEATURE_EXTRACTORS`.
    """
    name = settings.get("feature_extractor_type")
    if name not in FEATURE_EXTRACTORS.values():
        known = ", ".join(FEATURE_EXTRACTORS.values())
        raise ValueError(f"the encoder's feature extractor must be one of {known}, got {name}")
    return _make_extractor(json.dumps(dict(settings), sort_keys=True))


@cache
def _make_extractor(settings: str) -> Any:
    fields = json.loads(settings)
    return getattr(transformers, fields.pop("feature_extractor_type"))(**fields)


def encoder_alone(model: PreTrainedModel) -> PreTrainedModel:
    """Return the encoder of a model with encoder and decoder. Return other models unchanged."""
    return model.get_encoder() if model.config.is_encoder_decoder else model


def frame_mask(encoder: Any, num_frames: int, attention_mask: Tensor, of_layers: bool = False) -> Tensor:
    """Return which of an encoder's frames are real.

    Args:
        encoder: The encoder.
        num_frames: Number of its frames T.
        attention_mask: Shape (B, time), of its input.
        of_layers: Whether the frames come from its layers. Their rate may differ from the output's rate, because some
            encoders pass the output through an adapter, or stretch it (SEW squeezes the frames for its layers).

    Returns:
        Shape (B, T), True for real frames.
    """
    squeeze = getattr(encoder.config, "squeeze_factor", 1) if of_layers else 1
    if squeeze > 1:
        lengths = encoder._get_feat_extract_output_lengths(attention_mask.sum(1)) // squeeze
        return mask_of_lengths(lengths.clamp(min=1), num_frames)
    if hasattr(encoder, "_get_feature_vector_attention_mask"):
        before_adapter = {"add_adapter": False} if of_layers and getattr(encoder.config, "add_adapter", False) else {}
        return encoder._get_feature_vector_attention_mask(num_frames, attention_mask, **before_adapter).bool()
    return mask_of_lengths(encoder._get_feat_extract_output_lengths(attention_mask.sum(1)), num_frames)


def without_padding(states: tuple[Tensor, ...], mask: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
    """Cut states (B, T, D) and their mask (B, T) to the longest clip. Whisper's extractor pads all clips to 30 s."""
    longest = int(torch.count_nonzero(mask, dim=1).max())
    return tuple(state[:, :longest] for state in states), mask[:, :longest]
