"""Waveforms that a caller has decoded."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from hf_gradalign.audio.errors import AudioDecodingError
from hf_gradalign.audio.resampling import check_rate
from hf_gradalign.audio.sound import Sound

# As many as a film's sound has. More could as well be a batch of clips, of which the average is nobody's voice.
MOST_CHANNELS = 8
# uint8 is left out: it may also be the bytes of an encoded file.
_SCALES = {"int16": 2.0**15, "int32": 2.0**31}


def sound_of_array(array: Any, rate: int) -> Sound:
    """A decoded clip, its channels averaged.

    Args:
        array: NumPy, torch, or lists of numbers, of shape (time,), (time, channels) or (channels, time): the shorter
            side are the channels, at most 8. Floats in [-1, 1], or int16 or int32 over their whole range.
        rate: in Hz.

    Raises:
        AudioDecodingError: if it is empty, of another shape, type or rate, or has samples that are not finite.
    """
    check_rate(rate)
    samples = _as_numpy(array)
    if samples.size == 0:
        raise AudioDecodingError("it is empty (no samples)")
    if samples.ndim == 2 and min(samples.shape) <= MOST_CHANNELS and (len({*samples.shape}) == 2 or samples.size == 1):
        channel_axis = int(np.argmin(samples.shape))
    elif samples.ndim == 1:
        channel_axis = None
    else:
        raise AudioDecodingError(
            f"an array of shape {samples.shape} is no clip, which is (time,), or (time, channels) or (channels, time) "
            f"with up to {MOST_CHANNELS} channels; several clips are a list of arrays"
        )
    is_float = np.issubdtype(samples.dtype, np.floating)
    if not is_float and samples.dtype.name not in _SCALES:
        raise AudioDecodingError(
            f"its samples are {samples.dtype}: give floating-point samples in [-1, 1], or int16 or int32 "
            "(an encoded file is given as bytes)"
        )
    if not is_float:
        samples = samples / _SCALES[samples.dtype.name]
    if channel_axis is not None:
        samples = samples.mean(axis=channel_axis)
    samples = samples.astype(np.float32)
    if not np.isfinite(samples).all():
        raise AudioDecodingError("it has NaN or infinite samples")
    return Sound(samples, rate, stored_as_floats=is_float)


def _as_numpy(array: Any) -> np.ndarray:
    if isinstance(array, torch.Tensor):
        array = array.detach().cpu()
        array = array.float() if array.dtype == torch.bfloat16 else array  # which NumPy does not have
    try:
        return np.asarray(array)
    except ValueError as error:
        raise AudioDecodingError("its channels have different lengths") from error
