"""The most memory that was in use."""

import sys

import torch


def peak_memory(device: torch.device) -> float | None:
    """The most memory so far, in MiB: of the accelerator, or of this process; None where nothing says."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


__all__ = ["peak_memory"]
