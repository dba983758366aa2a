"""The small wav2vec 2.0 that is trained from scratch where no model is named."""

from typing import Any

from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor

from hf_gradalign.models.label_names import ID2LABEL, LABEL2ID


def small_wav2vec2_config(**overrides: Any) -> Wav2Vec2Config:
    """Configuration of a 0.68M-parameter wav2vec 2.0 classifier, sized to learn the demo corpus on two CPU cores.

    Five convolutions (stride 320, one frame every 20 ms at 16 kHz) and four transformer layers of width 128.
    SpecAugment and layer drop are off: what the views of an utterance differ in is the augmentation's business alone.

    Args:
        overrides: Any field of `transformers.Wav2Vec2Config`.
    """
    settings: dict[str, Any] = {
        "conv_dim": (32, 64, 64, 64, 64),
        "conv_stride": (5, 4, 4, 2, 2),
        "conv_kernel": (10, 8, 4, 4, 4),
        "feat_extract_norm": "group",
        "conv_bias": False,
        "hidden_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "intermediate_size": 256,
        "do_stable_layer_norm": True,
        "num_conv_pos_embeddings": 32,
        "num_conv_pos_embedding_groups": 8,
        "classifier_proj_size": 128,
        "hidden_dropout": 0.1,
        "attention_dropout": 0.1,
        "activation_dropout": 0.1,
        "feat_proj_dropout": 0.1,
        "final_dropout": 0.1,
        "layerdrop": 0.0,
        "apply_spec_augment": False,
        "mask_time_prob": 0.0,
        "id2label": ID2LABEL,
        "label2id": LABEL2ID,
    }
    return Wav2Vec2Config(**{**settings, **overrides})


def small_feature_extractor() -> Wav2Vec2FeatureExtractor:
    """The small model's input: 16 kHz waveforms of zero mean and unit variance, no attention mask."""
    return Wav2Vec2FeatureExtractor(sampling_rate=16_000, do_normalize=True, return_attention_mask=False)
