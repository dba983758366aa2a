import numpy as np
from numpy.typing import NDArray


def limit_peak(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scale down to peak 1 each channel whose peak is above 1, and leave the others alone.

    Args:
        samples: Waveforms of shape (..., samples), at least one sample each.

    Returns:
        An array of the same shape, within [-1, 1].
    """
    peaks = np.abs(samples).max(axis=-1, keepdims=True)
    return samples / np.maximum(peaks, 1.0)
