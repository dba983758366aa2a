"""RawBoost's three kinds of noise, and the eight algorithms that combine them."""

import math
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from numpy.random.bit_generator import ISeedSequence
from numpy.typing import NDArray
from scipy.special import ndtri
from torch import Tensor

from hf_gradalign.augmentation.rawboost.filters import filter_powers

# The noises of each algorithm, in order. Algorithm 8 applies its two noises in parallel, the others in series.
ALGORITHMS: dict[int, tuple[str, ...]] = {
    1: ("convolutive",),
    2: ("impulsive",),
    3: ("stationary",),
    4: ("convolutive", "impulsive", "stationary"),
    5: ("convolutive", "impulsive"),
    6: ("convolutive", "stationary"),
    7: ("impulsive", "stationary"),
    8: ("convolutive", "impulsive"),
}
PARALLEL_ALGORITHM = 8

MAX_IMPULSIVE_GAIN = 1e6
# 4,096 quantiles fit into the L1 cache.
_BITS = 12
_QUANTILES = ndtri((np.arange(2**_BITS) + 0.5) / 2**_BITS)
_QUANTILES = (_QUANTILES / _QUANTILES.std()).astype(np.float32)


def combine_noises(algorithm: int, samples: Tensor, add: Callable[[str, Tensor], Tensor]) -> Tensor:
    """Apply an algorithm's noises to waveforms of shape (batch, samples).

    Args:
        algorithm: 1 to 8.
        samples: The waveforms.
        add: Adds one kind of noise: `add(kind, samples) -> samples`.
    """
    kinds = ALGORITHMS[algorithm]
    if algorithm == PARALLEL_ALGORITHM:
        return limit_peak_(cast(Tensor, sum(add(kind, samples) for kind in kinds)))
    for kind in kinds:
        samples = add(kind, samples)
    return samples


def add_convolutive_noise(samples: Tensor, responses: Tensor, reach: int, mask: Tensor | None = None) -> Tensor:
    """Add linear and non-linear convolutive noise: filter each power of the signal with its own notch filter, and sum.

    y = sum_i filter_i(x^i), i = 1, 2, ...; minus its mean; scaled down to peak 1 if the peak is higher.

    Source: Tak et al., "RawBoost", ICASSP 2022 (arXiv 2111.04433), the first of its three noises.

    Args:
        samples: Waveforms of shape (batch, samples).
        responses: One notch filter per power, the first for x itself. Shape (batch, powers, bins), as for
            `filter_powers`.
        reach: How far the longest filter extends to either side of a sample, in samples.
        mask: 1 for samples and 0 for padding, of the samples' shape and type. Padding must be 0, and stays 0.

    Returns:
        A tensor of the same shape and type, within [-1, 1].
    """
    distorted = filter_powers(samples, responses, reach)
    if mask is None:
        distorted -= distorted.mean(dim=-1, keepdim=True)
    else:
        distorted = distorted * mask
        distorted = distorted - distorted.sum(dim=-1, keepdim=True) / mask.sum(dim=-1, keepdim=True) * mask
    return limit_peak_(distorted)


def add_impulsive_noise(samples: Tensor, factors: Tensor) -> Tensor:
    """Add impulsive, signal-dependent noise: change some samples in proportion to their own value.

    y[t] = x[t] + gain * x[t] * u1 * u2 at random distinct t, u1 and u2 ~ U(-1, 1); scaled down to peak 1 if the peak is
    higher.

    Source: Tak et al., "RawBoost", ICASSP 2022 (arXiv 2111.04433), the second of its three noises.

    Args:
        samples: Waveforms of shape (batch, samples).
        factors: The factor of each sample, from `impulse_factors`. Shape (batch, samples).

    Returns:
        A tensor of the same shape and type, within [-1, 1].
    """
    return limit_peak_(samples * factors)


def impulse_factors(n_samples: int, percent: float, seed: int, gain: float) -> Tensor:
    """Compute the factor of each sample: 1 + gain * u1 * u2 where there is an impulse, and 1 elsewhere.

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
    """Draw positions and strengths of the impulses from a private generator.

    Args:
        n_samples: Length of the waveform.
        percent: Percentage of the samples to change, 0 to 100. The number of samples is rounded down.
        seed: Determines positions and factors.

    Returns:
        Distinct positions in [0, n_samples) in no particular order, and products u1 * u2 in [-1, 1]: both of shape
        (floor(n_samples * percent / 100),).
    """
    generator = fast_rng(seed)
    count = int(n_samples * percent / 100)
    positions = generator.choice(n_samples, count, replace=False, shuffle=False)
    first, second = 2 * generator.random((2, count), dtype=np.float32) - 1
    return positions, first * second


def add_stationary_noise(
    samples: Tensor, white: Tensor, response: Tensor, snr_db: Tensor, reach: int, mask: Tensor | None = None
) -> Tensor:
    """Add stationary, signal-independent noise: notch-filtered white noise at a signal-to-noise ratio.

    The published code first scales the filtered noise to peak 1. That step cancels out, as does the filter's gain. The
    peak of the result is not limited and may be above 1.

    Source: Tak et al., "RawBoost", ICASSP 2022 (arXiv 2111.04433), the third of its three noises.

    Args:
        samples: Waveforms of shape (batch, samples).
        white: White noise of the same shape, from `draw_white_noise`. Padding must be 0.
        response: The filters of the noise. Shape (batch, 1, bins), as for `filter_powers`.
        snr_db: Signal-to-noise ratios in dB (of energies). Shape (batch,).
        reach: How far the longest filter extends to either side of a sample, in samples.
        mask: 1 for samples and 0 for padding, of the samples' shape and type. Padding must be 0, and stays 0.

    Returns:
        A tensor of the same shape and type.
    """
    noise = filter_powers(white, response, reach)
    if mask is not None:
        noise = noise * mask
    signal_norm, noise_norm = (torch.linalg.vector_norm(x, dim=-1, keepdim=True) for x in (samples, noise))
    ratio = torch.exp(snr_db.to(samples.dtype) * (math.log(10) / 20))[:, None]
    # A clip of one sample may get no noise, because the filter's only tap is removed as delay.
    levels = torch.where(noise_norm > 0, signal_norm / noise_norm / ratio, 0.0)
    return torch.addcmul(samples, levels, noise)


def draw_white_noise(n_samples: int, seed: int) -> Tensor:
    """Draw float32 white Gaussian noise of unit variance and shape (samples,), from a private generator.

    Each sample is one of 4,096 quantiles of the normal distribution (the largest is 3.67), looked up by random bits.
    This takes half the time of exact normal deviates, and works just as well for noise that is then filtered.
    """
    words = fast_rng(seed).bit_generator.random_raw(-(-n_samples // 4))
    return torch.from_numpy(_QUANTILES.take(words.view(np.uint16)[:n_samples] >> (16 - _BITS)))


def limit_peak_(samples: Tensor) -> Tensor:
    """Scale waveforms with a peak above 1 down to peak 1, in place. Others stay unchanged.

    Args:
        samples: Waveforms of shape (..., samples), with at least one sample.

    Returns:
        The same tensor, now within [-1, 1].
    """
    if samples.numel() == samples.shape[-1]:  # one pass; along an axis, two passes are faster
        low, high = torch.aminmax(samples)
        peaks = torch.maximum(high, -low)
    else:
        peaks = torch.maximum(samples.amax(dim=-1, keepdim=True), -samples.amin(dim=-1, keepdim=True))
    # Divide, because multiplying by the reciprocal could give a peak above 1.
    return samples.div_(peaks.clamp_(min=1.0))


def fast_rng(seed: int) -> np.random.Generator:
    """Return a generator of bulk noise from a seed of 64 bits. Seeding is much faster than NumPy's `SeedSequence`."""
    # NumPy accepts seed sequences, but its stubs do not say so.
    return np.random.Generator(np.random.SFC64(_RepeatedSeed(seed)))  # ty: ignore[invalid-argument-type]


class _RepeatedSeed(ISeedSequence):
    """Writes a seed into every word of SFC64's state.

    NumPy discards SFC64's first rounds, after which neighboring seeds are independent (see the tests).
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def generate_state(self, n_words: int, dtype: Any = np.uint64) -> NDArray[np.uint64]:
        """Return the words, of 64 bits each."""
        return np.full(n_words, self._seed, dtype)
