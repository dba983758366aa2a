"""Decode audio with libsndfile, from a path or from bytes: mono float32 at the rate asked for, a window where possible.

Neither FFmpeg nor torchcodec is needed. Read: WAV, FLAC, AIFF, CAF, W64, RF64, Ogg Vorbis, Ogg Opus, MP3.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torchaudio.functional import resample

from hf_gradalign.data.cropping import Window, crop

Audio = Mapping[str, Any] | str | bytes | Path

# Encodings in which a seek lands on the very sample, so that a part decodes to the bits that decoding the whole would
# give; FLAC's is called PCM too. MP3, Ogg Vorbis and Ogg Opus carry state from frame to frame and do not (measured).
_EXACT_ENCODINGS = ("PCM_", "FLOAT", "DOUBLE", "ULAW", "ALAW")
# libsndfile gives this many frames when the header does not say (a FLAC written to a pipe).
_UNKNOWN_FRAMES = 2**62
# The lossy formats' length is what an encoder noted down; only a clip that lacks more than this share is truncated.
_LOSSY_TOLERANCE = 0.1
# What libsndfile notes where a file is shorter than its header says: it goes on with what there is.
_SIZES = re.compile(r"^\s*(?:RIFF|FORM|Riff size)\s*: (\d+) \(should be (\d+)\)", re.IGNORECASE | re.MULTILINE)
# Headers are off by a few bytes now and then, and written before the length is known have the greatest number there is.
_HEADER_TOLERANCE = 0.01
_UNKNOWN_SIZE = 0x7FFF0000
# Two rates with a small common divisor need a filter bank of this many values; beyond it memory goes into gigabytes.
_MAX_FILTER_BANK = 50_000_000


class AudioDecodingError(ValueError):
    """A clip that cannot be decoded.

    Args:
        reason: what is wrong with it.
        name: the clip's name, put before the reason.

    Attributes:
        reason: as given.
    """

    def __init__(self, reason: str, name: str | None = None) -> None:
        # One argument must do: that is how an error comes out of a DataLoader worker.
        super().__init__(f"Cannot decode {name}: {reason}" if name else reason)
        self.reason = reason


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
    if sampling_rate is not None and sampling_rate <= 0:
        raise ValueError(f"sampling_rate must be positive, not {sampling_rate}.")
    name = name or _name_of(audio)
    source = _source_of(audio, name)
    try:
        with soundfile.SoundFile(source) as file:
            samples, done = _read(file, sampling_rate, window, name)
            file_rate = file.samplerate
    # TypeError is soundfile's answer to a headerless `.raw`.
    except (soundfile.SoundFileError, OSError, TypeError) as error:
        said = getattr(error, "error_string", error)  # without the address of the bytes, which differs from run to run
        raise AudioDecodingError(f"not audio that libsndfile can read, or corrupt ({said})", name) from error
    if not np.isfinite(samples).all():
        raise AudioDecodingError("it has NaN or infinite samples", name)
    if sampling_rate is not None and file_rate != sampling_rate:
        samples = resample_clip(samples, file_rate, sampling_rate, name)
    return samples if window is None or done else crop(samples, window)


def _read(
    file: soundfile.SoundFile, sampling_rate: int | None, window: Window | None, name: str
) -> tuple[np.ndarray, bool]:
    """Mono samples, and whether they are all that was asked for: a window needs no more cutting."""
    total = file.frames
    if total >= _UNKNOWN_FRAMES:
        raise AudioDecodingError("its header does not give its length (a streamed FLAC?); write the file anew", name)
    if total == 0:
        raise AudioDecodingError("it is empty (no samples)", name)
    _refuse_cut_off(file, name)
    exact = file.subtype.startswith(_EXACT_ENCODINGS)
    can_seek = exact and sampling_rate in (None, file.samplerate)
    start, stop = window.bounds(total) if window is not None and can_seek else (0, total)
    if start:
        file.seek(start)
    samples = file.read(stop - start, dtype="float32", always_2d=True)
    missing = stop - start - len(samples)
    if missing > (0 if exact else _LOSSY_TOLERANCE * total) or len(samples) == 0:
        raise AudioDecodingError(f"it is truncated: {len(samples)} of {stop - start} samples could be read", name)
    return samples.mean(axis=1), can_seek


def _refuse_cut_off(file: soundfile.SoundFile, name: str) -> None:
    for match in _SIZES.finditer(file.extra_info):
        said, there = int(match[1]), int(match[2])
        if there < (1 - _HEADER_TOLERANCE) * said and said < _UNKNOWN_SIZE:
            raise AudioDecodingError(f"it is truncated: {there} of {said} bytes are there", name)


def resample_clip(samples: np.ndarray, source_rate: int, target_rate: int, name: str | None = None) -> np.ndarray:
    """Bring a waveform to another rate.

    Args:
        samples: float32, shape (time,).
        source_rate: its rate in Hz.
        target_rate: the rate wanted, in Hz.
        name: how errors call the clip.

    Raises:
        AudioDecodingError: if the rates have too small a common divisor.
    """
    if source_rate * target_rate // math.gcd(source_rate, target_rate) ** 2 > _MAX_FILTER_BANK:
        raise AudioDecodingError(
            f"its sampling rate of {source_rate} Hz has too small a common divisor with {target_rate} Hz; "
            "resample the file beforehand",
            name,
        )
    return resample(torch.from_numpy(samples), source_rate, target_rate).numpy()


def _source_of(audio: Audio | None, name: str) -> str | BytesIO:
    data, path = _bytes_and_path(audio)
    if data is not None:
        if len(data) == 0:
            raise AudioDecodingError("it is empty (zero bytes)", name)
        return BytesIO(data)
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
