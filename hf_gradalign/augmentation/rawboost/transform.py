"""RawBoost for single clips, and augmentations that leave their final RawBoost to `BatchedRawBoost`."""

import copy
import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from audiomentations import Compose
from numpy.typing import NDArray

from hf_gradalign.augmentation.base import (
    SpeechTransform,
    check_integer,
    check_number,
    check_ordered,
    single_thread,
    to_torch_compatible,
)
from hf_gradalign.augmentation.rawboost.batched import BatchedRawBoost
from hf_gradalign.augmentation.rawboost.filters import NotchFilter
from hf_gradalign.augmentation.rawboost.noises import ALGORITHMS, MAX_IMPULSIVE_GAIN

# Keeps gains within the range of floating-point numbers.
MAX_DB = 200.0
# The seventh power of the largest float32 still fits into a float64.
MAX_POWERS = 7
# Float32 can represent the square of the first and the second itself, with room to spare.
MIN_SINGLE_PEAK, MAX_SINGLE_POWER = 1e-15, 1e32


class RawBoost(SpeechTransform):
    """RawBoost: channel distortion and noise of telephony, simulated without recorded noise or impulse responses.

    Source: Tak et al., "RawBoost: A Raw Data Boosting and Augmentation Method applied to Automatic Speaker
    Verification Anti-Spoofing", ICASSP 2022 (arXiv 2111.04433). The defaults match the published recipes.

    Eight algorithms combine three kinds of noise:

    1. convolutive: the signal's powers, each notch-filtered at random, summed (linear and non-linear distortion),
    2. impulsive: some samples changed in proportion to their own value,
    3. stationary: randomly notch-filtered white noise, added at a random signal-to-noise ratio,
    4. 1, then 2, then 3;   5. 1, then 2;   6. 1, then 3;   7. 2, then 3;
    8. 1 and 2 in parallel, summed, and scaled down to peak 1 if the peak is higher.

    For algorithm 0 of the published code (no noise), use `p=0`.

    Takes finite floating-point samples of shape (samples,) or (channels, samples) and returns float32 of the same
    shape. Every channel gets the same parameters, and the same result as on its own. An empty clip is returned
    unchanged. Integer samples are refused, because the distortion depends on the scale: scale them to [-1, 1] first.
    Computes in float32, or in float64 if float32 cannot hold the samples' powers; the result is clipped to the range of
    float32.

    `randomize_parameters` draws from Python's global `random`, like other audiomentations transforms. `parameters` can
    be written as JSON. It holds bulk noise as a seed, so that frozen parameters fit a clip of any length. Applying
    frozen parameters draws nothing.
    """

    def __init__(
        self,
        algorithm: int = 4,
        n_bands: int = 5,
        min_center_freq: float = 20.0,
        max_center_freq: float = 8000.0,
        min_bandwidth: float = 100.0,
        max_bandwidth: float = 1000.0,
        min_taps: int = 10,
        max_taps: int = 100,
        min_gain_db: float = 0.0,
        max_gain_db: float = 0.0,
        min_bias_db: float = 5.0,
        max_bias_db: float = 20.0,
        n_powers: int = 5,
        max_impulsive_percent: float = 10.0,
        impulsive_gain: float = 2.0,
        min_snr_db: float = 10.0,
        max_snr_db: float = 40.0,
        p: float = 1.0,
    ) -> None:
        """Check and store the ranges to draw from. All draws are uniform.

        Args:
            algorithm: 1 to 8 (see above).
            n_bands: Stop bands of a notch filter, >= 1.
            min_center_freq: Lowest center of a stop band in Hz, >= 0 and below half the sample rate.
            max_center_freq: Highest center in Hz, at most half the sample rate.
            min_bandwidth: Smallest width of a stop band in Hz, >= 0.
            max_bandwidth: Largest width in Hz.
            min_taps: Smallest length of a band's filter, >= 1. A drawn length is rounded down, and one is added to even
                lengths.
            max_taps: Largest length of a band's filter.
            min_gain_db: Smallest gain of a notch filter in dB, -200 to 200.
            max_gain_db: Largest gain in dB, -200 to 200.
            min_bias_db: Lowers `min_gain_db` for the second and higher powers, in dB, 0 to 200.
            max_bias_db: Lowers `max_gain_db` for the second and higher powers, in dB, 0 to 200.
            n_powers: Powers of the signal in convolutive noise, 1 (linear) to 7.
            max_impulsive_percent: Largest percentage of samples with impulsive noise, 0 to 100. The smallest is 0.
            impulsive_gain: Strength of impulsive noise relative to the signal, 0 to 1e6.
            min_snr_db: Lowest signal-to-noise ratio of stationary noise in dB, -200 to 200.
            max_snr_db: Highest signal-to-noise ratio in dB, -200 to 200.
            p: Probability of applying the transform, 0 to 1.

        Raises:
            ValueError: If an argument is outside its range, or a `min_` argument is above its `max_` argument.
        """
        super().__init__(check_number("p", p, 0, 1))
        self.algorithm = check_integer("algorithm", algorithm, 1, len(ALGORITHMS))
        self.n_bands = check_integer("n_bands", n_bands, 1)
        self.min_center_freq = check_number("min_center_freq", min_center_freq, 0, math.inf)
        self.max_center_freq = check_number("max_center_freq", max_center_freq, 0, math.inf)
        self.min_bandwidth = check_number("min_bandwidth", min_bandwidth, 0, math.inf)
        self.max_bandwidth = check_number("max_bandwidth", max_bandwidth, 0, math.inf)
        self.min_taps = check_integer("min_taps", min_taps, 1)
        self.max_taps = check_integer("max_taps", max_taps, 1)
        self.min_gain_db = check_number("min_gain_db", min_gain_db, -MAX_DB, MAX_DB)
        self.max_gain_db = check_number("max_gain_db", max_gain_db, -MAX_DB, MAX_DB)
        self.min_bias_db = check_number("min_bias_db", min_bias_db, 0, MAX_DB)
        self.max_bias_db = check_number("max_bias_db", max_bias_db, 0, MAX_DB)
        self.n_powers = check_integer("n_powers", n_powers, 1, MAX_POWERS)
        self.max_impulsive_percent = check_number("max_impulsive_percent", max_impulsive_percent, 0, 100)
        self.impulsive_gain = check_number("impulsive_gain", impulsive_gain, 0, MAX_IMPULSIVE_GAIN)
        self.min_snr_db = check_number("min_snr_db", min_snr_db, -MAX_DB, MAX_DB)
        self.max_snr_db = check_number("max_snr_db", max_snr_db, -MAX_DB, MAX_DB)
        for quantity in ("center_freq", "bandwidth", "taps", "gain_db", "bias_db", "snr_db"):
            low, high = f"min_{quantity}", f"max_{quantity}"
            check_ordered(low, getattr(self, low), high, getattr(self, high))

    def randomize_parameters(self, samples: NDArray[np.floating], sample_rate: int) -> None:
        """Draw all random parameters into `self.parameters`, including whether to apply the transform.

        Args:
            samples: Unused.
            sample_rate: In Hz. Half of it bounds the notch filters' centers.

        Raises:
            ValueError: If `min_center_freq` is not below half the sample rate (algorithms with notch filters).
        """
        kinds = ALGORITHMS[self.algorithm]
        if self.min_center_freq >= sample_rate / 2 and kinds != ("impulsive",):
            raise ValueError(
                f"min_center_freq={self.min_center_freq:g} Hz must be below half the sample rate, which is "
                f"{sample_rate} Hz: lower min_center_freq or resample the audio"
            )
        super().randomize_parameters(samples, sample_rate)
        if self.parameters["should_apply"]:
            for kind in kinds:
                self.parameters[kind] = self._draw(kind, sample_rate)

    def batched(self) -> BatchedRawBoost:
        """Return the same transform for batches on any device. It takes parameters drawn by this one."""
        return BatchedRawBoost(self.algorithm, self.impulsive_gain)

    def fits_single(self, samples: NDArray[np.floating]) -> bool:
        """Return whether float32 can represent the samples' energy and their powers with the drawn parameters."""
        peak = float(max(samples.max(), -samples.min()))
        notches = self.parameters.get("convolutive", {}).get("notches", [{"gain_db": 0.0}])
        gain = 10 ** (max(notch["gain_db"] for notch in notches) / 20)
        return peak >= MIN_SINGLE_PEAK and max(peak, 1.0) ** len(notches) * max(gain, 1.0) <= MAX_SINGLE_POWER

    def _transform(self, samples: NDArray[np.floating], sample_rate: int) -> NDArray[np.floating]:
        channels = np.atleast_2d(samples)
        # One channel at a time, in one thread, because batches and threads can change the last digits.
        types = [torch.float32 if self.fits_single(channel) else torch.float64 for channel in channels]
        batched = self.batched()
        with torch.inference_mode(), single_thread():
            dtype = torch.float64 if torch.float64 in types else torch.float32
            draws = batched.prepare([self.parameters], [samples.shape[-1]], sample_rate, dtype=dtype)
            noisy = [
                batched.apply(torch.from_numpy(channel[None]).to(dtype), draws).numpy()
                for channel, dtype in zip(channels, types, strict=True)
            ]
        return noisy[0].reshape(samples.shape) if len(noisy) == 1 else np.concatenate(noisy)

    def _draw(self, kind: str, sample_rate: int) -> dict[str, Any]:
        if kind == "convolutive":
            biases = [(0.0, 0.0)] + [(self.min_bias_db, self.max_bias_db)] * (self.n_powers - 1)
            return {"notches": [self._draw_notch(sample_rate, *bias) for bias in biases]}
        if kind == "impulsive":
            return {"percent": random.uniform(0, self.max_impulsive_percent), "seed": _draw_seed()}
        return {
            "notch": self._draw_notch(sample_rate),
            "snr_db": random.uniform(self.min_snr_db, self.max_snr_db),
            "seed": _draw_seed(),
        }

    def _draw_notch(self, sample_rate: int, min_bias_db: float = 0.0, max_bias_db: float = 0.0) -> NotchFilter:
        max_center_freq = min(self.max_center_freq, sample_rate / 2)
        bands = range(self.n_bands)
        # With the default biases, the gain ranges from -5 to -20 dB; uniform() accepts both orders.
        return {
            "center_freqs": [random.uniform(self.min_center_freq, max_center_freq) for _ in bands],
            "bandwidths": [random.uniform(self.min_bandwidth, self.max_bandwidth) for _ in bands],
            "taps": [int(random.uniform(self.min_taps, self.max_taps)) // 2 * 2 + 1 for _ in bands],
            "gain_db": random.uniform(self.min_gain_db - min_bias_db, self.max_gain_db - max_bias_db),
        }


def _draw_seed() -> int:
    return random.getrandbits(53)  # JSON readers keep integers of up to 53 bits


Parameters = dict[str, Any]


def find_final_rawboost(transform: Callable[..., NDArray[np.float32]] | None) -> RawBoost | None:
    """Return the RawBoost at the end of an augmentation, which can be applied to batches; None without one."""
    if isinstance(transform, Compose) and not transform.shuffle and transform.transforms:
        return find_final_rawboost(transform.transforms[-1])
    return transform if isinstance(transform, RawBoost) else None


def draw_deferred(
    transform: RawBoost | Compose, samples: NDArray[np.float32], sample_rate: int
) -> tuple[NDArray[np.float32], Parameters]:
    """Apply an augmentation up to its final RawBoost, and draw the parameters of that RawBoost.

    Draws from the global generators exactly like the augmentation itself. Applying `BatchedRawBoost` to the result
    completes the augmentation.

    Args:
        transform: An augmentation for which `find_final_rawboost` returns a RawBoost.
        samples: Shape (samples,), at least one.
        sample_rate: In Hz.

    Returns:
        The samples so far, and RawBoost's parameters. Samples whose powers do not fit into float32, the type of
        `BatchedRawBoost`, are already fully augmented, and their parameters change nothing.
    """
    if isinstance(transform, Compose):
        if not random.random() < transform.p:
            return samples, {"should_apply": False}
        for earlier in transform.transforms[:-1]:
            samples = earlier(samples, sample_rate)
        return draw_deferred(transform.transforms[-1], samples, sample_rate)
    if not transform.are_parameters_frozen:
        transform.randomize_parameters(samples, sample_rate)
    if not transform.parameters["should_apply"]:
        return samples, {"should_apply": False}
    if not transform.fits_single(samples):
        return transform.apply(samples, sample_rate), {"should_apply": False}
    return to_torch_compatible(samples), copy.deepcopy(transform.parameters)
