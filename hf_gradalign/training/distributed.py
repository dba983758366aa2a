"""Several processes: FSDP2 for models that it does not expect, and leaving the process group."""

import gc
from collections.abc import Mapping

from accelerate import Accelerator
from torch import Tensor, distributed, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

from hf_gradalign.alignment import is_sharded_tensor


def prepare_for_fsdp(model: nn.Module, accelerator: Accelerator) -> None:
    """Set a model and the accelerator up so that FSDP2 can take the one and keeps the views' gradients apart.

    - accelerate asks each model for its input embeddings, and transformers' speech models, which have none, raise
      NotImplementedError. They get an answer here.
    - While micro-batches are accumulated, FSDP2 keeps gradients unsharded in a buffer of its own, where the views'
      would run together. They are reduced in each micro-batch instead (`sync_each_batch`), which costs communication
      and saves memory.
    """
    if hasattr(model, "get_input_embeddings"):
        try:
            model.get_input_embeddings()
        except NotImplementedError:
            model.get_input_embeddings = _no_embeddings
    accelerator.gradient_state.plugin_kwargs["sync_each_batch"] = True


def is_sharded(model: nn.Module) -> bool:
    """Whether parameters are spread over processes (FSDP2, tensor parallelism)."""
    return any(is_sharded_tensor(parameter) for parameter in model.parameters())


def load_whole_state(model: nn.Module, state: Mapping[str, Tensor]) -> tuple[list[str], list[str]]:
    """Load weights that are whole into a model that may be spread over processes; every process must call this.

    Args:
        model: The model, sharded or not.
        state: Its weights, or some of them.

    Returns:
        Names that the weights lack, and names that the model lacks.
    """
    if is_sharded(model):
        outcome = set_model_state_dict(model, dict(state), options=StateDictOptions(full_state_dict=True, strict=False))
    else:
        outcome = model.load_state_dict(state, strict=False)
    return list(outcome.missing_keys), list(outcome.unexpected_keys)


def _no_embeddings() -> None:
    return None


def leave_process_group() -> None:
    """End this process's part in a run of several, so that it can exit; in a single process this does nothing.

    The last act of a program that succeeded, when nothing refers to its trainer any more. Gloo's threads outlive a
    process group that is not destroyed, and they let go of the tensors of the last reduction with Python's lock in
    their hands. A thread that is still waiting for the lock when the interpreter shuts down is ended in the midst of
    that, which aborts the process ("terminate called without an active exception") and fails a run that is done.
    Destroying the process group joins those threads, once the trainer and the model that hold the group are gone:
    they are cycles, which only a collection frees.
    """
    if distributed.is_available() and distributed.is_initialized():
        gc.collect()
        distributed.destroy_process_group()


__all__ = ["leave_process_group"]
