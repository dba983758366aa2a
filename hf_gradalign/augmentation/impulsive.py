import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hf_gradalign.augmentation.bulk_seed import BulkSeed
from hf_gradalign.augmentation.levels import limit_peak_


def add_impulsive_noise(samples: Tensor, factors: Tensor) -> Tensor:
    """Impulsive, signal-dependent noise: disturb a share of the samples in proportion to themselves.

    y[t] = x[t] + gain * x[t] * u1 * u2 at random distinct t, u1 and u2 ~ U(-1, 1); scaled down to peak 1 if above.

    Source: Tak et al., "RawBoost", ICASSP 2022 (arXiv 2111.04433), the second of its three noises.

    Args:
        samples: Waveforms of shape (batch, samples).
        factors: What each sample is multiplied with, from `impulse_factors`, of shape (batch, samples).

    Returns:
        A tensor of the same shape and type, within [-1, 1].
    """
    return limit_peak_(samples * factors)


def impulse_factors(n_samples: int, percent: float, seed: int, gain: float) -> Tensor:
    """What impulsive noise multiplies each sample with: 1 + gain * u1 * u2 where there is an impulse, and 1 elsewhere.

    Args:
        n_samples: Length of the waveform.
        percent: As for `draw_impulses`.
        seed: As for `draw_impulses`.
        gain: Strength of the noise, >= 0.

    Returns:
        Float32 factors of shape (samples,).
    """
    positions, products = draw_impulses(n_samples, percent, seed)
    factors = np.ones(n_samples, dtype=np.float32)
    factors[positions] = 1 + gain * products
    return torch.from_numpy(factors)


def draw_impulses(n_samples: int, percent: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Draw where the impulses are and how strong, from a private generator.

    Args:
        n_samples: Length of the waveform.
        percent: Share of the samples to disturb, 0 to 100; their number is rounded down.
        seed: Fixes positions and factors.

    Returns:
        Distinct positions in [0, n_samples) in no particular order, and products u1 * u2 in [-1, 1]: both of shape
        (floor(n_samples * percent / 100),).
    """
    generator = np.random.Generator(np.random.SFC64(BulkSeed(seed)))
    count = int(n_samples * percent / 100)
    positions = generator.choice(n_samples, count, replace=False, shuffle=False)
    first, second = 2 * generator.random((2, count), dtype=np.float32) - 1
    return positions, first * second
