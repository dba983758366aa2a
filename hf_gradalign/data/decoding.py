"""Decodes audio from a path or from bytes to mono float32 at a given rate; only a window, if the format can seek.

Supports the formats of libsndfile (WAV, FLAC, AIFF, CAF, W64, RF64, AU, NIST SPHERE, Ogg Vorbis, Ogg Opus, MP3) and of
FFmpeg's libraries in PyAV's wheels (M4A, MP4, WebM, Matroska, AAC, AMR, WMA, AC-3, ...).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hf_gradalign.audio import AudioDecodingError, SteadyBlocks, open_sound, resample_blocks
from hf_gradalign.audio.reading import SoundReader
from hf_gradalign.audio.resampling import resample_span, resampled_length, source_span
from hf_gradalign.audio.sound import check_samples

Audio = Mapping[str, Any] | str | bytes | Path

# Errors of the machine or of a network disk, not of a clip. They would make all other clips look bad too.
_NOT_OF_A_CLIP = frozenset({errno.EMFILE, errno.ENFILE, errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT})


@dataclass(frozen=True)
class Window:
    """A window of a clip of any length.

    Args:
        n_samples: Length of the window in samples at the target rate, at least 1.
        position: Relative position in [0, 1): 0 is the start of the clip, values close to 1 its end. The same position
            can be applied to versions of a clip of different lengths.

    Raises:
        ValueError: If an argument is out of range.
    """

    n_samples: int
    position: float = 0.0

    def __post_init__(self) -> None:
        if self.n_samples < 1:
            raise ValueError(f"n_samples must be at least 1, not {self.n_samples}.")
        if not 0 <= self.position < 1:
            raise ValueError(f"position must lie in [0, 1), not {self.position}.")

    def bounds(self, total: int) -> tuple[int, int]:
        """Return the first sample and one past the last, for a clip of `total` samples. Short clips are used whole."""
        spare = max(total - self.n_samples, 0)
        # All spare + 1 starts are equally likely.
        start = int(self.position * (spare + 1))
        return start, min(start + self.n_samples, total)


@dataclass(frozen=True)
class DecodedClip:
    """A decoded clip.

    Attributes:
        samples: float32, shape (time,).
        peak: The largest absolute value, for files with floating-point samples, which can be outside [-1, 1]; None for
            other files.
    """

    samples: np.ndarray
    peak: float | None


def decode_audio(
    audio: Audio | None, sampling_rate: int | None, *, window: Window | None = None, name: str | None = None
) -> np.ndarray:
    """Decode a clip, or a window of it.

    Only the window is decoded if the format can seek to a sample. Otherwise the whole clip is decoded and cut. Both
    give the same samples.

    Args:
        audio: A path, an encoded file's bytes, or the `{"bytes", "path"}` of a `datasets.Audio(decode=False)` column,
            where bytes take precedence over the path.
        sampling_rate: The target rate in Hz. None keeps the file's rate.
        window: The window, in samples at that rate. None for the whole clip.
        name: The clip's name for messages. Defaults to its path.

    Returns:
        Float32 samples of shape (time,), nominally in [-1, 1], with channels averaged. All are finite, and there are at
        least one and at most `window.n_samples` of them.

    Raises:
        AudioDecodingError: If the file is missing, not audio, truncated, or empty, has samples that are not finite or
            far out of range, or an invalid sampling rate, cannot be resampled, or does not fit in memory.
        OSError: If the disk fails, or too many files are open.
        ValueError: If `sampling_rate` is not positive.
    """
    return decode_clip(audio, sampling_rate, window=window, name=name).samples


def decode_clip(
    audio: Audio | None, sampling_rate: int | None, *, window: Window | None = None, name: str | None = None
) -> DecodedClip:
    """Decode a clip like `decode_audio`, and also return its peak."""
    with open_clip(audio, sampling_rate, name=name) as clip:
        if window is None:
            return DecodedClip(_join(clip), clip.peak)
        part = clip.sound.window(window.bounds, sampling_rate)
        if part is not None:
            check_samples(part.samples)
            return DecodedClip(part.samples, part.peak)
        if window.position == 0:
            return DecodedClip(clip.leading(window.n_samples), clip.peak)
        return DecodedClip(crop(_join(clip), window), clip.peak)


class ClipStream:
    """A clip's samples, block by block. Concatenated, they equal the result of `decode_audio`.

    Attributes:
        sound: Reads the file.
        peak: The largest absolute value so far, for files with floating-point samples; None for other files.
    """

    def __init__(self, sound: SoundReader, sampling_rate: int | None) -> None:
        self.sound = sound
        self.peak: float | None = None
        self._rate = sampling_rate

    def __iter__(self) -> Iterator[np.ndarray]:
        blocks = SteadyBlocks(self.sound.blocks())
        yield from resample_blocks(self._check_blocks(blocks), blocks.rate, self._rate or blocks.rate)

    def leading(self, n_samples: int) -> np.ndarray:
        """Return the first `n_samples` samples. The rest is decoded too, to detect truncated files."""
        blocks = SteadyBlocks(self.sound.blocks())
        rate = self._rate or blocks.rate
        needed = n_samples if rate == blocks.rate else source_span(0, n_samples, 2**62, blocks.rate, rate)[1]
        kept, total = [], 0
        for block in self._check_blocks(blocks):
            if total < needed:
                kept.append(block)
            total += len(block)
        samples = _join(kept)[:needed]
        if rate == blocks.rate:
            return samples
        stop = min(n_samples, resampled_length(total, blocks.rate, rate))
        return resample_span(samples, 0, 0, stop, blocks.rate, rate)

    def _check_blocks(self, blocks: SteadyBlocks) -> Iterator[np.ndarray]:
        for samples in blocks:
            check_samples(samples)
            if blocks.are_floats:
                self.peak = max(self.peak or 0.0, float(np.abs(samples).max()))
            yield samples


@contextmanager
def open_clip(audio: Audio | None, sampling_rate: int | None, *, name: str | None = None) -> Generator[ClipStream]:
    """Open a clip to decode it block by block, which needs little memory for recordings of hours.

    Args:
        audio: As for `decode_audio`.
        sampling_rate: The target rate in Hz. None keeps the file's rate.
        name: The clip's name for messages. Defaults to its path.

    Raises:
        AudioDecodingError: As for `decode_audio`. Blocks raise it too when they are read.
        OSError: As for `decode_audio`.
        ValueError: If `sampling_rate` is not positive.
    """
    if sampling_rate is not None and sampling_rate <= 0:
        raise ValueError(f"sampling_rate must be positive, not {sampling_rate}.")
    name = name or _name_of(audio)
    try:
        with open_sound(_source_of(audio, name)) as sound:
            yield ClipStream(sound, sampling_rate)
    except AudioDecodingError as error:
        raise AudioDecodingError(error.reason, name) from error.__cause__
    except MemoryError as error:
        raise AudioDecodingError("it does not fit in memory: cut it into shorter recordings", name) from error
    except OSError as error:
        if error.errno in _NOT_OF_A_CLIP:
            raise
        raise AudioDecodingError(f"it cannot be read ({error.strerror or error})", name) from error


def crop(samples: np.ndarray, window: Window) -> np.ndarray:
    """Return the window of `samples` (time on the last axis) as a view; all samples if the clip is shorter."""
    start, stop = window.bounds(samples.shape[-1])
    return samples[..., start:stop]


def repeat_pad(samples: np.ndarray, length: int) -> np.ndarray:
    """Repeat or cut `samples` to `length`.

    The published anti-spoofing recipes pad this way (`pad` in the code of Tak et al., 2022). Unlike zero padding, it
    does not reveal the clip's length to the model.

    Args:
        samples: Shape (time,), at least one sample.
        length: Length of the result in samples, at least 1.

    Returns:
        An array of shape (length,) and the same dtype.

    Raises:
        ValueError: If there are no samples.
    """
    if samples.shape[-1] == 0:
        raise ValueError("cannot repeat a clip without samples.")
    return samples[:length] if samples.shape[-1] >= length else np.resize(samples, length)


def scale_to_rms(samples: np.ndarray, rms: float) -> np.ndarray:
    """Scale a waveform to the root mean square `rms`.

    RawBoost's distortion depends on the level: it grows with powers of the waveform.

    Args:
        samples: float32, shape (time,).
        rms: Root mean square, above 0. With 0.1, speech has some headroom below 1.

    Returns:
        A float32 array of the same shape. Silence stays silence.
    """
    current = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) if samples.size else 0.0
    return samples if current == 0 else (samples * (rms / current)).astype(np.float32)


def _join(blocks: Iterable[np.ndarray]) -> np.ndarray:
    samples = list(blocks)
    return samples[0] if len(samples) == 1 else np.concatenate(samples)


def _source_of(audio: Audio | None, name: str) -> str | bytes:
    data, path = _bytes_and_path(audio)
    if data is not None:
        if len(data) == 0:
            raise AudioDecodingError("it is empty (zero bytes)", name)
        return data
    if path is None:
        raise AudioDecodingError("there is no audio (null)", name)
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # ValueError: a name with a null character
        raise AudioDecodingError(f"the file {path} does not exist", name) from error
    if not stat.S_ISREG(status.st_mode):
        raise AudioDecodingError(f"{path} is not a file", name)
    if status.st_size == 0:
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
