"""Options of the Trainer that would end a run at its first step or evaluation, or do nothing, are refused before."""

import copy
from typing import Any

import torch
from transformers import Trainer
from transformers.debug_utils import DebugOption
from transformers.optimization import get_scheduler
from transformers.trainer_utils import has_length
from transformers.utils import is_liger_kernel_available, logging

logger = logging.get_logger(__name__)

# What an evaluation reports by itself.
_OWN_METRICS = ("loss", "runtime", "samples_per_second", "steps_per_second")


def refuse_unfit_options(trainer: Any) -> None:
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


def refuse_missing_metric(trainer: Any) -> None:
    """When training starts: an evaluation that will not have `metric_for_best_model` is refused before there is one.

    Raises:
        ValueError: If nothing computes metrics, and the model is selected by another than the loss.
    """
    args = trainer.args
    metric = (args.metric_for_best_model or "loss").removeprefix("eval_")
    if args.eval_strategy == "no" or metric.endswith(_OWN_METRICS) or type(trainer).evaluate is not Trainer.evaluate:
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


__all__ = ["refuse_missing_metric", "refuse_unfit_options"]
