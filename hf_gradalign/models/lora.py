"""Low-rank adapters (LoRA) on the encoder of a classifier, whose head is trained as a whole."""

import re
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.feature_extraction_utils import FeatureExtractionMixin

from hf_gradalign.models.configuration_spoof_detector import WINDOW_SECONDS
from hf_gradalign.models.encoder_layers import encoder_of, freeze_layers, transformer_layers

ALL_LINEAR = "all-linear"
# The first ones that an encoder has and calls: queries and values of attention, otherwise the feed-forward layers.
_DEFAULT_TARGETS = (
    ("q_proj", "v_proj"),
    ("linear_q", "linear_v"),
    ("query", "value"),
    ("intermediate_dense", "output_dense"),
)


def add_lora(
    model: PreTrainedModel,
    feature_extractor: FeatureExtractionMixin,
    rank: int,
    alpha: float | None = None,
    target_modules: Sequence[str] | None = None,
    *,
    base: str | None = None,
    revision: str | None = None,
) -> Any:
    """Add LoRA adapters to the encoder of a classifier, and freeze the encoder's own weights.

    Hu et al., "LoRA: Low-rank adaptation of large language models" (ICLR 2022): a linear layer W of the encoder becomes
    W + alpha / rank * B A, with A random and B zero at first. Everything outside of the encoder is trained as a whole,
    and so are batch norms of the encoder, whose statistics change in training. Both are saved with the adapters.

    Args:
        model: A transformers classifier, or one of this package. It is changed in place.
        feature_extractor: Its feature extractor.
        rank: Rank of the adapters, at least 1.
        alpha: Scale; twice the rank by default.
        target_modules: Names of linear layers of the encoder, or the ends of names, such as "q_proj" or
            "layers.3.attention.k_proj"; "all-linear" for all. By default the queries and values of attention, and in
            WavLM, whose attention cannot be adapted, the feed-forward layers.
        base: Name of the base model that the saved adapters load. Defaults to the name of `model`.
        revision: Commit of the base on the Hub.

    Returns:
        The `peft.PeftModel`.

    Raises:
        ImportError: If PEFT is not installed.
        ValueError: If the model has no encoder, a target matches no linear layer of it, or an adapter would have no
            effect.
    """
    from peft import LoraConfig, get_peft_model

    encoder = encoder_of(model)
    if encoder is None:
        raise ValueError(f"{type(model).__name__} has no encoder apart from its head (base_model_prefix) to adapt")
    loose = [name for name, _ in model.named_parameters(recurse=False)]
    if loose:
        raise ValueError(f"{', '.join(loose)} of {type(model).__name__} is in none of its modules: PEFT cannot save it")
    prefix = next(name for name, module in model.named_children() if module is encoder)
    targets = _find_targets(model, encoder, feature_extractor, target_modules)
    norms = [name for name, module in encoder.named_modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    whole = [name for name, module in model.named_children() if module is not encoder and [*module.parameters()]]
    layers = transformer_layers(encoder)
    if layers is not None:
        freeze_layers(encoder, len(layers))  # this also turns off the gradients of the convolutions
    config = LoraConfig(
        r=rank,
        lora_alpha=cast(int, 2 * rank if alpha is None else alpha),
        target_modules=rf"{re.escape(prefix)}\.(.*\.)?({'|'.join(map(re.escape, targets))})",
        modules_to_save=[*whole, *(f"{prefix}.{name}" for name in norms)],
    )
    adapted = get_peft_model(model, config)
    _check_trained(adapted, prefix)
    settings = adapted.peft_config["default"]
    settings.base_model_name_or_path, settings.revision = base or settings.base_model_name_or_path, revision
    return adapted


def count_parameters(model: nn.Module) -> int:
    """Return the number of parameters of a model. Adapters count as if they were merged."""
    parts = ("lora_", ".original_module.")
    return sum(value.numel() for name, value in model.named_parameters() if not any(part in name for part in parts))


def _find_targets(
    model: PreTrainedModel,
    encoder: nn.Module,
    feature_extractor: FeatureExtractionMixin,
    given: Sequence[str] | None,
) -> list[str]:
    """Return the names of linear layers, or their ends, that are adapted."""
    linear = {name: module for name, module in encoder.named_modules() if isinstance(module, nn.Linear)}
    if not linear:
        raise ValueError(f"--lora_r: {type(encoder).__name__} has no linear layers to adapt; remove it")
    called = _called_modules(model, feature_extractor, linear)
    idle = {name.rpartition(".")[2] for name in linear.keys() - called}
    kinds = sorted({name.rpartition(".")[2] for name in linear} - idle)
    listing = f"{', '.join(kinds)} (or {ALL_LINEAR} for all of them)"
    if given is not None and list(given) == [ALL_LINEAR]:
        return kinds
    if given is None:
        for targets in _DEFAULT_TARGETS:
            if set(targets) <= set(kinds):
                return list(targets)
        raise ValueError(f"name the layers of this encoder to adapt with --lora_target_modules; there are {listing}")
    for target in given:
        matches = [name for name in linear if name == target or name.endswith(f".{target}")]
        if not matches:
            raise ValueError(
                f"--lora_target_modules {target}: {type(encoder).__name__} has no linear layer of that name; there are "
                f"{listing}"
            )
        if not called.issuperset(matches):
            raise ValueError(
                f"--lora_target_modules {target}: {type(encoder).__name__} reads the weights of these layers without "
                f"calling them, so adapters would have no effect; choose among {listing}"
            )
    return sorted(set(given))


@torch.no_grad()
def _called_modules(
    model: PreTrainedModel, feature_extractor: FeatureExtractionMixin, modules: dict[str, nn.Linear]
) -> set[str]:
    """Return the names of the modules that are called when the model classifies noise."""
    extract = cast(Any, feature_extractor)  # its base class has neither a sampling rate nor a call
    rate = extract.sampling_rate
    noise = np.random.default_rng(0).normal(0, 0.1, (round(WINDOW_SECONDS * rate),)).astype(np.float32)
    called: set[str] = set()
    hooks = [module.register_forward_hook(lambda *_, name=name: called.add(name)) for name, module in modules.items()]
    was_training = model.training
    try:
        with torch.random.fork_rng(devices=[]):  # some encoders draw numbers for layer drop even in evaluation
            model.eval()(**extract(noise, sampling_rate=rate, return_tensors="pt").to(model.device))
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return called


def _check_trained(model: Any, prefix: str) -> None:
    """Check that the adapters and everything outside of the encoder are trained: PEFT finds modules by name."""
    for name, parameter in model.named_parameters():
        in_encoder = name.startswith(f"base_model.model.{prefix}.")
        expected = ".modules_to_save." in name or (in_encoder and ".lora_" in name)
        outside = not in_encoder and ".original_module." not in name
        if parameter.requires_grad != expected or (outside and not expected):
            raise ValueError(f"PEFT would {'' if parameter.requires_grad else 'not '}train {name}; rename its module")


__all__ = ["ALL_LINEAR", "add_lora", "count_parameters"]
