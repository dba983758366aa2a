"""Load a checkpoint's weights completely, and under the names of the model."""

import copy
import re
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    PrefixChange,
    WeightConverter,
    WeightRenaming,
    dot_natural_key,
    rename_source_key,
)
from transformers.utils import ADAPTER_SAFE_WEIGHTS_NAME

from hf_gradalign.training.adapters import checkpoint_names, has_adapters, load_adapters
from hf_gradalign.training.distributed import is_sharded
from hf_gradalign.utils.messages import first_few


def to_savable_state(model: nn.Module) -> dict[str, Tensor]:
    """Return a model's state dict as safetensors can save it: tied weights once, all tensors contiguous."""
    state, seen = {}, set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            state[name] = tensor.detach().contiguous() if isinstance(tensor, Tensor) else tensor
    return state


def to_model_names(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename saved weights to their names in the model.

    `save_pretrained` saves some models of transformers (ViT, AST, DeiT, DINOv2, ...) under the names of their first
    release. `from_pretrained` translates these names, but `load_state_dict` does not.

    Args:
        model: The model that was saved.
        state: The saved weights. Names that are already names of the model stay.

    Returns:
        A state dict for the model. Names that the model does not have stay in it.
    """
    conversions = _conversions(model)
    renamings = [each for each in conversions if isinstance(each, WeightRenaming)]
    converters = [each for each in conversions if isinstance(each, WeightConverter)]
    if not conversions:
        return dict(state)
    by_pattern = {pattern: converter for converter in converters for pattern in converter.source_patterns}
    own = model.state_dict()
    named: dict[str, Tensor] = {}
    pending: dict[str, WeightConverter] = {}  # one tensor of the model may be saved as several, or the reverse
    for name in sorted(state, key=dot_natural_key):
        renamed, pattern = rename_source_key(name, renamings, converters)
        if renamed not in own and name in own:
            renamed, pattern = name, None
        if pattern is None:
            named[renamed] = state[name]
        else:
            converter = pending.setdefault(renamed, copy.deepcopy(by_pattern[pattern]))
            converter.add_tensor(renamed, name, pattern, state[name])  # ty: ignore[invalid-argument-type]  tensors work
    for name, converter in pending.items():
        converted = converter.convert(name, model=model, config=model.config)
        named |= {target: value[0] if isinstance(value, list) else value for target, value in converted.items()}
    return named


def _conversions(model: nn.Module) -> list[Any]:
    """Return the renamings that `save_pretrained` reverts: those of `from_pretrained`, or of the architecture."""
    if not isinstance(model, PreTrainedModel):
        return []
    if used := getattr(model, "_weight_conversions", None):
        return copy.deepcopy(used)
    known = get_model_conversion_mapping(model, add_legacy=False)
    return [conversion for conversion in known if not isinstance(conversion, PrefixChange)]


def load_whole_state(model: nn.Module, state: Mapping[str, Tensor]) -> tuple[list[str], list[str]]:
    """Load a full state dict into a model that may be sharded. Every process must call this.

    Args:
        model: The model, sharded or not.
        state: All or some of the model's weights, under their names in the model or in a checkpoint. For a model with
            PEFT adapters, all weights of the adapters.

    Returns:
        The missing keys and the unexpected keys.
    """
    if has_adapters(model):
        return load_adapters(model, state)
    state = to_model_names(model, state)
    if is_sharded(model):
        outcome = set_model_state_dict(model, {**state}, options=StateDictOptions(full_state_dict=True, strict=False))
    else:
        outcome = model.load_state_dict(state, strict=False)
    return list(outcome.missing_keys), list(outcome.unexpected_keys)


@contextmanager
def accept_saved_names(model: nn.Module) -> Generator[set[str]]:
    """Let `model.load_state_dict` accept saved names (`to_model_names`).

    Yields:
        A set that collects the names of the model that were loaded, and the saved names that were translated.
    """
    understood: set[str] = set()

    def translate(module: nn.Module, state: dict[str, Tensor], *_: Any) -> None:
        named = to_model_names(module, state)
        understood.update(set(named) & set(module.state_dict()), set(state) - set(named))
        state.clear()
        state.update(named)

    hook = model.register_load_state_dict_pre_hook(translate)
    try:
        yield understood
    finally:
        hook.remove()


def require_all_weights(model: nn.Module, missing: Iterable[str], unexpected: Iterable[str], source: str) -> None:
    """Check that a checkpoint has restored the whole model.

    Tied weights are saved only once, and a model can declare weights that are not saved (`_keys_to_ignore_on_save`) or
    that may be missing or unexpected (`_keys_to_ignore_on_load_missing`, `_keys_to_ignore_on_load_unexpected`).

    Args:
        model: The model that was loaded into.
        missing: Weights of the model that the checkpoint lacks.
        unexpected: Weights of the checkpoint that the model lacks.
        source: What was loaded, for the message.

    Raises:
        ValueError: If weights are missing or unexpected.
    """
    missing = _drop_declared(model, set(missing) - _find_tied(model, set(missing)), "save", "load_missing")
    unexpected = _drop_declared(model, unexpected, "load_unexpected")
    problems = [f"it lacks {first_few(missing, 3)}"] if missing else []
    problems += [f"the model lacks {first_few(unexpected, 3)}"] if unexpected else []
    if problems:
        raise ValueError(
            f"{source} does not fit the model: {', and '.join(problems)}. Use the model that it was trained with (same "
            "class, configuration and adapters)"
        )


def require_all_adapters(model: Any, checkpoint: str | Path) -> None:
    """Check that a checkpoint has all weights of a `PeftModel`'s default adapter, which PEFT does not check.

    Raises:
        ValueError: If weights are missing or unexpected.
    """
    path = Path(checkpoint, ADAPTER_SAFE_WEIGHTS_NAME)
    if "default" not in model.peft_config or not path.is_file():
        return
    with safe_open(path, "pt") as file:
        saved = set(file.keys())
    expected = checkpoint_names(model)
    require_all_weights(model, expected - saved, saved - expected, str(checkpoint))


def _find_tied(model: nn.Module, missing: set[str]) -> set[str]:
    """Return the missing weights that are the same tensor as one that is not missing."""
    tensors = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
    restored = {id(tensor) for name, tensor in tensors.items() if name not in missing}
    return {name for name in missing if name in tensors and id(tensors[name]) in restored}


def _drop_declared(model: nn.Module, names: Iterable[str], *declarations: str) -> list[str]:
    patterns = [p for each in declarations for p in getattr(model, f"_keys_to_ignore_on_{each}", None) or ()]
    return sorted(name for name in names if not any(re.search(pattern, name) for pattern in patterns))
