import numpy as np
from numpy.typing import NDArray

from hf_gradalign.augmentation.notch_filter import NotchFilter, design_notch_filter, filter_and_sum


def add_stationary_noise(
    samples: NDArray[np.float64], notch: NotchFilter, snr_db: float, seed: int, sample_rate: int
) -> NDArray[np.float64]:
    """Stationary, signal-independent noise: add white noise through a notch filter at a signal-to-noise ratio.

    The published code scales the filtered noise to peak 1 before it scales it to the ratio; that, like the filter's
    gain, cancels. The result is not limited: its peak may be above 1.

    Source: Tak et al., "RawBoost", ICASSP 2022 (arXiv 2111.04433), the third of its three noises.

    Args:
        samples: Waveforms of shape (..., samples). Channels get the same noise, each at its own level.
        notch: The filter that colours the noise.
        snr_db: Ratio of the energies of signal and noise, in dB.
        seed: The white noise is `numpy.random.default_rng(seed).standard_normal(n_samples)`.
        sample_rate: In Hz.

    Returns:
        An array of the same shape.
    """
    white = np.random.default_rng(seed).standard_normal(samples.shape[-1])
    noise = filter_and_sum([white], [design_notch_filter(notch, sample_rate)])
    noise_norm = np.linalg.norm(noise)
    if noise_norm == 0:  # nothing is left of a single sample when the one tap there is has been skipped as delay
        return samples.copy()
    level = np.linalg.norm(samples, axis=-1, keepdims=True) / (noise_norm * 10 ** (snr_db / 20))
    return samples + level * noise
