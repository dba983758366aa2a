import math
import random
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hf_gradalign.augmentation.batched_rawboost import BatchedRawBoost
from hf_gradalign.augmentation.checks import check_integer, check_number, check_ordered
from hf_gradalign.augmentation.notch_filter import NotchFilter
from hf_gradalign.augmentation.one_thread import one_thread
from hf_gradalign.augmentation.rawboost_algorithms import ALGORITHMS, MAX_IMPULSIVE_GAIN
from hf_gradalign.augmentation.speech_transform import SpeechTransform

# Decibels beyond this are of no use and would leave the range of floating-point numbers.
MAX_DB = 200.0
# The seventh power of the greatest float32 still is a float64.
MAX_POWERS = 7
# What float32 holds with some room: the square of the one, and the other.
MIN_SINGLE_PEAK, MAX_SINGLE_POWER = 1e-15, 1e32


class RawBoost(SpeechTransform):
    """RawBoost: the channel distortion and noise of telephony, made without any recorded noise or impulse response.

    Source: Tak et al., "RawBoost: A Raw Data Boosting and Augmentation Method applied to Automatic Speaker
    Verification Anti-Spoofing", ICASSP 2022 (arXiv 2111.04433). The defaults are those of the published recipes.

    Three kinds of noise make eight algorithms:

    1. convolutive: the signal's powers through random notch filters, summed (linear and non-linear distortion),
    2. impulsive: some samples changed in proportion to themselves,
    3. stationary: white noise through a random notch filter, added at a random signal-to-noise ratio,
    4. 1, then 2, then 3;   5. 1, then 2;   6. 1, then 3;   7. 2, then 3;
    8. 1 and 2 of the same signal, added and scaled down to peak 1 if above.

    Algorithm 0 of the published code (no noise) does not exist here: use `p=0`.

    Takes finite floating-point samples of shape (samples,) or (channels, samples) and gives float32 of that shape;
    channels are treated alike and apart: each becomes what it would become alone. An empty clip is returned as it is.
    Scale integer samples to [-1, 1] first: they are refused, since the distortion depends on the scale. Inside it works
    in float32, and in float64 for samples whose powers float32 could not hold; what leaves its range is clipped.

    `randomize_parameters` draws from Python's global `random`, as other audiomentations transforms do. `parameters` can
    be written as JSON; bulk noise is in it as a seed, so that frozen parameters fit a clip of any length. Applying
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
        """Check and keep the ranges to draw from; draws are uniform.

        Args:
            algorithm: 1 to 8, see above.
            n_bands: Stop bands of a notch filter, >= 1.
            min_center_freq: Least centre of a stop band in Hz, >= 0 and below half the sample rate.
            max_center_freq: Greatest centre in Hz; half the sample rate if that is less.
            min_bandwidth: Least width of a stop band in Hz, >= 0.
            max_bandwidth: Greatest width in Hz.
            min_taps: Least length of a band's filter, >= 1. A drawn length is rounded down, and if then even, made odd
                by adding one.
            max_taps: Greatest length of a band's filter.
            min_gain_db: Least gain of a notch filter in dB, -200 to 200.
            max_gain_db: Greatest gain in dB, -200 to 200.
            min_bias_db: By how much the least gain is lowered, once, for the second and higher powers, in dB, 0 to 200.
            max_bias_db: By how much the greatest gain is lowered likewise, in dB, 0 to 200.
            n_powers: Powers of the signal in convolutive noise, 1 (linear) to 7.
            max_impulsive_percent: Greatest share of samples with impulsive noise in per cent, 0 to 100; the least is 0.
            impulsive_gain: Strength of impulsive noise relative to the signal, 0 to 1e6.
            min_snr_db: Least signal-to-noise ratio of stationary noise in dB, -200 to 200.
            max_snr_db: Greatest signal-to-noise ratio in dB, -200 to 200.
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
        """Draw whether to apply the transform, and if so everything that is random in it, into `self.parameters`.

        Args:
            samples: Not looked at.
            sample_rate: In Hz; half of it bounds the notch filters' centres.

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
        """The same for batches of waveforms on any device, of parameters that this transform draws."""
        return BatchedRawBoost(self.algorithm, self.impulsive_gain)

    def fits_single(self, samples: NDArray[np.floating]) -> bool:
        """Whether float32 can hold what the drawn parameters make of samples: their energy and their powers."""
        peak = float(max(samples.max(), -samples.min()))
        notches = self.parameters.get("convolutive", {}).get("notches", [{"gain_db": 0.0}])
        gain = 10 ** (max(notch["gain_db"] for notch in notches) / 20)
        return peak >= MIN_SINGLE_PEAK and max(peak, 1.0) ** len(notches) * max(gain, 1.0) <= MAX_SINGLE_POWER

    def _transform(self, samples: NDArray[np.floating], sample_rate: int) -> NDArray[np.floating]:
        channels = np.atleast_2d(samples)
        # Each by itself: in a batch, and with other threads, the last digits may be others.
        types = [torch.float32 if self.fits_single(channel) else torch.float64 for channel in channels]
        batched = self.batched()
        with torch.inference_mode(), one_thread():
            draws = batched.prepare([self.parameters], [samples.shape[-1]], sample_rate, dtype=max(types, key=_digits))
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
        # With the default biases the gain's range is from -5 down to -20 dB: uniform() takes its ends in any order.
        return {
            "center_freqs": [random.uniform(self.min_center_freq, max_center_freq) for _ in bands],
            "bandwidths": [random.uniform(self.min_bandwidth, self.max_bandwidth) for _ in bands],
            "taps": [int(random.uniform(self.min_taps, self.max_taps)) // 2 * 2 + 1 for _ in bands],
            "gain_db": random.uniform(self.min_gain_db - min_bias_db, self.max_gain_db - max_bias_db),
        }


def _digits(dtype: torch.dtype) -> int:
    return torch.finfo(dtype).bits


def _draw_seed() -> int:
    return random.getrandbits(53)  # every reader of JSON keeps integers of 53 bits
