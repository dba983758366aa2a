"""Set-ups in which the views' gradients cannot be kept apart are refused before the first step."""

from typing import Any

from accelerate.utils import DistributedType
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from transformers import TrainingArguments
from transformers.training_args import ParallelMode

NO_DEEPSPEED = (
    "DeepSpeed keeps the gradients to itself, and the views' could not be told apart; use DDP (`torchrun`) or, for "
    "models that do not fit, FSDP2 (--fsdp, or `accelerate launch` with fsdp_version: 2)"
)


def refuse_unfit_setup(trainer: Any) -> None:
    """Look at how a `Trainer` is set up, and say what to use where alignment would be wrong.

    Raises:
        ValueError: On DataParallel, processes that do not know of each other, DeepSpeed, FSDP1, Megatron-LM, XLA,
            tensor, context or sequence parallelism, optimisers that update within the backward pass, and saving
            in the middle of an update.
    """
    args = trainer.args
    if args.n_gpu > 1:
        raise ValueError(
            f"{args.n_gpu} GPUs in one process would be used through DataParallel, which cannot keep the "
            "views' gradients apart; start one process a GPU with `torchrun --nproc_per_node N` or "
            "`accelerate launch`, or show one GPU only (CUDA_VISIBLE_DEVICES=0)"
        )
    if (
        distributed.is_available()
        and distributed.is_initialized()
        and distributed.get_world_size() > 1
        and args.parallel_mode == ParallelMode.NOT_PARALLEL
    ):
        raise ValueError(
            f"{distributed.get_world_size()} processes would each train a model of their own: accelerate found no "
            "accelerator for them. To train on the CPU together, add --use_cpu"
        )
    optimiser = str(getattr(args.optim, "value", args.optim))
    if "lomo" in optimiser or "layerwise" in optimiser:
        raise ValueError(
            f"--optim {optimiser} updates parameters within the backward pass, before the views' gradients can be "
            "aligned; use another optimiser, such as adamw_torch"
        )
    if trainer.is_deepspeed_enabled:
        raise ValueError(NO_DEEPSPEED)
    if args.enable_jit_checkpoint:
        raise ValueError(
            "--enable_jit_checkpoint saves in the middle of an update, which the alignment's state has seen and the "
            "weights have not, and a resumed run would differ; use the callback SaveOnInterrupt, which saves when the "
            "update is done (scripts/run_audio_spoof.py has it)"
        )
    kind = getattr(trainer.accelerator, "distributed_type", None)
    if kind in (DistributedType.MEGATRON_LM, DistributedType.XLA):
        raise ValueError(f"{kind.value} is not supported: nobody has seen alignment work there; use DDP (`torchrun`)")
    plugin = getattr(trainer.accelerator.state, "fsdp_plugin", None)
    if plugin is not None and plugin.fsdp_version != 2:
        raise ValueError(
            "FSDP1 flattens the gradients of many parameters into one, and the views' could not be told apart; use "
            "FSDP2 (--fsdp_config '{\"version\": 2}', or fsdp_version: 2 in the configuration of accelerate)"
        )
    parallelism = getattr(trainer.accelerator, "parallelism_config", None)
    splits_items = parallelism is not None and (parallelism.cp_enabled or parallelism.sp_enabled)
    if trainer.get_tp_size() > 1 or splits_items:
        raise ValueError(
            "tensor, context and sequence parallelism split an item over processes, and the share of an update that a "
            "process's items stand for would be wrong; use DDP (`torchrun`) or FSDP2 (--fsdp)"
        )


def shares_gradient_storage(model: nn.Module, args: TrainingArguments) -> bool:
    """Whether every backward pass leaves its gradients in the same memory.

    DDP's `gradient_as_bucket_view` does, and so do CUDA graphs (`torch_compile_mode` "reduce-overhead" and
    "max-autotune"), whose next replay writes over what the last one gave.
    """
    if args.torch_compile and args.torch_compile_mode in ("reduce-overhead", "max-autotune"):
        return True
    return any(
        isinstance(module, DistributedDataParallel) and module.gradient_as_bucket_view for module in model.modules()
    )
