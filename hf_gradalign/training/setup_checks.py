"""Checks of a run's options and setup before training, so that nothing fails late or is silently ignored."""

import copy
import math
from typing import Any

import torch
import transformers
from accelerate.utils import DistributedType
from transformers.optimization import get_scheduler
from transformers.trainer_utils import has_length
from transformers.utils import is_liger_kernel_available, logging

from hf_gradalign.models.encoder_layers import encoder_depths, encoder_of, transformer_layers
from hf_gradalign.training.adapters import has_adapters
from hf_gradalign.training.distributed import check_processes

logger = logging.get_logger(__name__)

NO_DEEPSPEED = (
    "DeepSpeed does not give access to gradients, so they cannot be aligned; use DDP (`torchrun`) or, "
    "for models that do not fit, FSDP2 (--fsdp, or `accelerate launch` with fsdp_version: 2)"
)


def check_supported_setup(trainer: Any) -> None:
    """Check that gradients can be aligned in a `Trainer`'s setup.

    Raises:
        ValueError: For DataParallel, processes that would train separately, DeepSpeed, FSDP1, Megatron-LM, XLA, tensor,
            context or sequence parallelism, optimizers that update during the backward pass, saving in the middle of an
            update, and saving on each machine. The message says what to use instead.
    """
    args = trainer.args
    check_processes(args)
    optimizer = str(getattr(args.optim, "value", args.optim))
    if "lomo" in optimizer or "layerwise" in optimizer:
        raise ValueError(
            f"--optim {optimizer} updates parameters during the backward pass, before the views' gradients can be "
            "aligned; use another optimizer, such as adamw_torch"
        )
    if trainer.is_deepspeed_enabled:
        raise ValueError(NO_DEEPSPEED)
    if args.enable_jit_checkpoint:
        raise ValueError(
            "--enable_jit_checkpoint saves in the middle of an update, after the alignment's state has changed but "
            "before the weights have, so a resumed run would differ; use the callback SaveOnInterrupt, which saves "
            "after the update (hf-gradalign train uses it)"
        )
    if args.save_on_each_node and args.world_size > 1:
        raise ValueError(
            "--save_on_each_node is not supported: every process writes its part of a checkpoint to one folder, so "
            "--output_dir must be on a disk that all machines share"
        )
    kind = getattr(trainer.accelerator, "distributed_type", None)
    if kind in (DistributedType.MEGATRON_LM, DistributedType.XLA):
        raise ValueError(f"{kind.value} is not supported, because alignment is untested with it; use DDP (`torchrun`)")
    plugin = getattr(trainer.accelerator.state, "fsdp_plugin", None)
    if plugin is not None and plugin.fsdp_version != 2:
        raise ValueError(
            "FSDP1 flattens the gradients of many parameters into one, so the views' gradients cannot be aligned; use "
            "FSDP2 (--fsdp_config '{\"version\": 2}', or fsdp_version: 2 in the configuration of accelerate)"
        )
    parallelism = getattr(trainer.accelerator, "parallelism_config", None)
    splits_items = parallelism is not None and (parallelism.cp_enabled or parallelism.sp_enabled)
    if trainer.get_tp_size() > 1 or splits_items:
        raise ValueError(
            "tensor, context and sequence parallelism split items over processes, so the weights of items in an "
            "update would be wrong; use DDP (`torchrun`) or FSDP2 (--fsdp)"
        )


# Metrics that every evaluation reports.
_OWN_METRICS = ("loss", "runtime", "samples_per_second", "steps_per_second")


def check_options(trainer: Any) -> None:
    """Check a `Trainer`'s options against its model and data before the first step.

    Raises:
        ValueError: If the model is already compiled, the optimizer or schedule cannot be created or would ignore an
            option, noise is requested for embeddings that the model does not have, gradient checkpointing is not
            possible or would drop gradients, dropping the last batch would leave no data, or a required package or
            device is missing.
    """
    args = trainer.args
    compiled = next((name for name, _ in trainer.model.named_parameters() if "_orig_mod." in name), "")
    if compiled:
        part = compiled.partition("_orig_mod.")[0]
        advice = "give the trainer the model itself, with torch_compile=True (--torch_compile)"
        if part:
            advice = f"compile the part in place, as in model.{part}compile()"
        raise ValueError(f"a module returned by torch.compile is saved under names that cannot be loaded: {advice}")
    if args.neftune_noise_alpha is not None and not _has_embeddings(trainer.model):
        raise ValueError(
            f"--neftune_noise_alpha adds noise to token embeddings, but {type(trainer.model).__name__} has none; "
            "remove it"
        )
    if args.use_liger_kernel and not is_liger_kernel_available():
        raise ValueError("--use_liger_kernel needs a package: pip install liger-kernel; or remove the option")
    if args.fp16 and args.device.type == "cpu":
        logger.warning("--fp16 has no effect on the CPU: training stays in float32. --bf16 works on the CPU.")
    if not args.merge_adapters and not has_adapters(trainer.model):
        raise ValueError(
            "--no_merge_adapters is for models with adapters (--lora_r), but this model has none; remove it"
        )
    if args.label_smoothing_factor and getattr(trainer.model, "has_margin_loss", False):
        raise ValueError(
            f"--label_smoothing_factor is for the cross-entropy, but the model's loss is {trainer.model.config.loss}; "
            "remove it"
        )
    _check_checkpointing(trainer)
    _check_optimizer(trainer)
    _check_schedule(trainer)
    _check_last_batch(trainer)


def _has_embeddings(model: Any) -> bool:
    try:
        return model.get_input_embeddings() is not None
    except (AttributeError, NotImplementedError):
        return False


def _check_checkpointing(trainer: Any) -> None:
    args, model = trainer.args, trainer.model
    if args.gradient_checkpointing and not hasattr(model, "gradient_checkpointing_enable"):
        raise ValueError(
            f"--gradient_checkpointing is for transformers models, which {type(model).__name__} is not; remove it"
        )
    encoder = encoder_of(model)
    layers = None if encoder is None else transformer_layers(encoder)
    reentrant = args.gradient_checkpointing and (args.gradient_checkpointing_kwargs or {}).get("use_reentrant")
    if not reentrant or encoder is None or layers is None:
        return
    depths = encoder_depths(encoder, layers)
    trained = {depth for parameter, depth in depths.items() if parameter.requires_grad}
    wants_gradients = getattr(getattr(encoder, "feature_extractor", None), "_requires_grad", False)
    if trained and 0 not in trained and not wants_gradients:
        raise ValueError(
            "--gradient_checkpointing with use_reentrant would drop all gradients of the encoder, because everything "
            "before its layers is frozen; remove use_reentrant"
        )


def _check_optimizer(trainer: Any) -> None:
    args = trainer.args
    if trainer.optimizer is not None or trainer.optimizer_cls_and_kwargs is not None:
        return
    name = getattr(args.optim, "value", args.optim)
    if args.optim_target_modules is not None and not name.startswith(("galore", "apollo")):
        raise ValueError(f"--optim_target_modules is for GaLore and APOLLO, but --optim {name} ignores it; remove it")
    pairs = [pair for pair in (args.optim_args or "").replace(" ", "").split(",") if pair]
    if bad := [pair for pair in pairs if pair.count("=") != 1]:
        raise ValueError(f"--optim_args takes NAME=VALUE pairs separated by commas, got {bad[0]!r}")
    made = _optimizer(trainer, pairs)
    _create_small_optimizer(f"--optim {name}", *made)
    for pair in pairs:
        if _optimizer(trainer, [other for other in pairs if other != pair]) == made:
            raise ValueError(f"--optim_args {pair} has no effect on --optim {name}; remove it")


def _optimizer(trainer: Any, pairs: list[str]) -> Any:
    args = copy.copy(trainer.args)
    args.optim_args = ",".join(pairs) or None
    try:
        return trainer.get_optimizer_cls_and_kwargs(args, trainer.model)
    except Exception as error:  # transformers and missing packages raise many types
        name = getattr(args.optim, "value", args.optim)
        options = f" with --optim_args {args.optim_args}" if pairs else ""
        raise ValueError(f"--optim {name}{options} cannot be created: {error}") from error


def _create_small_optimizer(name: str, kind: Any, options: dict[str, Any]) -> None:
    """Create the optimizer for one small parameter, so that it checks its options."""
    if not (isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)) or "params" in options:
        return  # needs the whole model
    try:
        kind([torch.nn.Parameter(torch.zeros(1))], **options)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name} cannot be created: {error}") from error


def _check_schedule(trainer: Any) -> None:
    args = trainer.args
    if trainer.lr_scheduler is not None:
        return
    name = getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type)
    if args.lr_scheduler_kwargs and name in ("constant", "constant_with_warmup"):
        raise ValueError(f"--lr_scheduler_kwargs: --lr_scheduler_type {name} ignores them; remove them")
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
    except Exception as error:  # wrong or missing options raise TypeError, ValueError, KeyError, ...
        given = f" with --lr_scheduler_kwargs {args.lr_scheduler_kwargs}" if args.lr_scheduler_kwargs else ""
        raise ValueError(f"--lr_scheduler_type {name}{given} cannot be created: {error}") from error


def check_metric_exists(trainer: Any) -> None:
    """Check when training starts that evaluations will report `metric_for_best_model`.

    Raises:
        ValueError: If no labels are known, so that an evaluation reports nothing; the metric is not the loss and no
            metrics are computed; or there are several evaluation sets and the metric names none of them.
    """
    args = trainer.args
    metric = (args.metric_for_best_model or "loss").removeprefix("eval_")
    overrides_evaluate = type(trainer).evaluate is not transformers.Trainer.evaluate
    if args.eval_strategy == "no" or overrides_evaluate:
        return
    if not trainer.label_names and not trainer.can_return_loss and not _overrides_evaluation(trainer):
        raise ValueError(
            f"evaluations would have no loss and no labels, because the forward of {type(trainer.model).__name__} has "
            'no argument "labels": rename its argument to "labels", or pass label_names=["labels"] (--label_names)'
        )
    sets = trainer.eval_dataset if isinstance(trainer.eval_dataset, dict) else {}
    if args.metric_for_best_model and sets and not any(metric.startswith(f"{name}_") for name in sets):
        raise ValueError(
            f"--metric_for_best_model {metric}: with several evaluation sets the metric needs the name of one of them: "
            + " or ".join(f"{name}_{metric}" for name in sets)
        )
    if metric.endswith(_OWN_METRICS):
        return
    if trainer.compute_metrics is None:
        raise ValueError(
            f"--metric_for_best_model {metric}: without compute_metrics, an evaluation reports only the loss"
        )
    if args.prediction_loss_only:
        raise ValueError(
            f"--metric_for_best_model {metric}: with --prediction_loss_only, an evaluation reports only the loss; "
            "remove one of the two"
        )


def _overrides_evaluation(trainer: Any) -> bool:
    """Return whether a user's subclass overrides the predictions or the evaluation loop."""
    own = [kind for kind in type(trainer).__mro__ if not kind.__module__.startswith(("hf_gradalign.", "transformers."))]
    return any(name in vars(kind) for kind in own for name in ("prediction_step", "evaluation_loop"))


def _check_last_batch(trainer: Any) -> None:
    args, dataset = trainer.args, trainer.train_dataset
    if not args.dataloader_drop_last or dataset is None or not has_length(dataset):
        return
    batch = args.train_batch_size * (1 if trainer.accelerator.split_batches else args.world_size)
    if len(dataset) < batch:
        raise ValueError(
            f"--dataloader_drop_last would drop all of the training data: {len(dataset)} items do not fill a "
            f"batch of {batch}; remove it, or use a smaller --per_device_train_batch_size"
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
    """Check that numeric options are in range.

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
    if args.max_grad_norm is not None and not args.max_grad_norm >= 0:  # or the Trainer would not clip at all
        raise ValueError(f"--max_grad_norm must be at least 0, got {args.max_grad_norm}; 0 turns clipping off")
    for name in _INTERVALS:
        steps = getattr(args, f"{name}_steps")
        if name == "eval" and not steps:
            continue  # --logging_steps is used
        if getattr(args, f"{name}_strategy") == "steps" and not steps > 0:
            raise ValueError(f"--{name}_steps must be positive, got {steps}")
    if args.save_strategy == "best" and args.eval_strategy == "no":
        raise ValueError("--save_strategy best saves when an evaluation improves, and needs --eval_strategy")


def check_selection(args: Any) -> None:
    """Check that checkpoints are saved and evaluated if they are to be compared.

    Raises:
        ValueError: If they are not. The message names every option to change, including those that are on by default.
    """
    saves, evaluates = (str(getattr(value, "value", value)) for value in (args.save_strategy, args.eval_strategy))
    uses_checkpoints = {
        "--average_best_checkpoints 1": args.average_best_checkpoints > 1,
        "--load_best_model_at_end no": args.load_best_model_at_end,
    }
    compares = {"--early_stopping_patience none": args.early_stopping_patience is not None} | uses_checkpoints
    for option, strategy, uses in (("eval", evaluates, compares), ("save", saves, uses_checkpoints)):
        if strategy == "no" and (remedies := [remedy for remedy, is_used in uses.items() if is_used]):
            raise ValueError(
                f"--{option}_strategy no: there would be no checkpoints to choose from. Also pass "
                f"{' '.join(remedies)}, or use --{option}_strategy epoch or steps"
            )
    if args.load_best_model_at_end and saves not in ("best", evaluates):
        raise ValueError(
            f"--eval_strategy {evaluates} and --save_strategy {saves}: the best checkpoint is known only if "
            "checkpoints are saved when they are evaluated. Use the same value for both, or --load_best_model_at_end no"
        )


def check_rates(args: Any) -> None:
    """Check `head_learning_rate` and `layerwise_lr_decay` without a model.

    Raises:
        ValueError: If a value is out of range.
    """
    rate, decay = args.head_learning_rate, args.layerwise_lr_decay
    if rate is not None and not 0 < rate < math.inf:
        raise ValueError(f"--head_learning_rate must be a positive number, got {rate}")
    if decay is not None and not 0 < decay <= 1:
        raise ValueError(f"--layerwise_lr_decay must be above 0 and at most 1, got {decay}")
