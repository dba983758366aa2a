import torch
from torch import Tensor


def limit_peak_(samples: Tensor) -> Tensor:
    """Scale down to peak 1, in place, each waveform whose peak is above 1, and leave the others alone.

    Args:
        samples: Waveforms of shape (..., samples), at least one sample each.

    Returns:
        The same tensor, now within [-1, 1].
    """
    if samples.numel() == samples.shape[-1]:  # one waveform: in one pass, which along an axis is slower than two
        low, high = torch.aminmax(samples)
        peaks = torch.maximum(high, -low)
    else:
        peaks = torch.maximum(samples.amax(dim=-1, keepdim=True), -samples.amin(dim=-1, keepdim=True))
    # A division, since a product with the reciprocal could come out above 1.
    return samples.div_(peaks.clamp_(min=1.0))
