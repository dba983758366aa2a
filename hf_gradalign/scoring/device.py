"""Where and in which type a model computes, and how many processes decode for it."""

import os
from typing import Literal, get_args

import torch

DType = Literal["float32", "bfloat16", "float16", "auto"]


def default_device() -> torch.device:
    """The accelerator, if there is one, else the CPU."""
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return accelerator or torch.device("cpu")


def usable_device(device: str | torch.device | None) -> torch.device:
    """A device that a tensor has been on; None for the default one.

    Raises:
        ValueError: If there is no such device, or this torch cannot use it.
    """
    if device is None:
        return default_device()
    try:
        return torch.empty(1, device=device).device
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise ValueError(f"cannot compute on the device {str(device)!r}: {reason}") from error


def resolve_dtype(dtype: DType, device: torch.device) -> str:
    """What "auto" means on a device: bfloat16 where it has units for it, else float32.

    Raises:
        ValueError: If the type is unknown, or the device has no use for it.
    """
    if dtype not in get_args(DType):
        raise ValueError(f"dtype must be one of {', '.join(get_args(DType))}, not {dtype!r}")
    if dtype == "float16" and device.type == "cpu":
        raise ValueError("dtype float16 needs an accelerator; take bfloat16 or float32 on the CPU")
    if dtype != "auto":
        return dtype
    has_units = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bfloat16" if has_units else "float32"


def suitable_workers(device: torch.device) -> int:
    """How many loader workers keep a model busy on this machine.

    With an accelerator one for each core but one, at most 12; on a CPU, which the model needs itself, at most 2.
    Several processes on a machine (`LOCAL_WORLD_SIZE`, as torchrun sets it) share its cores.
    """
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores = max(1, available // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
    return min(2, cores) if device.type == "cpu" else min(12, max(1, cores - 1))
