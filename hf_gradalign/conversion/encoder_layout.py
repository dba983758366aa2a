"""Speech encoders (wav2vec 2.0, HuBERT, WavLM) and sinc filters, as published and in transformers: names and sizes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from hf_gradalign.conversion.reading import ConversionError, KeyNames
from hf_gradalign.models import SincConfig

# Only used in pre-training.
IGNORED = (
    "mask_emb",
    "quantizer.",
    "input_quantizer.",
    "project_q.",
    "project_inp.",
    "final_proj.",
    "target_glu.",
    "label_embs_concat",
)
SIGNATURE = "feature_extractor.conv_layers.0.0.weight"
"""An entry that every encoder has, used to find the prefix."""

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
_WAVLM_ATTENTION = [
    (f"{_LAYER}.self_attn.relative_attention_bias", f"{_LAYER}.attention.rel_attn_embed"),
    (f"{_LAYER}.self_attn.grep_linear", f"{_LAYER}.attention.gru_rel_pos_linear"),
    (f"{_LAYER}.self_attn.grep_a", f"{_LAYER}.attention.gru_rel_pos_const"),
]
# Names of the two when the published code runs on torch 2.
_PARAMETRIZED = {
    "encoder.pos_conv.0.parametrizations.weight.original0": "encoder.pos_conv.0.weight_g",
    "encoder.pos_conv.0.parametrizations.weight.original1": "encoder.pos_conv.0.weight_v",
}
_POSITION_BIAS = "encoder.layers.0.self_attn.relative_attention_bias.weight"
_STRIDES = (5, 2, 2, 2, 2, 2, 2)
_MAX_BUCKET_DISTANCE = 800
_BASE_WIDTH, _BASE_HEADS, _LARGE_HEADS = 768, 12, 16  # of all published encoders


@dataclass(frozen=True, kw_only=True)
class EncoderSettings:
    """Settings of an encoder that shapes do not determine or that the user overrides. None means the usual value.

    Attributes:
        num_attention_heads: Number of attention heads: 12 for a width of 768, 16 for others. WavLM's shapes determine
            it.
        conv_stride: Strides of the feature extractor's layers: those of wav2vec 2.0.
        do_stable_layer_norm: Whether layer norm comes before attention and feed-forward, as in XLS-R: if the feature
            extractor has layer norm, as in all published encoders.
        max_bucket_distance: Largest distance of WavLM's relative positions: 800.
        num_sinc_filters: Number of filters in front of AASIST on raw waveforms: 70.
        sinc_kernel_size: Taps of these filters: 129.
    """

    num_attention_heads: int | None = None
    conv_stride: Sequence[int] | None = None
    do_stable_layer_norm: bool | None = None
    max_bucket_distance: int | None = None
    num_sinc_filters: int | None = None
    sinc_kernel_size: int | None = None

    @property
    def given(self) -> dict[str, Any]:
        """The settings that are not None, by name."""
        return {
            name: list(value) if isinstance(value, Sequence) else value
            for name, value in vars(self).items()
            if value is not None
        }


@cache
def key_names(model_type: str, feat_extract_norm: str) -> KeyNames:
    """Return the names of an encoder whose feature extractor has layer norm ("layer") or group norm ("group")."""
    names = (_LAYER_NORM_EXTRACTOR if feat_extract_norm == "layer" else _GROUP_NORM_EXTRACTOR) + _ENCODER
    return KeyNames(names + _WAVLM_ATTENTION if model_type == "wavlm" else names)


def normalize_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the encoder's entries (without prefix) under the original names of the published code."""
    return {_PARAMETRIZED.get(key, key): value for key, value in state.items()}


def identity_projection(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the identity projection between convolutions and transformer that fairseq omits for equal widths.

    Args:
        state: The encoder's entries, from `normalize_keys`.

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
    state: Mapping[str, Tensor], settings: EncoderSettings, prefix: str = ""
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the fields of the encoder's configuration from the shapes of weights.

    Args:
        state: The encoder's entries, from `normalize_keys`.
        settings: The settings that shapes do not determine.
        prefix: The entries' prefix in the checkpoint, for messages.

    Returns:
        The fields, with `model_type` (wav2vec2, hubert or wavlm), and the fields that are assumed because neither the
        shapes nor the settings determine them.

    Raises:
        ConversionError: If an entry needed for the sizes is missing, or the settings do not fit the sizes.
    """
    n_convs, n_layers = (count(state, f"{name}.") for name in ("feature_extractor.conv_layers", "encoder.layers"))
    needed = ["encoder.layer_norm.weight", "encoder.pos_conv.0.weight_v", "encoder.layers.0.fc1.weight"]
    needed += [f"feature_extractor.conv_layers.{index}.0.weight" for index in range(max(n_convs, 1))]
    model_type = _model_type(state)
    if model_type == "wavlm":
        needed.append(_POSITION_BIAS)
    missing = [prefix + key for key in needed if key not in state]
    if missing:
        raise ConversionError(f"the backbone's sizes cannot be read: missing {', '.join(missing)}")
    convolutions = [state[key] for key in needed[3 : 3 + n_convs]]
    hidden_size = len(state["encoder.layer_norm.weight"])
    positions = state["encoder.pos_conv.0.weight_v"]
    has_layer_norm = "feature_extractor.conv_layers.0.2.1.weight" in state
    told: dict[str, Any] = {
        "model_type": model_type,
        "hidden_size": hidden_size,
        "num_hidden_layers": n_layers,
        "intermediate_size": len(state["encoder.layers.0.fc1.weight"]),
        "conv_dim": [len(weight) for weight in convolutions],
        "conv_kernel": [weight.shape[2] for weight in convolutions],
        "num_feat_extract_layers": n_convs,
        "conv_bias": "feature_extractor.conv_layers.0.0.bias" in state,
        "feat_extract_norm": "layer" if has_layer_norm else "group",
        "num_conv_pos_embeddings": positions.shape[2],
        "num_conv_pos_embedding_groups": hidden_size // positions.shape[1],
        "layerdrop": 0.0,
        "apply_spec_augment": False,
        "mask_time_prob": 0.0,
        "mask_feature_prob": 0.0,
    }
    usual: dict[str, Any] = {
        "num_attention_heads": _BASE_HEADS if hidden_size == _BASE_WIDTH else _LARGE_HEADS,
        "conv_stride": list(_STRIDES),
        "do_stable_layer_norm": has_layer_norm,
    }
    if model_type == "wavlm":
        told["num_buckets"], told["num_attention_heads"] = state[_POSITION_BIAS].shape
        usual["max_bucket_distance"] = _MAX_BUCKET_DISTANCE
    given = settings.given
    _check_given(given, told)
    fields = usual | given | told
    if hidden_size % fields["num_attention_heads"]:
        raise ConversionError(
            f"--num_attention_heads {fields['num_attention_heads']} does not divide the backbone's width of "
            f"{hidden_size}; the checkpoint does not contain the number; XLS-R 300M has 16"
        )
    return fields, {name: value for name, value in usual.items() if name not in told | given}


def sinc_config(state: Mapping[str, Tensor], settings: EncoderSettings) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the fields of `SincConfig` for AASIST on raw waveforms. Checkpoints do not contain them.

    Args:
        state: The detector's entries.
        settings: The settings that shapes do not determine. The published values are the default.

    Returns:
        The fields, with `model_type`, and the settings that are assumed.

    Raises:
        ConversionError: If the settings are those of an encoder, or do not fit the number of spectral nodes, each of
            which stands for three filters.
    """
    published = SincConfig()
    usual = {"num_sinc_filters": published.num_filters, "sinc_kernel_size": published.kernel_size}
    given = settings.given
    of_encoders = sorted(given.keys() - usual.keys())
    if of_encoders:
        raise ConversionError(f"--{of_encoders[0]} is for encoders, but AASIST on raw waveforms has none: remove it")
    if "pos_S" not in state:
        raise ConversionError("the aasist_raw head's sizes cannot be read: no pos_S")
    nodes = state["pos_S"].shape[1]
    fields = usual | given
    if fields["num_sinc_filters"] // 3 != nodes:
        what = "--num_sinc_filters" if "num_sinc_filters" in given else "the published number of filters,"
        raise ConversionError(
            f"{what} {fields['num_sinc_filters']} does not fit the {nodes} spectral nodes of pos_S: set "
            f"--num_sinc_filters to the number in the model's configuration, which is {3 * nodes} to {3 * nodes + 2}"
        )
    config = {
        "model_type": SincConfig.model_type,
        "num_filters": fields["num_sinc_filters"],
        "kernel_size": fields["sinc_kernel_size"],
    }
    return config, {name: value for name, value in usual.items() if name not in given}


def _model_type(state: Mapping[str, Tensor]) -> str:
    if any(key.endswith(".self_attn.grep_a") for key in state):
        return "wavlm"
    return "hubert" if "label_embs_concat" in state else "wav2vec2"


def _check_given(given: Mapping[str, Any], told: Mapping[str, Any]) -> None:
    heads, model_type, n_convs = given.get("num_attention_heads"), told["model_type"], told["num_feat_extract_layers"]
    if heads is not None and heads < 1:
        raise ConversionError(f"--num_attention_heads must be positive, got {heads}")
    if heads is not None and told.get("num_attention_heads", heads) != heads:
        raise ConversionError(
            f"--num_attention_heads {heads}: the encoder is a WavLM, whose shapes say {told['num_attention_heads']}"
        )
    if "max_bucket_distance" in given and model_type != "wavlm":
        raise ConversionError(f"--max_bucket_distance is for WavLM, but the encoder is a {model_type}")
    for option in ("num_sinc_filters", "sinc_kernel_size"):
        if option in given:
            raise ConversionError(f"--{option} is for AASIST on raw waveforms, but this detector has a {model_type}")
    strides = given.get("conv_stride")
    if strides is None and n_convs != len(_STRIDES):
        raise ConversionError(
            f"the feature extractor has {n_convs} layers, not {len(_STRIDES)} as in wav2vec 2.0: pass their strides, "
            "which the checkpoint does not contain, with --conv_stride"
        )
    if strides is not None and len(strides) != n_convs:
        raise ConversionError(f"--conv_stride has {len(strides)} strides for {n_convs} layers")


def count(state: Mapping[str, Any], prefix: str) -> int:
    """Return one more than the largest number that follows the prefix in a key; 0 if there is none."""
    numbers = [key.removeprefix(prefix).split(".")[0] for key in state if key.startswith(prefix)]
    return max((int(number) + 1 for number in numbers if number.isdigit()), default=0)
