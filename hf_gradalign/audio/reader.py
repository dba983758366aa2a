"""A sound file, opened to be read block by block, or a window of it.

By libsndfile where it knows the length, by FFmpeg's libraries elsewhere.
"""

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

from hf_gradalign.audio.containers import check_structure
from hf_gradalign.audio.errors import AudioDecodingError
from hf_gradalign.audio.ffmpeg import UnknownFormatError, blocks_by_ffmpeg
from hf_gradalign.audio.mp3 import Mp3Length, measure_mp3
from hf_gradalign.audio.recordings import find_recordings
from hf_gradalign.audio.resampling import check_rate, resample_span, resampled_length, source_span
from hf_gradalign.audio.riff import Data
from hf_gradalign.audio.sound import Block, Sound

Bounds = Callable[[int], tuple[int, int]]
"""From a file's length in samples to the first sample wanted and one past the last."""

# Encodings in which a seek lands on the very sample, so that a part decodes to the bits that decoding the whole would
# give; FLAC's is called PCM too. MP3, Ogg Vorbis and Ogg Opus carry state from frame to frame and do not (measured).
_EXACT_ENCODINGS = ("PCM_", "FLOAT", "DOUBLE", "ULAW", "ALAW")
# Values that libsndfile decodes at a time, whatever a header claims that there are: 16 MB.
_BLOCK = 2**22
# Of an MP3 more (268 MB), since in blocks its samples differ by their last bit.
_MP3_BLOCK = 2**26
# Samples that are kept where a file must be heard to its end before its first sample counts: 64 MB.
_KEPT = 2**24
# libsndfile gives this many frames when the header does not say (a FLAC written to a pipe).
_UNKNOWN_FRAMES = 2**62
_NO_SUCH_FILE = 7  # by libsndfile's numbers
# What libsndfile notes where a file is shorter than its header says: it reads what there is. (Of WAV and AIFF, `riff`
# knows more.)
_SHORTER = {
    "W64": re.compile(r"^\s*riff\s*: (\d+) \(should be (\d+)\)", re.IGNORECASE | re.MULTILINE),
    "AU": re.compile(r"^\s*Data Size\s*: (\d+) \(should be (\d+)\)", re.MULTILINE),
    "SVX": re.compile(r"^\s*BODY\s*: (\d+) \(should be (\d+)\)", re.MULTILINE),
}
_SIZE_TOLERANCE = 0.01
_UNKNOWN_SIZE = 0x7FFF0000
_NIST_SAMPLES = re.compile(rb"^sample_count -i (\d+)", re.MULTILINE)
# A lossy stream may lack so large a share of the samples that its header gives it, or a frame.
_LOSSY_SHARE, _LOSSY_FRAME = 0.03, 1152


@dataclass(frozen=True)
class File:
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


@contextmanager
def opened_file(path: str | Path) -> Iterator[File]:
    """A file's bytes, mapped into memory."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        status = os.fstat(file.fileno())
        yield File(data, os.path.abspath(path), (status.st_size, status.st_mtime_ns))


class SoundReader:
    """Reads a file that is open.

    Args:
        file: its bytes.

    Attributes:
        seconds: how long it lasts, where its header is believed; None elsewhere.

    Raises:
        AudioDecodingError: if its header contradicts what is there, or has a sampling rate that is none.
    """

    def __init__(self, file: File) -> None:
        self._file = file
        self._sound_file: soundfile.SoundFile | None = None
        self._fault: Exception | None = None
        self._recordings, mend = file.measured(find_recordings)
        self.seconds: float | None = None
        if len(self._recordings) > 1:
            return
        self._open = lambda: soundfile.SoundFile(
            file.path or BytesIO(file.data) if mend is None else BytesIO(mend.mended(file.data))
        )
        try:
            self._sound_file = self._open()
        # TypeError is soundfile's answer to a headerless `.raw`.
        except (soundfile.SoundFileError, TypeError) as error:
            self._fault = error
            return
        frames = self._sound_file.frames
        if frames == 0 and self._sound_file.format == "MP3":  # by its ending
            self._fault = ValueError("no MPEG frames")
        elif frames < _UNKNOWN_FRAMES and self._sound_file.samplerate > 0:
            self.seconds = frames / self._sound_file.samplerate

    def close(self) -> None:
        """Close what was opened."""
        if self._sound_file is not None:
            self._sound_file.close()

    def window(self, bounds: Bounds, rate: int | None) -> Sound | None:
        """A part that is read alone, to the bits that reading and resampling the whole would give.

        Args:
            bounds: from the length in samples at `rate` to the first one wanted and one past the last.
            rate: the rate wanted, in Hz; None for the file's.

        Returns:
            The part; None where the format cannot seek to a sample, and all must be read.

        Raises:
            AudioDecodingError: as `blocks`.
        """
        file = self._sound_file
        if file is None or not file.subtype.startswith(_EXACT_ENCODINGS) or not self._is_sound():
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
            raise AudioDecodingError(f"it is corrupt ({_said(error)})") from error
        if len(samples) < last - first:
            raise AudioDecodingError(f"it is truncated: {len(samples)} of {last - first} samples could be read")
        is_float = file.subtype in ("FLOAT", "DOUBLE")
        if rate == file_rate:
            return Sound(samples, rate, True, is_float)
        peak = float(np.abs(samples).max()) if is_float else None
        return Sound(resample_span(samples, first, start, stop, file_rate, rate), rate, True, is_float, peak)

    def blocks(self) -> Iterator[Block]:
        """All of it, in order; each recording of a file that holds several.

        Yields:
            At least one block.

        Raises:
            AudioDecodingError: if it is no audio, corrupt, truncated or empty; that may show at its end only.
        """
        if len(self._recordings) > 1:
            for start, stop in self._recordings:
                reader = SoundReader(File(self._file.data[start:stop]))
                try:
                    yield from reader.blocks()
                finally:
                    reader.close()
        elif self._fault is not None:
            yield from _what_libsndfile_cannot(self._file.data, self._fault)
        elif not self._is_sound():
            yield from blocks_by_ffmpeg(self._file.data)
        elif self._sound_file.format == "MP3":
            yield from self._mp3_blocks()
        else:
            try:
                yield from self._libsndfile_blocks(self._sound_file)
            except soundfile.SoundFileError as error:
                raise AudioDecodingError(f"it is corrupt ({_said(error)})") from error

    def _is_sound(self) -> bool:
        """Whether libsndfile is to read it: it knows the length, and nothing speaks against it."""
        if self._fault is not None or self._sound_file.frames >= _UNKNOWN_FRAMES:
            return False
        if self._sound_file.frames == 0:
            raise AudioDecodingError("it is empty (no samples)")
        check_rate(self._sound_file.samplerate)
        _refuse_cut_off(self._sound_file, self._file.data)
        return True

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

    def _mp3_blocks(self) -> Iterator[Block]:
        """By libsndfile, unless the stream has more than it knows of."""
        length: Mp3Length = self._file.measured(measure_mp3)

        def by_libsndfile() -> Iterator[Block]:
            with self._open() as file:
                yield from self._libsndfile_blocks(file)

        try:
            n_heard, heard = _counted(by_libsndfile)
        except soundfile.SoundFileError as error:
            fault = error
            n_heard, heard = _counted(lambda: _what_libsndfile_cannot(self._file.data, fault, "mp3"))
        else:
            if n_heard < length.least:
                n_there, there = _counted(lambda: blocks_by_ffmpeg(self._file.data, "mp3"))
                if n_there > n_heard + length.left_out:
                    yield from there()
                    return
        frames = self._sound_file.frames
        claims = length.has_header or not length.least
        if n_heard == 0 or (claims and n_heard < frames - _lossy_tolerance(frames)):
            raise AudioDecodingError(f"it is truncated: {n_heard} of {frames} samples could be read")
        yield from heard()


def _counted(decode: Callable[[], Iterator[Block]]) -> tuple[int, Callable[[], Iterator[Block]]]:
    """How many samples there are, and what gives them: blocks that were kept, or of a long one those decoded again."""
    kept, n_samples = [], 0
    for block in decode():
        n_samples += len(block.samples)
        if n_samples <= _KEPT:
            kept.append(block)
    return n_samples, decode if n_samples > _KEPT else lambda: iter(kept)


def _what_libsndfile_cannot(data: Data, error: Exception, format_name: str | None = None) -> Iterator[Block]:
    try:
        yield from blocks_by_ffmpeg(data, format_name)
    except UnknownFormatError as unknown:
        # Of an MP3 that is none, libsndfile says that the file does not exist.
        said = "" if getattr(error, "code", None) == _NO_SUCH_FILE else f"libsndfile: {_said(error).rstrip('.')}; "
        raise AudioDecodingError(
            f"not audio that libsndfile or FFmpeg can read, or corrupt ({said}{unknown.reason})"
        ) from error


def _said(error: Exception) -> str:
    return str(getattr(error, "error_string", error))  # without the address of the bytes, which differs from run to run


def _lossy_tolerance(frames: int) -> float:
    return max(_LOSSY_SHARE * frames, _LOSSY_FRAME)


def _refuse_cut_off(file: soundfile.SoundFile, data: Data) -> None:
    notes = _SHORTER[file.format].findall(file.extra_info) if file.format in _SHORTER else []
    pairs = [(int(said), int(there)) for said, there in notes]
    if file.format == "NIST" and (match := _NIST_SAMPLES.search(data[:1024])):
        pairs = [(int(match[1]), file.frames)]
    for said, there in pairs:
        if there < (1 - _SIZE_TOLERANCE) * said and said < _UNKNOWN_SIZE:
            unit = "samples" if file.format == "NIST" else "bytes"
            raise AudioDecodingError(f"it is truncated: {there} of {said} {unit} are there")
    if file.format == "CAF":
        check_structure(data, "caf")
    if file.format == "VOC" and "truncated file" in file.extra_info:
        raise AudioDecodingError("it is truncated (libsndfile: seems to be a truncated file)")
