"""Bring a waveform to another sampling rate."""

from __future__ import annotations

import math

import numpy as np
import torch
from torchaudio.functional import resample

from hf_gradalign.audio.errors import AudioDecodingError

# Two rates with a small common divisor need a filter bank of this many values; beyond it memory goes into gigabytes.
_MAX_FILTER_BANK = 50_000_000


def resample_clip(samples: np.ndarray, source_rate: int, target_rate: int) -> np.ndarray:
    """Bring a waveform to another rate.

    Args:
        samples: float32, shape (time,).
        source_rate: its rate in Hz.
        target_rate: the rate wanted, in Hz.

    Returns:
        float32, shape (time,); `samples` itself where the rates are the same.

    Raises:
        AudioDecodingError: if the rates have too small a common divisor.
    """
    if source_rate == target_rate:
        return samples
    if source_rate * target_rate // math.gcd(source_rate, target_rate) ** 2 > _MAX_FILTER_BANK:
        raise AudioDecodingError(
            f"its sampling rate of {source_rate} Hz has too small a common divisor with {target_rate} Hz; "
            "resample the file beforehand"
        )
    return resample(torch.from_numpy(samples), source_rate, target_rate).numpy()
