"""What a run is set up with: options and set-ups that would fail late, or silently do nothing, are refused first."""

import copy
import math
from typing import Any

import torch
import transformers
from accelerate.utils import DistributedType
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from transformers import TrainingArguments
from transformers.debug_utils import DebugOption
from transformers.optimization import get_scheduler
from transformers.trainer_utils import has_length
from transformers.training_args import ParallelMode
from transformers.utils import is_liger_kernel_available, logging

logger = logging.get_logger(__name__)

NO_DEEPSPEED = (
    "DeepSpeed keeps the gradients to itself, and the views' could not be told apart; use DDP (`torchrun`) or, for "
    "models that do not fit, FSDP2 (--fsdp, or `accelerate launch` with fsdp_version: 2)"
)


def check_supported_setup(trainer: Any) -> None:
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


# What an evaluation reports by itself.
_OWN_METRICS = ("loss", "runtime", "samples_per_second", "steps_per_second")


def check_options(trainer: Any) -> None:
    """Look at a `Trainer`'s options with its model and data, and say what is wrong with them before the first step.

    Raises:
        ValueError: On an optimizer or schedule that cannot be made or would ignore what it is given, noise for
            embeddings that the model does not have, fewer items than a batch where the last batch is dropped, and what
            needs a package or a device that is not there.
    """
    args = trainer.args
    if args.neftune_noise_alpha is not None and not _has_embeddings(trainer.model):
        raise ValueError(
            f"--neftune_noise_alpha adds noise to the embeddings of tokens, and {type(trainer.model).__name__} has "
            "none; leave it out"
        )
    if DebugOption.TPU_METRICS_DEBUG in args.debug:
        raise ValueError("--debug tpu_metrics_debug is for TPUs, on which alignment is not supported; leave it out")
    if args.use_liger_kernel and not is_liger_kernel_available():
        raise ValueError("--use_liger_kernel needs a package: pip install liger-kernel; or leave it out")
    if args.fp16 and args.device.type == "cpu":
        logger.warning("--fp16 does nothing on the CPU, where training stays in float32; --bf16 works there.")
    _check_optimizer(trainer)
    _check_schedule(trainer)
    _check_last_batch(trainer)


def _has_embeddings(model: Any) -> bool:
    try:
        return model.get_input_embeddings() is not None
    except (AttributeError, NotImplementedError):
        return False


def _check_optimizer(trainer: Any) -> None:
    args = trainer.args
    if trainer.optimizer is not None or trainer.optimizer_cls_and_kwargs is not None:
        return
    name = getattr(args.optim, "value", args.optim)
    if args.optim_target_modules is not None and not name.startswith(("galore", "apollo")):
        raise ValueError(
            f"--optim_target_modules is for GaLore and APOLLO, and --optim {name} ignores it; leave it out"
        )
    pairs = [pair for pair in (args.optim_args or "").replace(" ", "").split(",") if pair]
    if bad := [pair for pair in pairs if pair.count("=") != 1]:
        raise ValueError(f"--optim_args takes NAME=VALUE, with commas between them, got {bad[0]!r}")
    made = _optimizer(trainer, pairs)
    _try_optimizer(f"--optim {name}", *made)
    for pair in pairs:
        if _optimizer(trainer, [other for other in pairs if other != pair]) == made:
            raise ValueError(f"--optim_args {pair} changes nothing about --optim {name}; leave it out")


def _optimizer(trainer: Any, pairs: list[str]) -> Any:
    args = copy.copy(trainer.args)
    args.optim_args = ",".join(pairs) or None
    try:
        return trainer.get_optimizer_cls_and_kwargs(args, trainer.model)
    except Exception as error:  # whatever a handler of transformers or a missing package raises
        name = getattr(args.optim, "value", args.optim)
        options = f" with --optim_args {args.optim_args}" if pairs else ""
        raise ValueError(f"--optim {name}{options} cannot be made: {error}") from error


def _try_optimizer(name: str, kind: Any, options: dict[str, Any]) -> None:
    """With a parameter of its own: the figures that it was given are looked at by the optimizer itself."""
    if not (isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)) or "params" in options:
        return  # made of the whole model
    try:
        kind([torch.nn.Parameter(torch.zeros(1))], **options)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name} cannot be made: {error}") from error


def _check_schedule(trainer: Any) -> None:
    args = trainer.args
    if trainer.lr_scheduler is not None:
        return
    name = getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type)
    if args.lr_scheduler_kwargs and name in ("constant", "constant_with_warmup"):
        raise ValueError(
            f"--lr_scheduler_kwargs: --lr_scheduler_type {name} takes none and ignores them; leave them out"
        )
    steps = args.max_steps if args.max_steps > 0 else 1000
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=args.learning_rate)
    try:
        get_scheduler(
            args.lr_scheduler_type,
            optimizer=optimizer,
            num_warmup_steps=args.get_warmup_steps(steps),
            num_training_steps=steps,
            scheduler_specific_kwargs=args.lr_scheduler_kwargs,
        )
    except Exception as error:  # of wrong or missing options: TypeError, ValueError, KeyError, ...
        given = f" with --lr_scheduler_kwargs {args.lr_scheduler_kwargs}" if args.lr_scheduler_kwargs else ""
        raise ValueError(f"--lr_scheduler_type {name}{given} cannot be made: {error}") from error


def check_metric_exists(trainer: Any) -> None:
    """When training starts: an evaluation that will not have `metric_for_best_model` is refused before there is one.

    Raises:
        ValueError: If nothing computes metrics, and the model is selected by another than the loss.
    """
    args = trainer.args
    metric = (args.metric_for_best_model or "loss").removeprefix("eval_")
    evaluates_its_own_way = type(trainer).evaluate is not transformers.Trainer.evaluate
    if args.eval_strategy == "no" or metric.endswith(_OWN_METRICS) or evaluates_its_own_way:
        return
    if trainer.compute_metrics is None:
        raise ValueError(
            f"--metric_for_best_model {metric}: without compute_metrics an evaluation has no metric but the loss"
        )
    if args.prediction_loss_only:
        raise ValueError(
            f"--metric_for_best_model {metric}: with --prediction_loss_only an evaluation has no metric but the loss; "
            "leave one of the two out"
        )


def _check_last_batch(trainer: Any) -> None:
    args, dataset = trainer.args, trainer.train_dataset
    if not args.dataloader_drop_last or dataset is None or not has_length(dataset):
        return
    batch = args.train_batch_size * (1 if trainer.accelerator.split_batches else args.world_size)
    if len(dataset) < batch:
        raise ValueError(
            f"--dataloader_drop_last would drop all of the training data, {len(dataset)} items, which do not fill a "
            f"batch of {batch}; leave it out, or take a smaller --per_device_train_batch_size"
        )


_AT_LEAST = {
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "eval_accumulation_steps": 1,
    "dataloader_prefetch_factor": 1,
    "dataloader_num_workers": 0,
    "learning_rate": 0,
    "weight_decay": 0,
    "label_smoothing_factor": 0,
    "seed": 0,
    "data_seed": 0,
}
_BELOW = {"label_smoothing_factor": 1, "seed": 2**32, "data_seed": 2**32}
_INTERVALS = ("logging", "eval", "save")


def check_numbers(args: Any) -> None:
    """Refuse numbers that are out of range.

    Raises:
        ValueError: The message names the option and its range.
    """
    for name, least in _AT_LEAST.items():
        value = getattr(args, name)
        if value is not None and not (value >= least and math.isfinite(value)):
            raise ValueError(f"--{name} must be at least {least}, got {value}")
    for name, limit in _BELOW.items():
        value = getattr(args, name)
        if value is not None and not value < limit:
            raise ValueError(f"--{name} must be below {limit}, got {value}")
    for name in _INTERVALS:
        steps = getattr(args, f"{name}_steps")
        if name == "eval" and not steps:
            continue  # then it is --logging_steps
        if getattr(args, f"{name}_strategy") == "steps" and steps <= 0:
            raise ValueError(f"--{name}_steps must be positive, got {steps}")
    if args.save_strategy == "best" and args.eval_strategy == "no":
        raise ValueError("--save_strategy best saves what an evaluation finds better, and needs --eval_strategy")


__all__ = ["check_metric_exists", "check_numbers", "check_options"]
