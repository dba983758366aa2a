"""The transformer layers of an encoder, and what comes before and after them."""

from typing import Any, cast

from torch import nn
from transformers import PretrainedConfig

# Where encoders keep their layers.
_LAYERS = ("encoder.layers", "encoder.layer", "layers", "layer")
# Modules that take the output of the last layer, by the start of their names.
_AFTER = ("adapter", "intermediate_ffn", "layer_norm", "layernorm", "pooler")
# Whether the layers are followed by `encoder.layer_norm`. In other encoders, it comes before them.
_NORM_LAST = ("wav2vec2-conformer",)


def encoder_of(model: Any) -> nn.Module | None:
    """Return the encoder of a classifier, also within PEFT adapters; None if it is not a separate module."""
    if hasattr(model, "get_base_model"):
        model = model.get_base_model()
    encoder = getattr(model, getattr(model, "base_model_prefix", None) or "base_model", None)
    return encoder if isinstance(encoder, nn.Module) and encoder is not model else None


def count_frames(config: PretrainedConfig, n_samples: int) -> int:
    """Return the number of frames that the convolutions of an encoder of waveforms make of `n_samples`."""
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        n_samples = (n_samples - kernel) // stride + 1
    return n_samples


def transformer_layers(encoder: nn.Module) -> nn.ModuleList | None:
    """Return the transformer layers of an encoder, from the first to the last; None if it has none."""
    modules = dict(encoder.named_modules())
    found = (modules.get(name) for name in _LAYERS)
    return next((layers for layers in found if isinstance(layers, nn.ModuleList) and len(layers)), None)


def encoder_depths(encoder: nn.Module, layers: nn.ModuleList) -> dict[nn.Parameter, int]:
    """Return the depth of each parameter of an encoder.

    Args:
        encoder: The encoder.
        layers: Its L transformer layers.

    Returns:
        0 before the layers (convolutions, projections, positions), 1 to L for the layers, and L + 1 after them.
    """
    depths: dict[nn.Parameter, int] = {}
    for depth, layer in enumerate(layers, start=1):
        depths |= dict.fromkeys(layer.parameters(), depth)
    for name, parameter in encoder.named_parameters():
        depths.setdefault(parameter, len(layers) + 1 if _is_after(name, cast(Any, encoder).config) else 0)
    return depths


def freeze_layers(encoder: nn.Module, count: int) -> None:
    """Freeze the first `count` transformer layers of an encoder and all that comes before them.

    Args:
        encoder: The encoder.
        count: Number of layers. 0 only freezes what comes before them.

    Raises:
        ValueError: If the encoder has no or fewer transformer layers.
    """
    layers = transformer_layers(encoder)
    if layers is None:
        raise ValueError(f"{type(encoder).__name__} has no list of transformer layers to freeze")
    if not 0 <= count <= len(layers):
        raise ValueError(f"the encoder has {len(layers)} layers, cannot freeze {count}")
    for parameter, depth in encoder_depths(encoder, layers).items():
        if depth <= count:
            parameter.requires_grad_(False)
    convolutions = getattr(encoder, "feature_extractor", None)
    if hasattr(convolutions, "_requires_grad"):
        # Otherwise they would request gradients of the waveform.
        cast(Any, convolutions)._requires_grad = False


def _is_after(name: str, config: PretrainedConfig) -> bool:
    if name.startswith("encoder.layer_norm."):
        # Encoders with `do_stable_layer_norm` normalize the output of their layers, and the others the input.
        return bool(getattr(config, "do_stable_layer_norm", False)) or config.model_type in _NORM_LAST
    return name.startswith(_AFTER)
