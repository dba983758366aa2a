"""Reads a sound file completely, block by block, or only a window of it.

Uses libsndfile if it knows the file's length, and FFmpeg's libraries otherwise.
"""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from itertools import chain, groupby
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import soundfile

from hf_gradalign.audio.containers import check_structure
from hf_gradalign.audio.extensions import misleading_extension
from hf_gradalign.audio.ffmpeg import UnknownFormatError, blocks_by_ffmpeg
from hf_gradalign.audio.mp3 import measure_mp3
from hf_gradalign.audio.recordings import ForFFmpeg, find_recordings
from hf_gradalign.audio.resampling import resample_blocks, resample_span, resampled_length, source_span
from hf_gradalign.audio.riff import Data, refuse_trailing_bytes
from hf_gradalign.audio.sound import AudioDecodingError, Block, Sound, check_rate

T = TypeVar("T")

Bounds = Callable[[int], tuple[int, int]]
"""Maps a file's length in samples to the first sample wanted and one past the last."""

# In these encodings a seek is exact to the sample, and a part decodes to the same bits as the whole. (FLAC's is called
# PCM too.) MP3, Ogg Vorbis and Ogg Opus carry state from frame to frame, and a part decodes differently (measured).
_EXACT_ENCODINGS = ("PCM_", "FLOAT", "DOUBLE", "ULAW", "ALAW")
# Values that libsndfile decodes at a time, whatever length a header claims: 16 MB.
_BLOCK = 2**22
# More for MP3 (268 MB), because decoding in blocks changes the last bit of samples.
_MP3_BLOCK = 2**26
# Samples to keep in memory while a file is decoded to its end before its first sample can be used: 64 MB.
_KEPT = 2**24
# libsndfile reports this many frames if the header does not say (a FLAC file written to a pipe).
_UNKNOWN_FRAMES = 2**62
_NO_SUCH_FILE = 7  # libsndfile's error code
# If a file is shorter than its header says, libsndfile reads what there is, and writes one of these lines to its log.
# (For WAV and AIFF, `riff` knows more.)
_SHORTER = {
    "W64": re.compile(r"^\s*riff\s*: (\d+) \(should be (\d+)\)", re.IGNORECASE | re.MULTILINE),
    "AU": re.compile(r"^\s*Data Size\s*: (\d+) \(should be (\d+)\)", re.MULTILINE),
    "SVX": re.compile(r"^\s*BODY\s*: (\d+) \(should be (\d+)\)", re.MULTILINE),
}
_SIZE_TOLERANCE = 0.01
_UNKNOWN_SIZE = 0x7FFF0000
_NIST_SAMPLES = re.compile(rb"^sample_count -i (\d+)", re.MULTILINE)
# A lossy stream may lack this share of the samples that its header promises, or one frame.
_LOSSY_SHARE, _LOSSY_FRAME = 0.03, 1152


def read_sound(source: str | Path | bytes) -> Sound:
    """Read a file to its end.

    Does not trust lengths that only the header claims: MP3 files without an Xing or Info header, WAV files that were
    written to a pipe, and files that contain several recordings are read to the end of the file.

    Args:
        source: The file's path, or its bytes (at least one).

    Returns:
        The sound, with at least one sample.

    Raises:
        AudioDecodingError: If it is not audio, corrupt, truncated or empty, or its header contradicts its content.
        MemoryError: If it does not fit in memory.
        OSError: If the file cannot be read.
    """
    with open_sound(source) as sound:
        blocks = SteadyBlocks(sound.blocks())
        return Sound(np.concatenate(list(blocks)), blocks.rate, blocks.are_floats)


@contextmanager
def open_sound(source: str | Path | bytes) -> Generator[SoundReader]:
    """Open a file to read it block by block, or only a window of it.

    Raises:
        AudioDecodingError: Like `read_sound`, except for errors that appear only at the end of the file.
        OSError: If the file cannot be read.
    """
    with (
        nullcontext(File(source)) if isinstance(source, bytes) else opened_file(source) as file,
        closing(SoundReader(file)) as reader,
    ):
        yield reader


def unread_by_libsndfile(path: str | Path) -> str | None:
    """Return why libsndfile alone would read only a part of a file that it can open; None if it reads all of it."""
    with opened_file(path) as file, soundfile.SoundFile(os.fspath(path)) as sound_file:
        try:
            recordings, repair = file.measured(find_recordings)
        except AudioDecodingError as error:
            return error.reason
        if len(recordings) > 1:
            return f"libsndfile reads only the first of its {len(recordings)} recordings"
        if (reason := misleading_extension(sound_file, file.data)) is not None:
            return reason
        if isinstance(repair, ForFFmpeg):
            return repair.reason
        if sound_file.format == "MP3" and sound_file.frames < file.measured(measure_mp3).least:
            return "libsndfile reads only a part of it, because no header says how long it is"
    return None


@dataclass(frozen=True)
class File:
    """A file's bytes.

    Attributes:
        data: The bytes.
        path: Its path; None for bytes in memory.
        stamp: Its size in bytes, and its time of modification in ns.
    """

    data: Data
    path: str | None = None
    stamp: tuple[int, int] = (0, 0)

    def measured(self, measure: Callable[[Data], T]) -> T:
        """Return `measure(data)`. For files with a path, cached until the file changes, to serve all its windows."""
        return measure(self.data) if self.path is None else _measure_file(measure, self.path, *self.stamp)


@lru_cache(maxsize=2**16)
def _measure_file(measure: Callable[[Data], Any], path: str, size: int, modified: int) -> Any:
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return measure(data)


@contextmanager
def opened_file(path: str | Path) -> Generator[File]:
    """Map a file's bytes into memory."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        status = os.fstat(file.fileno())
        yield File(data, os.path.abspath(path), (status.st_size, status.st_mtime_ns))


class SteadyBlocks:
    """The samples of blocks, all resampled to the rate of the first.

    Args:
        blocks: From `SoundReader.blocks`.

    Attributes:
        rate: The first block's rate in Hz.
        are_floats: Whether any block so far contains floating-point samples, which can be outside [-1, 1].
    """

    def __init__(self, blocks: Iterator[Block]) -> None:
        first = next(blocks)
        self.rate = first.rate
        self.are_floats = False
        self._blocks = chain([first], blocks)

    def __iter__(self) -> Iterator[np.ndarray]:
        n_recordings = 0

        def number_of(block: Block) -> int:
            nonlocal n_recordings
            n_recordings += block.begins
            self.are_floats |= block.stored_as_floats
            return n_recordings

        for _, recording in groupby(self._blocks, number_of):
            first = next(recording)
            samples = (block.samples for block in chain([first], recording))
            yield from resample_blocks(samples, first.rate, self.rate)


class SoundReader:
    """Reads an open file.

    Args:
        file: Its bytes.

    Attributes:
        seconds: Its duration, if the header can be trusted; None otherwise.

    Raises:
        AudioDecodingError: If its header contradicts its content, or has an invalid sampling rate.
    """

    def __init__(self, file: File) -> None:
        self._file = file
        self._sound_file: soundfile.SoundFile | None = None
        self._fault: Exception | None = None
        self._recordings, repair = file.measured(find_recordings)
        self.seconds: float | None = None
        if len(self._recordings) > 1:
            return
        if isinstance(repair, ForFFmpeg):
            self._fault = ValueError(repair.reason)
            return
        self._open = lambda: soundfile.SoundFile(
            file.path or BytesIO(file.data) if repair is None else BytesIO(repair.repaired(file.data))
        )
        try:
            self._sound_file = self._open()
        # soundfile raises TypeError for a headerless `.raw`.
        except (soundfile.SoundFileError, TypeError) as error:
            self._fault = error
            return
        if (reason := misleading_extension(self._sound_file, file.data)) is not None:
            self._fault = ValueError(reason)
        elif (frames := self._sound_file.frames) < _UNKNOWN_FRAMES and self._sound_file.samplerate > 0:
            self.seconds = frames / self._sound_file.samplerate

    def close(self) -> None:
        """Close the file."""
        if self._sound_file is not None:
            self._sound_file.close()

    def window(self, bounds: Bounds, rate: int | None) -> Sound | None:
        """Read only a window, with the same bits as when reading and resampling the whole file.

        Args:
            bounds: Maps the length in samples at `rate` to the first sample wanted and one past the last.
            rate: The target rate in Hz; None for the file's rate.

        Returns:
            The window; None if the format cannot seek to a sample, so that the whole file must be read.

        Raises:
            AudioDecodingError: Like `blocks`.
        """
        file = self._trusted_file()
        if file is None or not file.subtype.startswith(_EXACT_ENCODINGS):
            return None
        file_rate = file.samplerate
        rate = rate or file_rate
        start, stop = bounds(resampled_length(file.frames, file_rate, rate))
        first, last = (start, stop) if rate == file_rate else source_span(start, stop, file.frames, file_rate, rate)
        if (last - first) * file.channels > _BLOCK:
            return None
        try:
            if file.tell() != first:
                file.seek(first)
            samples = file.read(last - first, dtype="float32", always_2d=True).mean(axis=1)
        except soundfile.SoundFileError as error:
            raise AudioDecodingError(f"it is corrupt ({_message(error)})") from error
        if len(samples) < last - first:
            raise AudioDecodingError(f"it is truncated: {len(samples)} of {last - first} samples could be read")
        is_float = file.subtype in ("FLOAT", "DOUBLE")
        if rate == file_rate:
            return Sound(samples, rate, is_float)
        peak = float(np.abs(samples).max()) if is_float else None
        return Sound(resample_span(samples, first, start, stop, file_rate, rate), rate, is_float, peak)

    def blocks(self) -> Iterator[Block]:
        """Read everything in order, including all recordings of a file that contains several.

        Yields:
            At least one block.

        Raises:
            AudioDecodingError: If it is not audio, corrupt, truncated or empty. This may appear only at the end.
        """
        if len(self._recordings) > 1:
            for start, stop in self._recordings:
                reader = SoundReader(File(self._file.data[start:stop]))
                try:
                    yield from reader.blocks()
                finally:
                    reader.close()
        elif self._fault is not None:
            yield from _blocks_after_fault(self._file.data, self._fault)
        elif (file := self._trusted_file()) is None:
            yield from blocks_by_ffmpeg(self._file.data)
        elif file.format == "MP3":
            yield from self._mp3_blocks(file.frames)
        else:
            try:
                yield from self._libsndfile_blocks(file)
            except soundfile.SoundFileError as error:
                raise AudioDecodingError(f"it is corrupt ({_message(error)})") from error

    def _trusted_file(self) -> soundfile.SoundFile | None:
        """Return the file for libsndfile to read, if it knows the length and nothing contradicts it; None otherwise."""
        file = self._sound_file
        if file is None or self._fault is not None or file.frames >= _UNKNOWN_FRAMES:
            return None
        if file.frames == 0:
            raise AudioDecodingError("it is empty (no samples)")
        check_rate(file.samplerate)
        _refuse_truncated(file, self._file.data)
        return file

    def _libsndfile_blocks(self, file: soundfile.SoundFile) -> Iterator[Block]:
        size, n_read = max((_MP3_BLOCK if file.format == "MP3" else _BLOCK) // file.channels, 1), 0
        while len(samples := file.read(min(size, file.frames - n_read), dtype="float32", always_2d=True)):
            is_float = file.subtype in ("FLOAT", "DOUBLE")
            yield Block(samples.mean(axis=1), file.samplerate, is_float, n_read == 0)
            n_read += len(samples)
            if n_read == file.frames:
                return
        tolerance = 0 if file.subtype.startswith(_EXACT_ENCODINGS) else _lossy_tolerance(file.frames)
        if file.format != "MP3" and (n_read == 0 or file.frames - n_read > tolerance):
            raise AudioDecodingError(f"it is truncated: {n_read} of {file.frames} samples could be read")

    def _mp3_blocks(self, frames: int) -> Iterator[Block]:
        """Decode with libsndfile, or with FFmpeg if the stream is longer than libsndfile knows.

        Args:
            frames: The number of samples by libsndfile.
        """
        length = self._file.measured(measure_mp3)

        def by_libsndfile() -> Iterator[Block]:
            with self._open() as file:
                yield from self._libsndfile_blocks(file)

        try:
            n_samples, decoded = _count_samples(by_libsndfile)
        except soundfile.SoundFileError as error:
            fault = error
            n_samples, decoded = _count_samples(lambda: _blocks_after_fault(self._file.data, fault, "mp3"))
        else:
            if n_samples < length.least:
                n_by_ffmpeg, by_ffmpeg = _count_samples(lambda: blocks_by_ffmpeg(self._file.data, "mp3"))
                if n_by_ffmpeg > n_samples + length.left_out:
                    yield from by_ffmpeg()
                    return
        is_known = length.has_header or not length.least
        if n_samples == 0 or (is_known and n_samples < frames - _lossy_tolerance(frames)):
            raise AudioDecodingError(f"it is truncated: {n_samples} of {frames} samples could be read")
        yield from decoded()


def _count_samples(decode: Callable[[], Iterator[Block]]) -> tuple[int, Callable[[], Iterator[Block]]]:
    """Count the samples. Also return a function that yields the blocks: from memory, or by a second decoding."""
    kept: list[Block] = []
    n_samples = 0
    for block in decode():
        n_samples += len(block.samples)
        if n_samples <= _KEPT:
            kept.append(block)
    return n_samples, decode if n_samples > _KEPT else lambda: iter(kept)


def _blocks_after_fault(data: Data, error: Exception, format_name: str | None = None) -> Iterator[Block]:
    """Decode with FFmpeg after libsndfile failed with `error`."""
    try:
        yield from blocks_by_ffmpeg(data, format_name)
    except UnknownFormatError as unknown:
        # For a file that only claims to be MP3, libsndfile says that the file does not exist.
        is_misleading = getattr(error, "code", None) == _NO_SUCH_FILE
        message = "" if is_misleading else f"libsndfile: {_message(error).rstrip('.')}; "
        raise AudioDecodingError(
            f"not audio that libsndfile or FFmpeg can read, or corrupt ({message}{unknown.reason})"
        ) from error


def _message(error: Exception) -> str:
    return str(getattr(error, "error_string", error))  # without the address of the bytes, which changes every time


def _lossy_tolerance(frames: int) -> float:
    return max(_LOSSY_SHARE * frames, _LOSSY_FRAME)


def _refuse_truncated(file: soundfile.SoundFile, data: Data) -> None:
    notes = _SHORTER[file.format].findall(file.extra_info) if file.format in _SHORTER else []
    pairs = [(int(claimed), int(actual)) for claimed, actual in notes]
    if file.format == "NIST" and (match := _NIST_SAMPLES.search(data[:1024])):
        pairs = [(int(match[1]), file.frames)]
    for claimed, actual in pairs:
        if actual < (1 - _SIZE_TOLERANCE) * claimed and claimed < _UNKNOWN_SIZE:
            unit = "samples" if file.format == "NIST" else "bytes"
            raise AudioDecodingError(f"it is truncated: it has {actual} of {claimed} {unit}")
    if file.format == "AU":
        order: Literal["little", "big"] = "big" if data[:4] == b".snd" else "little"
        start, claimed = (int.from_bytes(data[offset : offset + 4], order) for offset in (4, 8))
        if claimed < _UNKNOWN_SIZE:
            refuse_trailing_bytes(data, claimed, start + claimed)
    if file.format == "CAF":
        check_structure(data, "caf")
    if file.format == "VOC" and "truncated file" in file.extra_info:
        raise AudioDecodingError("it is truncated (libsndfile: seems to be a truncated file)")
