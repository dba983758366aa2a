"""What is scored: given clips, and windows of recordings in chunks."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import IterableDataset, get_worker_info
from transformers.feature_extraction_utils import FeatureExtractionMixin

from hf_gradalign.audio import AudioDecodingError
from hf_gradalign.audio.sound import MAX_CHANNELS
from hf_gradalign.data import ViewCollator
from hf_gradalign.data.checking import is_out_of_range
from hf_gradalign.scoring.windowing import ClipWindows, Windowing


def as_clips(clips: Any, sampling_rate: int | None = None) -> list[Any]:
    """A list of clips that a `ChunkDataset` takes.

    Args:
        clips: A sequence of clips, or one: paths, encoded files' bytes, waveforms (NumPy, torch, lists), or mappings
            with `array` and `sampling_rate`, or with `bytes` or `path`. An array of numbers is one clip, whatever its
            shape; so is a list of numbers, and one of many short lists (a clip by samples and channels). Any other
            list has a clip in each place.
        sampling_rate: Of the waveforms, in Hz.

    Raises:
        ValueError: If there is a number where a clip should be.
    """
    if isinstance(clips, str | bytes | bytearray | os.PathLike | Mapping) or _is_waveform(clips):
        clips = [clips]
    clips = list(clips)
    for place, clip in enumerate(clips):
        if isinstance(clip, Real):
            raise ValueError(
                f"clip {place} is the number {clip}. Give a waveform's rate as sampling_rate=..., or a clip as "
                '{"array": ..., "sampling_rate": ...}'
            )
    return [_as_clip(clip, sampling_rate) for clip in clips]


def _is_waveform(clips: Any) -> bool:
    if isinstance(clips, torch.Tensor):
        return True
    if isinstance(clips, np.ndarray):
        return clips.dtype.kind not in "OSU"  # arrays of paths, of bytes and of arrays are sequences
    if not isinstance(clips, list | tuple) or not clips:
        return False
    if all(isinstance(value, Real) for value in clips):
        return True
    return len(clips) > MAX_CHANNELS and all(
        isinstance(values, list | tuple)
        and 0 < len(values) <= MAX_CHANNELS
        and all(isinstance(value, Real) for value in values)
        for values in clips
    )


def name_of(clip: Any, place: int) -> str:
    """How a clip is called in messages: by its path, or else by its place."""
    path = clip.get("path") if isinstance(clip, Mapping) else clip
    return os.fspath(path) if isinstance(path, str | os.PathLike) else f"clip {place}"


def _as_clip(clip: Any, sampling_rate: int | None) -> Any:
    if hasattr(clip, "get_all_samples"):  # a torchcodec decoder, as datasets gives it for a decoded column
        samples = clip.get_all_samples()
        return {"array": samples.data.numpy(), "sampling_rate": samples.sample_rate}
    if isinstance(clip, bytearray | memoryview):
        return bytes(clip)
    if isinstance(clip, torch.Tensor | np.ndarray) or (
        isinstance(clip, Sequence) and not isinstance(clip, str | bytes)
    ):
        return {"array": clip, "sampling_rate": sampling_rate}
    return clip


OwnedWindow = tuple[int, NDArray[np.float32]]
"""The place in a chunk of the clip that a waveform is of, and the waveform."""

# Whole clips are batched by length, for which there must be some to choose from.
_BATCHES_OF_WHOLE_CLIPS = 8
# Samples that a loader worker decodes before it hands them on: 64 MB, or 17 minutes at 16 kHz.
_PIECE = 2**24
# Samples of whole clips, padding included, that share a forward pass.
_MOST_IN_A_BATCH = 2**24


@dataclass
class Chunk:
    """Some neighboring clips of a corpus, as the model takes them, or a piece of them.

    Attributes:
        number: Place of the chunk in the corpus.
        n_clips: How many clips it has, bad ones included.
        batches: Model inputs, tensors of shape (windows, ...).
        owners: For each batch, the place in the chunk of the clip that each window is of.
        bad: What is wrong with clips that cannot be scored, by their place in the chunk.
        loud: Largest absolute value of clips that have samples outside [-1, 1], by their place in the chunk.
        is_last: Whether no further piece of the chunk follows.
        first: The place in the chunk of a piece's first window.
        window_scores: Scores of the windows of earlier pieces.
        progress: Of a piece that ends within a recording: the recording's place in the chunk, how many seconds of it
            have been given, and how many it has, where that is known.
    """

    number: int
    n_clips: int
    batches: list[dict[str, torch.Tensor]] = field(default_factory=list)
    owners: list[NDArray[np.int64]] = field(default_factory=list)
    bad: dict[int, str] = field(default_factory=dict)
    loud: dict[int, float] = field(default_factory=dict)
    is_last: bool = True
    first: int = 0
    window_scores: list[NDArray[np.float64]] = field(default_factory=list)
    progress: tuple[int, float, float | None] | None = None

    def pin_memory(self) -> "Chunk":
        """In page-locked memory; called by the loader where there is an accelerator."""
        self.batches = [{name: tensor.pin_memory() for name, tensor in batch.items()} for batch in self.batches]
        return self


class ChunkDataset:
    """Chunks of a sequence of clips; which clips share a batch depends on the clips and the batch size alone.

    Args:
        clips: Encoded audio (paths, bytes or `{"bytes", "path"}`), or `{"array", "sampling_rate"}`; by slices.
        feature_extractor: Makes the model's inputs.
        windowing: What the model hears of a clip.
        batch_size: Windows (or whole clips) a batch, at least 1.
        pads: Whether whole clips of different lengths may share a batch, padded; else only those of one length do.
        rms_level: Bring what is decoded to this root mean square first; None leaves levels alone.
    """

    def __init__(
        self,
        clips: Sequence[Any],
        *,
        feature_extractor: FeatureExtractionMixin,
        windowing: Windowing,
        batch_size: int,
        pads: bool = False,
        rms_level: float | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        self._clips = clips
        self._collate = ViewCollator(feature_extractor)
        self._sampling_rate = feature_extractor.sampling_rate
        self._windowing = windowing
        self._batch_size = batch_size
        self._pads = pads
        self._rms_level = rms_level
        self.chunk_size = batch_size * (_BATCHES_OF_WHOLE_CLIPS if windowing.mode == "whole" else 1)

    def __len__(self) -> int:
        return -(-len(self._clips) // self.chunk_size)

    def bounds(self, number: int) -> tuple[int, int]:
        """First clip of a chunk and one past its last."""
        return number * self.chunk_size, min((number + 1) * self.chunk_size, len(self._clips))

    def pieces(self, number: int, n_done: int = 0) -> Iterator[Chunk]:
        """Decode a chunk; clips that cannot be decoded are noted.

        Args:
            number: Of the chunk.
            n_done: Windows that have been scored already: those of its first pieces, which are not given again.

        Yields:
            All of it at once, or, where it has long recordings, piece by piece. Of a clip that turns out to be bad at
            its end, earlier pieces have windows; they do not count.
        """
        start, stop = self.bounds(number)
        piece = Chunk(number, stop - start)
        windows: list[OwnedWindow] = []
        n_samples = n_given = 0
        is_whole = self._windowing.mode == "whole"
        for place, clip in enumerate(self._clips[start:stop]):
            heard = ClipWindows(clip, self._sampling_rate, self._windowing, self._rms_level)
            try:
                for count, window in enumerate(heard, 1):
                    windows.append((place, window))
                    n_samples += len(window)
                    # Only full batches, so that which windows share one does not depend on where pieces end.
                    if n_samples >= _PIECE and (is_whole or len(windows) % self._batch_size == 0):
                        piece.is_last = False
                        seconds = count * (self._windowing.hop_samples or len(window)) / self._sampling_rate
                        piece.progress = (place, seconds, heard.seconds)
                        piece.first = n_given
                        n_given += len(windows)
                        if n_given > n_done:
                            yield self._filled(piece, windows)
                            piece = Chunk(number, stop - start)
                        else:  # what was found out about its clips goes with the next one
                            piece = Chunk(number, stop - start, bad=piece.bad, loud=piece.loud)
                        windows, n_samples = [], 0
                if is_out_of_range(heard.peak):
                    piece.loud[place] = heard.peak
            except AudioDecodingError as error:
                piece.bad[place] = error.reason
                windows = [owned for owned in windows if owned[0] != place]
                n_samples = sum(len(window) for _, window in windows)
        piece.first = n_given
        yield self._filled(piece, windows)

    def _filled(self, piece: Chunk, windows: list[OwnedWindow]) -> Chunk:
        if self._windowing.mode == "whole":
            windows.sort(key=lambda owned: len(owned[1]))  # clips of like lengths need little padding
        for batch in self._batches(windows):
            inputs = self._collate([{"input_values": window, "labels": 0} for _, window in batch])
            inputs.pop("labels")
            piece.batches.append(inputs)
            piece.owners.append(np.array([place for place, _ in batch], dtype=np.int64))
        return piece

    def _batches(self, windows: list[OwnedWindow]) -> Iterator[list[OwnedWindow]]:
        batch: list[OwnedWindow] = []
        for window in windows:
            fits = not batch or self._pads or len(window[1]) == len(batch[0][1])
            if self._windowing.mode == "whole" and (len(batch) + 1) * len(window[1]) > _MOST_IN_A_BATCH:
                fits = not batch
            if len(batch) == self._batch_size or not fits:
                yield batch
                batch = []
            batch.append(window)
        if batch:
            yield batch


class ChunkPieces(IterableDataset):
    """The pieces of some chunks, one chunk after the other; loader workers take turns at the chunks.

    Args:
        chunks: The chunks.
        numbers: Which of them, in this order.
        n_done: How many windows of a chunk have been scored already, where there are any.
    """

    def __init__(self, chunks: ChunkDataset, numbers: Sequence[int], n_done: Mapping[int, int]) -> None:
        self._chunks = chunks
        self._numbers = numbers
        self._n_done = n_done

    def __iter__(self) -> Iterator[Chunk]:
        worker = get_worker_info()
        mine = self._numbers if worker is None else self._numbers[worker.id :: worker.num_workers]
        for number in mine:
            yield from self._chunks.pieces(number, self._n_done.get(number, 0))
