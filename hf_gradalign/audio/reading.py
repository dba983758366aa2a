"""Read a sound file, or a window of it: by libsndfile where it knows the length, by FFmpeg's libraries elsewhere."""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from hf_gradalign.audio.errors import AudioDecodingError
from hf_gradalign.audio.ffmpeg import LOSSY_TOLERANCE, UnknownFormatError, read_by_ffmpeg
from hf_gradalign.audio.mp3 import Mp3Length, measure_mp3
from hf_gradalign.audio.recordings import find_recordings
from hf_gradalign.audio.resampling import resample_clip
from hf_gradalign.audio.riff import Data, RiffSound, find_riff_sound

Bounds = Callable[[int], tuple[int, int]]
"""From a file's length in samples to the first sample wanted and one past the last."""

# Encodings in which a seek lands on the very sample, so that a part decodes to the bits that decoding the whole would
# give; FLAC's is called PCM too. MP3, Ogg Vorbis and Ogg Opus carry state from frame to frame and do not (measured).
_EXACT_ENCODINGS = ("PCM_", "FLOAT", "DOUBLE", "ULAW", "ALAW")
# libsndfile gives this many frames when the header does not say (a FLAC written to a pipe).
_UNKNOWN_FRAMES = 2**62
_NO_SUCH_FILE = 7  # by libsndfile's numbers
# What libsndfile notes where a W64 file is shorter than its header says: it reads what there is.
_W64_SIZES = re.compile(r"^\s*riff\s*: (\d+) \(should be (\d+)\)", re.IGNORECASE | re.MULTILINE)
_W64_TOLERANCE = 0.01
_W64_UNKNOWN_SIZE = 0x7FFF0000


@dataclass(frozen=True)
class Sound:
    """What was read.

    Attributes:
        samples: float32, shape (time,), nominally in [-1, 1], channels averaged.
        rate: in Hz.
        is_window: whether `samples` are the window that was asked for, rather than all there is.
        stored_as_floats: whether the file has floating-point numbers, which can lie outside [-1, 1].
    """

    samples: np.ndarray
    rate: int
    is_window: bool = False
    stored_as_floats: bool = False

    @property
    def peak(self) -> float | None:
        """The largest absolute value of samples that can lie outside [-1, 1]; None of others."""
        return float(np.abs(self.samples).max()) if self.stored_as_floats else None


@dataclass(frozen=True)
class _File:
    """A file's bytes, and where they are from."""

    data: Data
    path: str | None = None
    stamp: tuple[int, int] = (0, 0)

    def measured(self, measure: Callable[[Data], Any]) -> Any:
        """What `measure` finds in the bytes; of a path once for all its windows, as long as the file stays the same."""
        return measure(self.data) if self.path is None else _measured(measure, self.path, *self.stamp)


@lru_cache(maxsize=2**16)
def _measured(measure: Callable[[Data], Any], path: str, size: int, modified: int) -> Any:
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return measure(data)


def read_sound(source: str | Path | bytes, bounds: Bounds | None = None, bounds_rate: int | None = None) -> Sound:
    """Read a file to its end, or a window of it.

    Lengths that a header only claims are not believed: MP3s without an Xing or Info header, WAV files that were
    written to a pipe, and files that hold several recordings are read to the end of the file.

    Args:
        source: the file's path, or its bytes; at least one.
        bounds: the window wanted. It is read alone where the format can seek to a sample.
        bounds_rate: the rate that the window's bounds are for, in Hz; None for the file's.

    Returns:
        At least one sample.

    Raises:
        AudioDecodingError: if it is no audio, corrupt, truncated or empty, or its header contradicts what is there.
        OSError: if the file cannot be read.
    """
    if isinstance(source, bytes):
        return _read(_File(source), bounds, bounds_rate)
    with _opened(source) as file:
        return _read(file, bounds, bounds_rate)


def unheard_by_libsndfile(path: str | Path) -> str | None:
    """Why libsndfile alone would read only a part of a file that it can open; None where it reads all of it."""
    with _opened(path) as file, soundfile.SoundFile(file.path) as sound_file:
        try:
            recordings, _ = file.measured(_layout)
        except AudioDecodingError as error:
            return error.reason
        if len(recordings) > 1:
            return f"libsndfile reads the first of its {len(recordings)} recordings only"
        if sound_file.format == "MP3" and sound_file.frames < file.measured(measure_mp3).least:
            return "libsndfile reads a part of it only, since no header says how long it is"
    return None


@contextmanager
def _opened(path: str | Path) -> Iterator[_File]:
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        status = os.fstat(file.fileno())
        yield _File(data, os.path.abspath(path), (status.st_size, status.st_mtime_ns))


def _layout(data: Data) -> tuple[list[tuple[int, int]], RiffSound | None]:
    recordings = find_recordings(data)
    return recordings, find_riff_sound(data) if len(recordings) == 1 else None


def _read(file: _File, bounds: Bounds | None, bounds_rate: int | None) -> Sound:
    recordings, riff = file.measured(_layout)
    if len(recordings) > 1:
        return _joined([read_sound(file.data[start:stop]) for start, stop in recordings])
    if riff is not None and riff.mended_sizes:
        opened: str | BytesIO = BytesIO(riff.mended(file.data))
    else:
        opened = file.path or BytesIO(file.data)
    try:
        sound_file = soundfile.SoundFile(opened)
    # TypeError is soundfile's answer to a headerless `.raw`.
    except (soundfile.SoundFileError, TypeError) as error:
        return _read_what_libsndfile_cannot(file.data, error)
    with sound_file:
        if sound_file.frames >= _UNKNOWN_FRAMES:
            return _to_the_end(file.data)
        if sound_file.frames == 0 and sound_file.format == "MP3":  # by its ending
            return _read_what_libsndfile_cannot(file.data, ValueError("no MPEG frames"))
        if sound_file.frames == 0:
            raise AudioDecodingError("it is empty (no samples)")
        if sound_file.format == "MP3":
            return _read_mp3(file, sound_file)
        if sound_file.format == "W64":
            _refuse_cut_off_w64(sound_file)
        try:
            return _read_window(sound_file, bounds if bounds_rate in (None, sound_file.samplerate) else None)
        except soundfile.SoundFileError as error:
            raise AudioDecodingError(f"it is corrupt ({_said(error)})") from error


def _read_window(file: soundfile.SoundFile, bounds: Bounds | None) -> Sound:
    exact = file.subtype.startswith(_EXACT_ENCODINGS)
    can_seek = exact and bounds is not None
    start, stop = bounds(file.frames) if can_seek else (0, file.frames)
    if start:
        file.seek(start)
    try:
        samples = file.read(stop - start, dtype="float32", always_2d=True)
    except MemoryError as error:
        raise AudioDecodingError(f"it is corrupt: its header says that it has {file.frames} samples") from error
    missing = stop - start - len(samples)
    if missing > (0 if exact else LOSSY_TOLERANCE * file.frames) or len(samples) == 0:
        raise AudioDecodingError(f"it is truncated: {len(samples)} of {stop - start} samples could be read")
    return Sound(samples.mean(axis=1), file.samplerate, can_seek, file.subtype in ("FLOAT", "DOUBLE"))


def _read_mp3(file: _File, sound_file: soundfile.SoundFile) -> Sound:
    """By libsndfile, unless the stream has more than it knows of."""
    length: Mp3Length = file.measured(measure_mp3)
    try:
        samples = sound_file.read(sound_file.frames, dtype="float32", always_2d=True).mean(axis=1)
    except (soundfile.SoundFileError, MemoryError) as error:  # a header may say that there are terabytes
        return _read_what_libsndfile_cannot(file.data, error, "mp3")
    if len(samples) < length.least:
        heard = _to_the_end(file.data, "mp3")
        if len(heard.samples) > len(samples) + length.left_out:
            return heard
    claims = length.has_header or not length.least
    if len(samples) == 0 or (claims and len(samples) < (1 - LOSSY_TOLERANCE) * sound_file.frames):
        raise AudioDecodingError(f"it is truncated: {len(samples)} of {sound_file.frames} samples could be read")
    return Sound(samples, sound_file.samplerate)


def _to_the_end(data: Data, format_name: str | None = None) -> Sound:
    samples, rate, stored_as_floats = read_by_ffmpeg(data, format_name)
    return Sound(samples, rate, stored_as_floats=stored_as_floats)


def _read_what_libsndfile_cannot(data: Data, error: Exception, format_name: str | None = None) -> Sound:
    try:
        return _to_the_end(data, format_name)
    except UnknownFormatError as unknown:
        # Of an MP3 that is none, libsndfile says that the file does not exist.
        said = "" if getattr(error, "code", None) == _NO_SUCH_FILE else f"libsndfile: {_said(error).rstrip('.')}; "
        raise AudioDecodingError(
            f"not audio that libsndfile or FFmpeg can read, or corrupt ({said}{unknown.reason})"
        ) from error


def _said(error: Exception) -> str:
    return str(getattr(error, "error_string", error))  # without the address of the bytes, which differs from run to run


def _joined(sounds: list[Sound]) -> Sound:
    rate = sounds[0].rate
    samples = np.concatenate([resample_clip(sound.samples, sound.rate, rate) for sound in sounds])
    return Sound(samples, rate, stored_as_floats=any(sound.stored_as_floats for sound in sounds))


def _refuse_cut_off_w64(file: soundfile.SoundFile) -> None:
    for match in _W64_SIZES.finditer(file.extra_info):
        said, there = int(match[1]), int(match[2])
        if there < (1 - _W64_TOLERANCE) * said and said < _W64_UNKNOWN_SIZE:
            raise AudioDecodingError(f"it is truncated: {there} of {said} bytes are there")
