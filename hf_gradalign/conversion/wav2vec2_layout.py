"""wav2vec 2.0 in fairseq and in transformers: names of weights, and the configuration from their shapes."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from hf_gradalign.conversion.reading import ConversionError, KeyNames

PREFIX = "ssl_model.model."

# Only used in pre-training.
IGNORED = ("mask_emb", "quantizer.", "input_quantizer.", "project_q.", "project_inp.", "final_proj.", "target_glu.")

_CONV, _LAYER, _POSITION = "feature_extractor.conv_layers.{n}", "encoder.layers.{n}", "encoder.pos_conv_embed.conv"
_LAYER_NORM_EXTRACTOR = [(f"{_CONV}.0", f"{_CONV}.conv"), (f"{_CONV}.2.1", f"{_CONV}.layer_norm")]
_GROUP_NORM_EXTRACTOR = [(f"{_CONV}.0", f"{_CONV}.conv"), (f"{_CONV}.2", f"{_CONV}.layer_norm")]
_ENCODER = [
    ("layer_norm", "feature_projection.layer_norm"),
    ("post_extract_proj", "feature_projection.projection"),
    ("encoder.pos_conv.0.bias", f"{_POSITION}.bias"),
    ("encoder.pos_conv.0.weight_g", f"{_POSITION}.parametrizations.weight.original0"),
    ("encoder.pos_conv.0.weight_v", f"{_POSITION}.parametrizations.weight.original1"),
    ("encoder.layer_norm", "encoder.layer_norm"),
    (f"{_LAYER}.self_attn", f"{_LAYER}.attention"),
    (f"{_LAYER}.self_attn_layer_norm", f"{_LAYER}.layer_norm"),
    (f"{_LAYER}.fc1", f"{_LAYER}.feed_forward.intermediate_dense"),
    (f"{_LAYER}.fc2", f"{_LAYER}.feed_forward.output_dense"),
    (f"{_LAYER}.final_layer_norm", f"{_LAYER}.final_layer_norm"),
]
# Names of the two when fairseq runs on torch 2.
_PARAMETRIZED = {
    "encoder.pos_conv.0.parametrizations.weight.original0": "encoder.pos_conv.0.weight_g",
    "encoder.pos_conv.0.parametrizations.weight.original1": "encoder.pos_conv.0.weight_v",
}
_STRIDES = (5, 2, 2, 2, 2, 2, 2)


@cache
def key_names(feat_extract_norm: str) -> KeyNames:
    """Return the names of a backbone whose feature extractor has layer norm ("layer") or group norm ("group")."""
    return KeyNames((_LAYER_NORM_EXTRACTOR if feat_extract_norm == "layer" else _GROUP_NORM_EXTRACTOR) + _ENCODER)


def normalize_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the backbone's entries without their prefix, under the original names of fairseq."""
    entries = {key.removeprefix(PREFIX): value for key, value in state.items() if key.startswith(PREFIX)}
    return {_PARAMETRIZED.get(key, key): value for key, value in entries.items()}


def identity_projection(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the identity projection between convolutions and transformer that fairseq omits for equal widths.

    Args:
        state: The backbone's entries, from `normalize_keys`.

    Returns:
        Its entries; empty if the checkpoint has a projection or the widths differ.
    """
    before, after = state.get("layer_norm.weight"), state.get("encoder.layer_norm.weight")
    if "post_extract_proj.weight" in state or before is None or after is None or len(before) != len(after):
        return {}
    size = len(before)
    return {"post_extract_proj.weight": torch.eye(size), "post_extract_proj.bias": torch.zeros(size)}


def is_ignored(key: str) -> bool:
    """Return whether an entry (without prefix) is only used in pre-training."""
    return key.startswith(IGNORED)


def config_from_shapes(
    state: Mapping[str, Tensor],
    *,
    num_attention_heads: int,
    conv_stride: Sequence[int] | None = None,
    do_stable_layer_norm: bool | None = None,
) -> dict[str, Any]:
    """Return the fields of `Wav2Vec2Config` from the shapes of weights.

    Args:
        state: The backbone's entries, from `normalize_keys`.
        num_attention_heads: Number of attention heads, which shapes do not determine.
        conv_stride: Strides of the feature extractor's layers, which shapes do not determine; by default those of
            wav2vec 2.0 for seven layers.
        do_stable_layer_norm: Whether layer norm comes before attention and feed-forward, as in XLS-R, which shapes do
            not determine; by default if the feature extractor has layer norm, as in all models of fairseq.

    Raises:
        ConversionError: If an entry needed for the sizes is missing, or the arguments do not fit the sizes.
    """
    n_convs, n_layers = (count(state, f"{name}.") for name in ("feature_extractor.conv_layers", "encoder.layers"))
    needed = ["encoder.layer_norm.weight", "encoder.pos_conv.0.weight_v", "encoder.layers.0.fc1.weight"]
    needed += [f"feature_extractor.conv_layers.{index}.0.weight" for index in range(max(n_convs, 1))]
    missing = [PREFIX + key for key in needed if key not in state]
    if missing:
        raise ConversionError(f"the backbone's sizes cannot be read: missing {', '.join(missing)}")
    convolutions = [state[key] for key in needed[3:]]
    hidden_size = len(state["encoder.layer_norm.weight"])
    if num_attention_heads < 1 or hidden_size % num_attention_heads:
        raise ConversionError(
            f"--num_attention_heads {num_attention_heads} does not divide the backbone's width of {hidden_size}; "
            "the checkpoint does not say the number; XLS-R 300M has 16"
        )
    if conv_stride is None and n_convs != len(_STRIDES):
        raise ConversionError(
            f"the feature extractor has {n_convs} layers, not {len(_STRIDES)} as wav2vec 2.0: pass their strides, "
            "which the checkpoint does not say, with --conv_stride"
        )
    strides = list(_STRIDES if conv_stride is None else conv_stride)
    if len(strides) != n_convs:
        raise ConversionError(f"--conv_stride has {len(strides)} strides for {n_convs} layers")
    positions = state["encoder.pos_conv.0.weight_v"]
    has_layer_norm = "feature_extractor.conv_layers.0.2.1.weight" in state
    return {
        "model_type": "wav2vec2",
        "hidden_size": hidden_size,
        "num_hidden_layers": n_layers,
        "num_attention_heads": num_attention_heads,
        "intermediate_size": len(state["encoder.layers.0.fc1.weight"]),
        "conv_dim": [len(weight) for weight in convolutions],
        "conv_kernel": [weight.shape[2] for weight in convolutions],
        "conv_stride": strides,
        "num_feat_extract_layers": n_convs,
        "conv_bias": "feature_extractor.conv_layers.0.0.bias" in state,
        "feat_extract_norm": "layer" if has_layer_norm else "group",
        "num_conv_pos_embeddings": positions.shape[2],
        "num_conv_pos_embedding_groups": hidden_size // positions.shape[1],
        "do_stable_layer_norm": has_layer_norm if do_stable_layer_norm is None else do_stable_layer_norm,
        "layerdrop": 0.0,
        "apply_spec_augment": False,
        "mask_time_prob": 0.0,
        "mask_feature_prob": 0.0,
    }


def count(state: Mapping[str, Any], prefix: str) -> int:
    """Return one more than the largest number that follows the prefix in a key; 0 if there is none."""
    numbers = [key.removeprefix(prefix).split(".")[0] for key in state if key.startswith(prefix)]
    return max((int(number) + 1 for number in numbers if number.isdigit()), default=0)
