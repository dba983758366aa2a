"""Peak memory."""

import sys

import torch


def peak_memory(device: torch.device) -> float | None:
    """Return the peak memory in MiB, of the accelerator or of this process; None if it is unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if device.type == "mps":  # it counts no peak, but keeps what was freed for later tensors
        return torch.mps.driver_allocated_memory() / 2**20
    if sys.platform == "win32":
        return None
    import resource  # not available on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
