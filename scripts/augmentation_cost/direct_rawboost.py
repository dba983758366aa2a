"""RawBoost done directly with NumPy and SciPy, one call after the other, as the published recipes do it.

What the package's RawBoost is compared with, in its output and in its time. Written from the paper (Tak et al., ICASSP
2022, arXiv 2111.04433): filters from `scipy.signal.firwin`, their cascade by `np.convolve`, its peak response from
`scipy.signal.freqz`, filtering in the time domain by `scipy.signal.lfilter`, which goes through a clip sample by
sample, positions of impulses from a permutation of all samples, and noise from NumPy's global generator. It takes the
parameters that the package's transform has drawn, and to be compared sample by sample the transform's bulk noise too
(`SameBulk`); to be timed it draws bulk noise of its own (`OwnBulk`).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from hf_gradalign.augmentation import RawBoost
from hf_gradalign.augmentation.rawboost.noises import draw_impulses, draw_white_noise

Samples = NDArray[np.float64]


class SameBulk:
    """White noise and impulses as the package's transform draws them from the same seeds."""

    def white(self, n_samples: int, seed: int) -> Samples:
        """White noise of unit variance."""
        return draw_white_noise(n_samples, seed).numpy().astype(np.float64)

    def impulses(self, n_samples: int, percent: float, seed: int) -> tuple[NDArray[np.int64], NDArray[Any]]:
        """Positions and factors in [-1, 1]."""
        return draw_impulses(n_samples, percent, seed)


class OwnBulk:
    """White noise and impulses drawn plainly."""

    def white(self, n_samples: int, seed: int) -> Samples:
        """White noise of unit variance."""
        return np.random.normal(0, 1, n_samples)

    def impulses(self, n_samples: int, percent: float, seed: int) -> tuple[NDArray[np.int64], Samples]:
        """Positions and factors in [-1, 1]."""
        positions = np.random.permutation(n_samples)[: int(n_samples * percent / 100)]
        count = len(positions)
        return positions, (2 * np.random.rand(count) - 1) * (2 * np.random.rand(count) - 1)


def direct_rawboost(
    transform: RawBoost, samples: NDArray[np.float32], sample_rate: int, bulk: SameBulk | OwnBulk
) -> Samples:
    """Apply the parameters that a transform holds to a mono clip.

    Args:
        transform: A RawBoost that has drawn its parameters.
        samples: Shape (samples,).
        sample_rate: In Hz.
        bulk: Where white noise and impulses come from.

    Returns:
        Float64 samples of the same shape.
    """
    drawn = transform.parameters

    def convolutive(x: Samples) -> Samples:
        return add_convolutive(x, drawn["convolutive"]["notches"], sample_rate)

    def impulsive(x: Samples) -> Samples:
        return add_impulsive(x, transform.impulsive_gain, *bulk.impulses(len(x), **drawn["impulsive"]))

    def stationary(x: Samples) -> Samples:
        own = drawn["stationary"]
        return add_stationary(x, bulk.white(len(x), own["seed"]), own["notch"], own["snr_db"], sample_rate)

    algorithms: dict[int, Callable[[Samples], Samples]] = {
        1: convolutive,
        2: impulsive,
        3: stationary,
        4: lambda x: stationary(impulsive(convolutive(x))),
        5: lambda x: impulsive(convolutive(x)),
        6: lambda x: stationary(convolutive(x)),
        7: lambda x: stationary(impulsive(x)),
        8: lambda x: limit_peak(convolutive(x) + impulsive(x)),
    }
    return algorithms[transform.algorithm](samples.astype(np.float64))


def add_convolutive(x: Samples, notches: list[dict[str, Any]], sample_rate: int) -> Samples:
    """The powers of the clip, each through its own filter."""
    y = np.zeros(len(x))
    for power, notch in enumerate(notches, start=1):
        y += filter_in_time(np.power(x, power), design_cascade(notch, sample_rate))
    return limit_peak(y - np.mean(y))


def add_impulsive(x: Samples, gain: float, positions: NDArray[np.int64], factors: Samples) -> Samples:
    """Some samples, changed in proportion to themselves."""
    y = x.copy()
    y[positions] = x[positions] + gain * x[positions] * factors
    return limit_peak(y)


def add_stationary(x: Samples, white: Samples, notch: dict[str, Any], snr_db: float, sample_rate: int) -> Samples:
    """Filtered white noise at a ratio to the clip."""
    noise = filter_in_time(white, design_cascade(notch, sample_rate))
    noise = noise / np.amax(np.abs(noise))
    noise = noise / np.linalg.norm(noise) * np.linalg.norm(x) / 10 ** (0.05 * snr_db)
    return x + noise


def design_cascade(notch: dict[str, Any], sample_rate: int) -> Samples:
    """The impulse response of all bands in series, at its gain."""
    cascade = np.ones(1)
    for center, width, taps in zip(notch["center_freqs"], notch["bandwidths"], notch["taps"], strict=True):
        low = max(center - width / 2, 1e-3)
        high = min(center + width / 2, sample_rate / 2 - 1e-3)
        cascade = np.convolve(signal.firwin(taps, [low, high], window="hamming", fs=sample_rate), cascade)
    _, response = signal.freqz(cascade, 1, fs=sample_rate)
    return 10 ** (notch["gain_db"] / 20) * cascade / np.amax(np.abs(response))


def filter_in_time(x: Samples, taps: Samples) -> Samples:
    """Filter, and take out the delay."""
    filtered = signal.lfilter(taps, 1, np.pad(x, (0, len(taps) + 1)))
    start = (len(taps) + 1) // 2
    return filtered[start : start + len(x)]


def limit_peak(x: Samples) -> Samples:
    """Scale down to peak 1 what is above."""
    peak = np.amax(np.abs(x))
    return x / peak if peak > 1 else x
