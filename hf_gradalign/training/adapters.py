"""Models with PEFT adapters: their weights in a checkpoint, and merging them into the base model."""

import copy
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import PretrainedConfig
from transformers.utils import CONFIG_NAME, logging

from hf_gradalign.utils.plain_text import plain_text

logger = logging.get_logger(__name__)


def has_adapters(model: Any) -> bool:
    """Return whether a model is a `PeftModel`."""
    peft = sys.modules.get("peft")  # already imported if the model is a PeftModel
    return peft is not None and isinstance(model, peft.PeftModel)


def checkpoint_names(model: Any) -> set[str]:
    """Return the names of a model's weights in a checkpoint; with adapters, only theirs."""
    if not has_adapters(model):
        return set(model.state_dict())
    from peft import get_peft_model_state_dict

    return set(get_peft_model_state_dict(model))


def load_adapters(model: Any, state: Mapping[str, Tensor]) -> tuple[list[str], list[str]]:
    """Load the weights of a model's adapters, unless some are missing.

    Returns:
        The missing keys and the unexpected keys.
    """
    from peft import set_peft_model_state_dict

    expected = checkpoint_names(model)
    missing, unexpected = sorted(expected - set(state)), sorted(set(state) - expected)
    if not missing and not unexpected:
        set_peft_model_state_dict(model, dict(state))
    return missing, unexpected


def copy_with_merged_adapters(model: Any) -> nn.Module | None:
    """Copy a `PeftModel`'s base model with the active adapters merged into its weights.

    Returns:
        The copy, of the base model's class; None, with a warning, for adapters that cannot be merged (such as prompts).
    """
    try:
        return copy.deepcopy(model).merge_and_unload()
    except (AttributeError, NotImplementedError, ValueError, TypeError) as error:
        logger.warning(
            f"The adapters cannot be merged into the model ({plain_text(error)}). Only the adapters are saved, and "
            "they need the base model to load."
        )
        return None


def save_whole_config(model: Any, folder: str | Path) -> None:
    """Save the configuration of the whole model next to its adapters.

    The model with adapters may have another head and other labels than the base model.
    """
    config = model.get_base_model().config
    if isinstance(config, PretrainedConfig):
        config.to_json_file(Path(folder, CONFIG_NAME))
