"""Distributed training: process checks, FSDP2, work on the main process only, and leaving the process group."""

import gc
from collections.abc import Callable
from typing import Any, TypeVar

from accelerate import Accelerator, PartialState
from torch import distributed, nn
from transformers import TrainingArguments
from transformers.training_args import ParallelMode

from hf_gradalign.alignment import is_sharded_tensor

T = TypeVar("T")


def check_processes(args: TrainingArguments) -> None:
    """Check that all processes and GPUs train one model, through DDP or FSDP.

    Raises:
        ValueError: For DataParallel, and for processes that would train separately.
    """
    if args.n_gpu > 1:
        raise ValueError(
            f"{args.n_gpu} GPUs in one process would be used through DataParallel, which cannot keep the "
            "views' gradients apart; start one process per GPU with `torchrun --nproc_per_node N` or "
            "`accelerate launch`, or use one GPU (CUDA_VISIBLE_DEVICES=0)"
        )
    if (
        distributed.is_available()
        and distributed.is_initialized()
        and distributed.get_world_size() > 1
        and args.parallel_mode == ParallelMode.NOT_PARALLEL
    ):
        raise ValueError(
            f"each of the {distributed.get_world_size()} processes would train its own model: accelerate found no "
            "accelerator. To train together on the CPU, add --use_cpu"
        )


def prepare_for_fsdp(model: Any, accelerator: Accelerator) -> None:
    """Prepare a model and the accelerator for FSDP2, so that the gradients of the views stay separate.

    - accelerate asks each model for its input embeddings. The transformers speech models have none and raise
      NotImplementedError. This function gives them a method that returns None.
    - While it accumulates micro-batches, FSDP2 keeps unsharded gradients in its own buffer, which would add up the
      views. Instead, gradients are reduced in each micro-batch (`sync_each_batch`), which costs communication and saves
      memory.
    """
    if hasattr(model, "get_input_embeddings"):
        try:
            model.get_input_embeddings()
        except NotImplementedError:
            model.get_input_embeddings = lambda: None
    accelerator.gradient_state.plugin_kwargs["sync_each_batch"] = True


def is_sharded(model: nn.Module) -> bool:
    """Return whether a model's parameters are sharded over processes (FSDP2, tensor parallelism)."""
    return any(is_sharded_tensor(parameter) for parameter in model.parameters())


def on_main_process(work: Callable[[], T]) -> T:
    """Call a function in the main process only, and return its result in every process.

    Raises:
        ValueError: If the function raised it; then every process raises it.
        OSError: In the same way.
    """
    outcome: list[Any] = [None, None]
    if PartialState().is_main_process:
        try:
            outcome[0] = work()
        except (ValueError, OSError) as error:
            outcome[1] = error
    if distributed.is_available() and distributed.is_initialized():
        distributed.broadcast_object_list(outcome)  # accelerate's does nothing if it found no accelerator
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


def leave_process_group() -> None:
    """Destroy the process group so that this process can exit cleanly. Does nothing in a single process.

    Call it last in a successful program, when nothing refers to the trainer anymore. The threads of Gloo outlive a
    process group that is not destroyed, and need Python's lock to release the tensors of the last reduction. A thread
    that still waits for the lock when the interpreter shuts down aborts the process ("terminate called without an
    active exception"), so a finished run would fail. Destroying the group joins those threads, but only after the
    trainer and the model that hold it are gone. They are in reference cycles, so garbage is collected first.
    """
    if distributed.is_available() and distributed.is_initialized():
        gc.collect()
        distributed.destroy_process_group()
