"""Numbers among the Trainer's options that are out of range, and with which it fails late or trains nothing."""

import math
from typing import Any

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


__all__ = ["check_numbers"]
