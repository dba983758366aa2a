from collections.abc import Sequence
from itertools import accumulate, repeat

import numpy as np
from numpy.typing import NDArray

from hf_gradalign.augmentation.levels import limit_peak
from hf_gradalign.augmentation.notch_filter import NotchFilter, design_notch_filter, filter_and_sum


def add_convolutive_noise(
    samples: NDArray[np.float64], notches: Sequence[NotchFilter], sample_rate: int
) -> NDArray[np.float64]:
    """Linear and non-linear convolutive noise: the sum of the signal's powers, each through its own notch filter.

    y = sum_i filter_i(x^i), i = 1, 2, ...; minus its mean; scaled down to peak 1 if above.

    Source: Tak et al., "RawBoost", ICASSP 2022 (arXiv 2111.04433), the first of its three noises.

    Args:
        samples: Waveforms of shape (..., samples).
        notches: One filter a power, the first for x itself.
        sample_rate: In Hz.

    Returns:
        An array of the same shape, within [-1, 1].
    """
    filters = [design_notch_filter(notch, sample_rate) for notch in notches]
    powers = list(accumulate(repeat(samples, len(filters)), np.multiply))
    distorted = filter_and_sum(powers, filters)
    return limit_peak(distorted - distorted.mean(axis=-1, keepdims=True))
