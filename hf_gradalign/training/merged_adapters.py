"""Models with PEFT's adapters, saved as models that load without PEFT and without being told their base."""

import copy
import sys

from torch import nn
from transformers.utils import logging

from hf_gradalign.utils.plain_text import plain_text

logger = logging.get_logger(__name__)

ADAPTER_DIR = "adapter"
"""Where the adapters lie in the folder of a merged model, by themselves."""


def has_adapters(model: nn.Module) -> bool:
    """Whether a model is one of PEFT's."""
    peft = sys.modules.get("peft")  # who has such a model has imported it
    return peft is not None and isinstance(model, peft.PeftModel)


def merged_copy(model: nn.Module) -> nn.Module | None:
    """A copy of the base model with the active adapters added to its weights.

    Args:
        model: A `PeftModel`; it stays as it is.

    Returns:
        The copy, of the base model's class; None, with a warning, for adapters that cannot be added (prompts, say).
    """
    try:
        return copy.deepcopy(model).merge_and_unload()
    except (AttributeError, NotImplementedError, ValueError, TypeError) as error:
        logger.warning(
            f"The adapters cannot be merged into the model ({plain_text(error)}): they are saved alone, and load only "
            "with the base model, which is not saved with them."
        )
        return None
