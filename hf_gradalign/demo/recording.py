"""Reads an uploaded recording: its length and its envelope, or a sentence that says what is wrong with it."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hf_gradalign.audio import AudioDecodingError
from hf_gradalign.data.decoding import ClipStream, open_clip

# The envelope does not need a higher rate than this, even if the file has one.
_RATE = 16_000
_PEAK_SAMPLES = 160
_ENVELOPE_POINTS = 500
_SHORTEST = 0.1  # seconds, as of the windows of a scorer: less is no speech, and models are sure of anything
# Peak of a recording that contains nothing to judge: -60 dB below full scale, under the noise of any microphone.
_SILENCE = 1e-3


class RecordingError(ValueError):
    """A recording cannot be judged. The message is a sentence for the person who chose it."""


@dataclass(frozen=True)
class Recording:
    """A recording that can be judged.

    Attributes:
        path: Its file.
        seconds: Its length.
        envelope: The largest absolute value in each of up to 500 equal parts, relative to the loudest, in [0, 1].
    """

    path: str
    seconds: float
    envelope: NDArray[np.float32]


def check_limits(**limits: float) -> None:
    """Refuse limits of uploads that are not positive and finite.

    Raises:
        ValueError: If there is such a limit. The message names it.
    """
    for name, value in limits.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be above 0 and finite, not {value}")


def read_recording(path: str, *, max_minutes: float, go_on: Callable[[], None] = lambda: None) -> Recording:
    """Decode a file once to see whether it can be judged.

    Args:
        path: The file.
        max_minutes: Longer recordings are refused.
        go_on: Called from time to time. To end the reading, it raises an error.

    Raises:
        RecordingError: If the file is missing, broken, empty, silent, too short or too long.
    """
    if not Path(path).is_file():
        raise RecordingError("The page no longer has this recording. Uploads are deleted soon. Please choose it again.")
    if not Path(path).stat().st_size:
        raise RecordingError("This file is empty (0 bytes). Please choose another one.")
    try:
        with open_clip(path, _RATE) as clip:
            peaks, n_samples = _peaks(clip, max_minutes, go_on)
    except AudioDecodingError as error:
        reason = str(error.reason).replace(path, "the file").rstrip(".")
        raise RecordingError(
            f"This file cannot be read as audio. It may be damaged, or not audio at all. (Details: {reason}.)"
        ) from error
    if n_samples < _SHORTEST * _RATE:
        raise RecordingError(
            f"This recording is too short ({n_samples / _RATE:.2g} s), so there is no speech to judge. Record for "
            "longer, or choose another file."
        )
    loudest = float(peaks.max())
    if loudest < _SILENCE:
        raise RecordingError(
            "This recording is silent, so there is no speech to judge. Check the microphone, or choose another file."
        )
    stretches = np.array_split(peaks, min(len(peaks), _ENVELOPE_POINTS))
    envelope = np.array([stretch.max() for stretch in stretches], np.float32) / loudest
    return Recording(path, n_samples / _RATE, envelope)


def _peaks(clip: ClipStream, max_minutes: float, go_on: Callable[[], None]) -> tuple[NDArray[np.float32], int]:
    """Return the largest absolute value in every 10 ms, and the number of samples."""
    most = max_minutes * 60
    if (clip.sound.seconds or 0) > most:
        raise _too_long(max_minutes)
    peaks, n_samples = [], 0
    rest = np.zeros(0, np.float32)
    for block in clip:
        go_on()
        n_samples += len(block)
        if n_samples > most * _RATE:
            raise _too_long(max_minutes)
        samples = np.abs(np.concatenate([rest, block]))
        whole = len(samples) - len(samples) % _PEAK_SAMPLES
        peaks.append(samples[:whole].reshape(-1, _PEAK_SAMPLES).max(axis=1))
        rest = samples[whole:]
    if len(rest):
        peaks.append(rest.max(keepdims=True))
    return np.concatenate(peaks), n_samples


def _too_long(max_minutes: float) -> RecordingError:
    minutes = f"{max_minutes:g} minute" + "s" * (max_minutes != 1)
    return RecordingError(f"This recording is too long. The page takes up to {minutes}. Please cut it and try again.")
