"""Decoded sound: whole clips, blocks of them, and waveforms given as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

# Lower than any telephone's rate, higher than any converter's: a rate outside comes from a damaged header.
LOWEST_RATE, HIGHEST_RATE = 1_000, 6_000_000
# As many as the sound of a film. More channels may be a batch of clips, which must not be averaged.
MAX_CHANNELS = 8
# Floating-point samples larger than 32-bit integers are not sound in any unit, and their squares overflow.
_HIGHEST_SAMPLE = 2.0**32
# uint8 is left out, because it may also be the bytes of an encoded file.
_SCALES = {"int16": 2.0**15, "int32": 2.0**31}


class AudioDecodingError(ValueError):
    """A clip cannot be decoded.

    Args:
        reason: What is wrong with it.
        name: The clip's name. The message begins with it.

    Attributes:
        reason: The reason without the name.
    """

    def __init__(self, reason: str, name: str | None = None) -> None:
        # DataLoader workers re-create errors from one argument.
        super().__init__(f"Cannot decode {name}: {reason}" if name else reason)
        self.reason = reason


@dataclass(frozen=True)
class Sound:
    """A decoded clip, or a window of it.

    Attributes:
        samples: float32, shape (time,), nominally in [-1, 1], with channels averaged.
        rate: Sampling rate in Hz.
        stored_as_floats: Whether the file contains floating-point samples, which can be outside [-1, 1].
        file_peak: The largest absolute value in the file, if `samples` were resampled.
    """

    samples: np.ndarray
    rate: int
    stored_as_floats: bool = False
    file_peak: float | None = None

    @property
    def peak(self) -> float | None:
        """The largest absolute value of floating-point samples. None for files of integers, which are in [-1, 1]."""
        if not self.stored_as_floats:
            return None
        return float(np.abs(self.samples).max()) if self.file_peak is None else self.file_peak


@dataclass(frozen=True)
class Block:
    """Consecutive samples of a file.

    Attributes:
        samples: float32, shape (time,), with channels averaged.
        rate: Sampling rate in Hz.
        stored_as_floats: Whether the file contains floating-point samples, which can be outside [-1, 1].
        begins: Whether it is the first block of a recording (a file may hold several) or of a new rate.
    """

    samples: np.ndarray
    rate: int
    stored_as_floats: bool
    begins: bool


def check_rate(rate: int) -> None:
    """Refuse a sampling rate that no recording of speech has, before resampling fills the memory.

    Raises:
        AudioDecodingError: If it is outside 1 kHz to 6 MHz.
    """
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise AudioDecodingError(
            f"its sampling rate of {rate} Hz is not used for speech ({LOWEST_RATE} to {HIGHEST_RATE} Hz): its header "
            "may be damaged"
        )


def check_samples(samples: np.ndarray) -> None:
    """Refuse samples that are not sound.

    Raises:
        AudioDecodingError: If samples are not finite, or larger than unscaled 32-bit integers.
    """
    if not np.isfinite(samples).all():
        raise AudioDecodingError("it has NaN or infinite samples")
    if samples.size and (highest := float(np.abs(samples).max())) > _HIGHEST_SAMPLE:
        raise AudioDecodingError(
            f"its samples reach {highest:.3g}, more than those of any recording: it is damaged, or not audio"
        )


def sound_of_array(array: Any, rate: int) -> Sound:
    """Convert a waveform in memory to a `Sound`, with channels averaged.

    Args:
        array: NumPy array, torch tensor, or lists of numbers, of shape (time,), (time, channels) or (channels, time).
            The shorter side is the channels, at most 8. Floats in [-1, 1], or int16 or int32 at full scale.
        rate: Sampling rate in Hz.

    Raises:
        AudioDecodingError: If the array is empty, has another shape, type or rate, or samples as in `check_samples`.
    """
    check_rate(rate)
    samples = _as_numpy(array)
    if samples.size == 0:
        raise AudioDecodingError("it is empty (no samples)")
    if samples.ndim == 2 and min(samples.shape) <= MAX_CHANNELS and (len({*samples.shape}) == 2 or samples.size == 1):
        channel_axis = int(np.argmin(samples.shape))
    elif samples.ndim == 1:
        channel_axis = None
    else:
        raise AudioDecodingError(
            f"an array of shape {samples.shape} is not a clip. Pass one of shape (time,), (time, channels) or "
            f"(channels, time) with up to {MAX_CHANNELS} channels, or several clips as a list of arrays"
        )
    is_float = np.issubdtype(samples.dtype, np.floating)
    if not is_float and samples.dtype.name not in _SCALES:
        raise AudioDecodingError(
            f"its samples are {samples.dtype}: pass floating-point samples in [-1, 1], or int16 or int32 (pass an "
            "encoded file as bytes)"
        )
    if not is_float:
        samples = samples / _SCALES[samples.dtype.name]
    if channel_axis is not None:
        samples = samples.mean(axis=channel_axis)
    samples = samples.astype(np.float32)
    check_samples(samples)
    return Sound(samples, rate, stored_as_floats=is_float)


def _as_numpy(array: Any) -> np.ndarray:
    if isinstance(array, torch.Tensor):
        array = array.detach().cpu()
        array = array.float() if array.dtype == torch.bfloat16 else array  # NumPy has no bfloat16
    try:
        return np.asarray(array)
    except ValueError as error:
        raise AudioDecodingError("its channels have different lengths") from error
