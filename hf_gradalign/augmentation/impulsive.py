import numpy as np
from numpy.typing import NDArray

from hf_gradalign.augmentation.levels import limit_peak


def add_impulsive_noise(samples: NDArray[np.float64], percent: float, gain: float, seed: int) -> NDArray[np.float64]:
    """Impulsive, signal-dependent noise: disturb a share of the samples in proportion to themselves.

    y[t] = x[t] + gain * x[t] * u1 * u2 at random distinct t, u1 and u2 ~ U(-1, 1); scaled down to peak 1 if above.

    Source: Tak et al., "RawBoost", ICASSP 2022 (arXiv 2111.04433), the second of its three noises.

    Args:
        samples: Waveforms of shape (..., samples). Channels are disturbed at the same positions by the same factors.
        percent: Share of the samples to disturb, 0 to 100; their number is rounded down.
        gain: Strength of the noise, >= 0.
        seed: Fixes positions and factors.

    Returns:
        An array of the same shape, within [-1, 1].
    """
    positions, factors = draw_impulses(samples.shape[-1], percent, seed)
    disturbed = samples.copy()
    disturbed[..., positions] += gain * samples[..., positions] * factors
    return limit_peak(disturbed)


def draw_impulses(n_samples: int, percent: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Draw where the impulses are and how strong, from a private generator.

    Returns:
        Distinct positions in [0, n_samples) in no particular order, and products u1 * u2 in [-1, 1]: both of shape
        (floor(n_samples * percent / 100),).
    """
    generator = np.random.default_rng(seed)
    count = int(n_samples * percent / 100)
    positions = generator.choice(n_samples, count, replace=False, shuffle=False)
    return positions, generator.uniform(-1, 1, (2, count)).prod(axis=0)
