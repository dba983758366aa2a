from torch import Tensor


def limit_peak(samples: Tensor) -> Tensor:
    """Scale down to peak 1 each waveform whose peak is above 1, and leave the others alone.

    Args:
        samples: Waveforms of shape (..., samples), at least one sample each.

    Returns:
        A tensor of the same shape, within [-1, 1].
    """
    # A division, since a product with the reciprocal could come out above 1.
    return samples / samples.abs().amax(dim=-1, keepdim=True).clamp(min=1.0)
