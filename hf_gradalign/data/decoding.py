"""Decode audio, from a path or from bytes: mono float32 at the rate asked for, a window where possible.

Read: what libsndfile reads (WAV, FLAC, AIFF, CAF, W64, RF64, AU, NIST SPHERE, Ogg Vorbis, Ogg Opus, MP3), and what
FFmpeg's libraries read beyond it (M4A, MP4, WebM, Matroska, AAC, AMR, WMA, AC-3, ...), which PyAV's wheels bring along.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hf_gradalign.audio import AudioDecodingError, read_sound, resample_clip
from hf_gradalign.data.cropping import Window, crop

Audio = Mapping[str, Any] | str | bytes | Path


@dataclass(frozen=True)
class DecodedClip:
    """A decoded clip.

    Attributes:
        samples: float32, shape (time,).
        peak: the largest absolute value where the file has floating-point numbers, which can lie outside [-1, 1];
            None of all other files, whose samples cannot but by a hair.
    """

    samples: np.ndarray
    peak: float | None


def decode_audio(
    audio: Audio | None, sampling_rate: int | None, *, window: Window | None = None, name: str | None = None
) -> np.ndarray:
    """Decode a clip, or a window of it.

    The window is decoded alone where the format can seek to a sample and the rate is the wanted one; everywhere else
    the clip is decoded whole and then cut. Both give the same samples.

    Args:
        audio: a path, an encoded file's bytes, or the `{"bytes", "path"}` of a `datasets.Audio(decode=False)` column
            (bytes win over the path).
        sampling_rate: the rate wanted, in Hz; None keeps the file's.
        window: the part wanted, in samples at that rate; None for the whole clip.
        name: how errors call the clip; by default its path.

    Returns:
        float32 samples of shape (time,), nominally in [-1, 1], channels averaged. At least one sample, all finite, and
        never more than `window.n_samples`.

    Raises:
        AudioDecodingError: if the file is missing, is no audio, is truncated, has no samples, non-finite ones or a
            sampling rate that cannot be brought to the wanted one.
        ValueError: if `sampling_rate` is not positive.
    """
    return decode_clip(audio, sampling_rate, window=window, name=name).samples


def decode_clip(
    audio: Audio | None, sampling_rate: int | None, *, window: Window | None = None, name: str | None = None
) -> DecodedClip:
    """Decode a clip as `decode_audio` does, and say whether its samples are in range."""
    if sampling_rate is not None and sampling_rate <= 0:
        raise ValueError(f"sampling_rate must be positive, not {sampling_rate}.")
    name = name or _name_of(audio)
    source = _source_of(audio, name)
    try:
        sound = read_sound(source, None if window is None else window.bounds, sampling_rate)
        samples = sound.samples
        if not np.isfinite(samples).all():
            raise AudioDecodingError("it has NaN or infinite samples")
        if sampling_rate is not None:
            samples = resample_clip(samples, sound.rate, sampling_rate)
    except AudioDecodingError as error:
        raise AudioDecodingError(error.reason, name) from error.__cause__
    except OSError as error:
        raise AudioDecodingError(f"it cannot be read ({error.strerror or error})", name) from error
    return DecodedClip(samples if window is None or sound.is_window else crop(samples, window), sound.peak)


def _source_of(audio: Audio | None, name: str) -> str | bytes:
    data, path = _bytes_and_path(audio)
    if data is not None:
        if len(data) == 0:
            raise AudioDecodingError("it is empty (zero bytes)", name)
        return data
    if path is None:
        raise AudioDecodingError("there is no audio (null)", name)
    if not Path(path).is_file():
        raise AudioDecodingError(f"there is no file {path}", name)
    if Path(path).stat().st_size == 0:
        raise AudioDecodingError("it is empty (zero bytes)", name)
    return str(path)


def _name_of(audio: Audio | None) -> str:
    _, path = _bytes_and_path(audio)
    return str(path) if path else "a clip given as bytes"


def _bytes_and_path(audio: Audio | None) -> tuple[bytes | None, str | Path | None]:
    if isinstance(audio, Mapping):
        return audio.get("bytes"), audio.get("path")
    if isinstance(audio, bytes):
        return audio, None
    return None, audio
