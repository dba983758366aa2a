"""torch.compile with speech models, and passes that overwrite each other's results (CUDA graphs, DDP)."""

from typing import Any

from torch import nn
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedModel, TrainingArguments
from transformers.utils import logging
from transformers.utils.output_capturing import maybe_install_capturing_hooks

logger = logging.get_logger(__name__)


def prepare_for_compile(model: nn.Module, args: TrainingArguments) -> None:
    """Remove what would keep torch.compile from making one graph of a speech model.

    A wav2vec 2.0 that is compiled into several graphs is slower than one that is not compiled:

    - transformers installs the hooks that collect hidden states during the first forward pass, under a lock. Here the
      hooks are installed before that pass.
    - The convolutions of wav2vec 2.0 and its relatives make their input require a gradient, for reentrant gradient
      checkpointing. Nothing else needs this gradient, so it is turned off without gradient checkpointing.
    - Layer drop and SpecAugment draw random numbers outside the graph. They stay on, and a warning says that they cost
      speed.

    Args:
        model: The model before it is compiled.
        args: The arguments of training.
    """
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            maybe_install_capturing_hooks(module)
        if hasattr(module, "_requires_grad") and not args.gradient_checkpointing:
            module.__dict__["_requires_grad"] = False
    breaks = [name for name in ("layerdrop", "mask_time_prob", "mask_feature_prob") if _highest_value(model, name) > 0]
    if breaks:
        logger.warning(
            f"torch.compile cannot make one graph of a model with {' and '.join(breaks)} above 0, so training may be "
            "slower than without it. Set them to 0 in the model's configuration."
        )


def _highest_value(model: nn.Module, name: str) -> float:
    """Return the highest value of an option in the configurations of a model and its parts."""
    configs: list[Any] = [module.config for module in model.modules() if isinstance(module, PreTrainedModel)]
    masks = [config for config in configs if name == "layerdrop" or getattr(config, "apply_spec_augment", True)]
    return max((getattr(config, name, 0.0) for config in masks), default=0.0)


def uses_cuda_graphs(args: TrainingArguments) -> bool:
    """Return whether a compiled model writes its outputs and gradients to the same memory in every pass.

    `torch_compile_mode` "reduce-overhead" and "max-autotune" do this, because each pass replays a CUDA graph.
    """
    return bool(args.torch_compile) and args.torch_compile_mode in ("reduce-overhead", "max-autotune")


def shares_gradient_storage(model: nn.Module, args: TrainingArguments) -> bool:
    """Return whether every backward pass writes its gradients to the same memory.

    DDP with `gradient_as_bucket_view` does this, and so do CUDA graphs (`uses_cuda_graphs`), where each replay
    overwrites the gradients of the last one.
    """
    return uses_cuda_graphs(args) or any(
        isinstance(module, DistributedDataParallel) and module.gradient_as_bucket_view for module in model.modules()
    )
