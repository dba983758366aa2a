"""Read a sound file, or a window of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from itertools import chain, groupby
from pathlib import Path

import numpy as np
import soundfile

from hf_gradalign.audio.errors import AudioDecodingError
from hf_gradalign.audio.mp3 import measure_mp3
from hf_gradalign.audio.reader import Bounds, File, SoundReader, opened_file
from hf_gradalign.audio.recordings import find_recordings
from hf_gradalign.audio.resampling import resample_blocks
from hf_gradalign.audio.sound import Block, Sound


def read_sound(source: str | Path | bytes, bounds: Bounds | None = None, bounds_rate: int | None = None) -> Sound:
    """Read a file to its end, or a window of it.

    Lengths that a header only claims are not believed: MP3s without an Xing or Info header, WAV files that were
    written to a pipe, and files that hold several recordings are read to the end of the file.

    Args:
        source: the file's path, or its bytes; at least one.
        bounds: the window wanted. It is read alone where the format can seek to a sample.
        bounds_rate: the rate that the window's bounds are for, in Hz, and a window that is read alone is at; None for
            the file's.

    Returns:
        At least one sample.

    Raises:
        AudioDecodingError: if it is no audio, corrupt, truncated or empty, or its header contradicts what is there.
        MemoryError: if it does not fit in memory.
        OSError: if the file cannot be read.
    """
    with open_sound(source) as sound:
        if bounds is not None and (window := sound.window(bounds, bounds_rate)) is not None:
            return window
        blocks = SteadyBlocks(sound.blocks())
        samples = list(blocks)
        return Sound(
            samples[0] if len(samples) == 1 else np.concatenate(samples), blocks.rate, False, blocks.are_floats
        )


@contextmanager
def open_sound(source: str | Path | bytes) -> Iterator[SoundReader]:
    """Open a file to read it block by block, or a window of it.

    Raises:
        AudioDecodingError: as `read_sound`, which errors at its end excepted.
        OSError: if the file cannot be read.
    """
    with (
        nullcontext(File(source)) if isinstance(source, bytes) else opened_file(source) as file,
        closing(SoundReader(file)) as reader,
    ):
        yield reader


class SteadyBlocks:
    """The samples of blocks, all at the rate of the first, and what is known of them so far.

    Args:
        blocks: as a `SoundReader` gives them.

    Attributes:
        rate: in Hz.
        are_floats: whether any were stored as floating-point numbers, which can lie outside [-1, 1].
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


def unheard_by_libsndfile(path: str | Path) -> str | None:
    """Why libsndfile alone would read only a part of a file that it can open; None where it reads all of it."""
    with opened_file(path) as file, soundfile.SoundFile(file.path) as sound_file:
        try:
            recordings, _ = file.measured(find_recordings)
        except AudioDecodingError as error:
            return error.reason
        if len(recordings) > 1:
            return f"libsndfile reads the first of its {len(recordings)} recordings only"
        if sound_file.format == "MP3" and sound_file.frames < file.measured(measure_mp3).least:
            return "libsndfile reads a part of it only, since no header says how long it is"
    return None
