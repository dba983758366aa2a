"""Splits clips into chunks of windows, which loader workers decode and the model scores."""

import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import IterableDataset, get_worker_info
from transformers import SequenceFeatureExtractor
from transformers.feature_extraction_utils import FeatureExtractionMixin

from hf_gradalign.audio import AudioDecodingError
from hf_gradalign.audio.sound import MAX_CHANNELS
from hf_gradalign.data import ViewCollator
from hf_gradalign.data.checking import is_out_of_range, is_silent
from hf_gradalign.scoring.progress import ScoredPart
from hf_gradalign.scoring.windowing import ClipWindows, Windowing


def as_clips(clips: Any, sampling_rate: int | None = None) -> list[Any]:
    """Convert the clips that users pass to `SpoofScorer.score` to a list for a `ChunkDataset`.

    Args:
        clips: One clip or a sequence of clips: paths, encoded files' bytes, waveforms (NumPy, torch, lists), or
            mappings with `array` and `sampling_rate`, or with `bytes` or `path`. An array of numbers of any shape is
            one clip, and so is a list of numbers or of many short lists (samples of several channels). Any other list
            is a list of clips.
        sampling_rate: The waveforms' sampling rate in Hz.

    Raises:
        ValueError: If there is a number in place of a clip, or a sampling rate is not a positive whole number.
    """
    sampling_rate = _to_whole_rate(sampling_rate)
    if isinstance(clips, str | bytes | bytearray | os.PathLike | Mapping) or _is_waveform(clips):
        clips = [clips]
    clips = list(clips)
    for index, clip in enumerate(clips):
        if isinstance(clip, Real):
            raise ValueError(
                f"clip {index} is the number {clip}. Pass a waveform's rate as sampling_rate=..., or a clip as "
                '{"array": ..., "sampling_rate": ...}'
            )
    return [_as_clip(clip, sampling_rate) for clip in clips]


def _is_waveform(clips: Any) -> bool:
    if isinstance(clips, torch.Tensor):
        return True
    if isinstance(clips, np.ndarray):
        return clips.dtype.kind not in "OSU"  # arrays of paths, bytes or arrays are sequences of clips
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


def clip_name(clip: Any, index: int) -> str:
    """Return a clip's name for messages: its path, or its index without one."""
    path = clip.get("path") if isinstance(clip, Mapping) else clip
    return os.fspath(path) if isinstance(path, str | os.PathLike) else f"clip {index}"


def _as_clip(clip: Any, sampling_rate: int | None) -> Any:
    if hasattr(clip, "get_all_samples"):  # a torchcodec decoder, from a decoded column of `datasets`
        samples = clip.get_all_samples()
        return {"array": samples.data.numpy(), "sampling_rate": _to_whole_rate(samples.sample_rate)}
    if isinstance(clip, bytearray | memoryview):
        return bytes(clip)
    if isinstance(clip, torch.Tensor | np.ndarray) or (
        isinstance(clip, Sequence) and not isinstance(clip, str | bytes)
    ):
        return {"array": clip, "sampling_rate": sampling_rate}
    if isinstance(clip, Mapping) and clip.get("array") is not None:
        rate = _to_whole_rate(clip.get("sampling_rate"))
        return {**clip, "sampling_rate": sampling_rate if rate is None else rate}
    return clip


def _to_whole_rate(rate: Any) -> int | None:
    """Convert a sampling rate (also a whole float or a NumPy number) to an integer. None stays None."""
    if rate is None:
        return None
    if isinstance(rate, bool) or not isinstance(rate, Real) or not float(rate).is_integer() or rate <= 0:
        raise ValueError(f"sampling_rate must be a positive whole number, in Hz, such as 16000, not {rate!r}")
    return int(rate)


OwnedWindow = tuple[int, NDArray[np.float32]]
"""The index in the chunk of a window's clip, and the window's waveform."""

# Whole clips are batched by length, so a chunk has this many batches, to have clips to sort.
_BATCHES_OF_WHOLE_CLIPS = 8
# Number of samples that a loader worker decodes before it passes them on: 64 MB, or 17 minutes at 16 kHz.
_PIECE = 2**24
# Largest number of samples of whole clips in a forward pass, including padding.
_MAX_BATCH_SAMPLES = 2**24


@dataclass
class Chunk:
    """Consecutive clips of a corpus as model inputs, or a piece of them. "Index" is a clip's position in the chunk.

    Attributes:
        number: The chunk's number in the corpus.
        n_clips: The number of clips, including bad ones.
        batches: Model inputs, tensors of shape (windows, ...).
        owners: For each batch, the index of each window's clip.
        bad: The reason why a clip cannot be scored, by index.
        loud: The largest absolute value of clips with samples outside [-1, 1], by index.
        silent: Indices of clips in which all samples that the model gets are equal.
        is_last: Whether this is the chunk's last piece.
        first: The number of a piece's first window in the chunk.
        window_scores: Scores of the windows of earlier pieces.
        progress: For a piece that ends within a recording: the recording's index, the seconds of it that have been
            passed on, and its duration if known.
    """

    number: int
    n_clips: int
    batches: list[dict[str, torch.Tensor]] = field(default_factory=list)
    owners: list[NDArray[np.int64]] = field(default_factory=list)
    bad: dict[int, str] = field(default_factory=dict)
    loud: dict[int, float] = field(default_factory=dict)
    silent: set[int] = field(default_factory=set)
    is_last: bool = True
    first: int = 0
    window_scores: list[NDArray[np.float64]] = field(default_factory=list)
    progress: tuple[int, float, float | None] | None = None

    @classmethod
    def resumed(cls, part: ScoredPart, n_windows: int) -> "Chunk":
        """Return a chunk whose first windows were scored before."""
        scores = np.array([np.nan if score is None else score for score in part.scores[:n_windows]])
        owners = np.array(part.owners[:n_windows], dtype=np.int64)
        return cls(part.number, 0, owners=[owners], window_scores=[scores])

    def clip_scores(self, last_scores: NDArray[np.float64], windowing: Windowing) -> NDArray[np.float64]:
        """Combine the scores of all windows to one per clip. Clips without a finite score are marked as bad.

        Args:
            last_scores: Scores of the windows of the last piece.
            windowing: How to combine the scores.

        Returns:
            Shape (clips,). NaN for bad clips.
        """
        scores = np.full(self.n_clips, np.nan)
        if not self.owners:
            return scores
        by_window = np.concatenate([*self.window_scores, last_scores])
        owners = np.concatenate(self.owners)
        for index in np.unique(owners):
            if int(index) in self.bad:  # the end is bad, so the windows before it do not count
                continue
            scores[index] = windowing.combined(by_window[owners == index])
            if not np.isfinite(scores[index]):
                self.bad[int(index)] = f"the model gave a score that is not finite ({scores[index]})"
                scores[index] = np.nan
        return scores

    def pin_memory(self) -> "Chunk":
        """Move the batches to page-locked memory. The loader calls this if there is an accelerator."""
        self.batches = [{name: tensor.pin_memory() for name, tensor in batch.items()} for batch in self.batches]
        return self


class ChunkDataset:
    """Makes chunks of a sequence of clips. Which clips share a batch depends only on the clips and the batch size.

    Args:
        clips: Encoded audio (paths, bytes or `{"bytes", "path"}`), or `{"array", "sampling_rate"}`. Read in slices.
        feature_extractor: Makes the model's inputs.
        windowing: Which windows of a clip are scored.
        batch_size: Windows (or whole clips) per batch, at least 1.
        pads: Whether whole clips of different lengths can share a batch, with padding.
        rms_level: Scale clips to this root mean square first. None keeps their level.
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
        self._clips = clips
        self._collator = ViewCollator(feature_extractor)
        self._sampling_rate = cast(SequenceFeatureExtractor, feature_extractor).sampling_rate
        self._windowing = windowing
        self._batch_size = batch_size
        self._pads = pads
        self._rms_level = rms_level
        self.chunk_size = batch_size * (_BATCHES_OF_WHOLE_CLIPS if windowing.mode == "whole" else 1)

    def __len__(self) -> int:
        return -(-len(self._clips) // self.chunk_size)

    def bounds(self, number: int) -> tuple[int, int]:
        """Return the first clip of a chunk and one past its last."""
        return number * self.chunk_size, min((number + 1) * self.chunk_size, len(self._clips))

    def pieces(self, number: int, n_done: int = 0) -> Iterator[Chunk]:
        """Decode a chunk. Clips that cannot be decoded are marked as bad.

        Args:
            number: The chunk's number.
            n_done: Number of windows in the chunk that have been scored. Pieces with only such windows are skipped.

        Yields:
            The whole chunk, or several pieces if it has long recordings. If the end of a clip turns out to be bad,
            earlier pieces may contain windows of it. Their scores must be ignored.
        """
        start, stop = self.bounds(number)
        piece = Chunk(number, stop - start)
        windows: list[OwnedWindow] = []
        n_samples = n_given = 0
        is_whole = self._windowing.mode == "whole"
        for index, clip in enumerate(self._clips[start:stop]):
            clip_windows = ClipWindows(clip, self._sampling_rate, self._windowing, self._rms_level)
            has_signal = False
            try:
                for count, window in enumerate(clip_windows, 1):
                    windows.append((index, window))
                    has_signal = has_signal or not is_silent(window)
                    n_samples += len(window)
                    # Pieces end after full batches, so that batches do not depend on where pieces end.
                    if n_samples >= _PIECE and (is_whole or len(windows) % self._batch_size == 0):
                        piece.is_last = False
                        seconds = count * (self._windowing.hop_samples or len(window)) / self._sampling_rate
                        piece.progress = (index, seconds, clip_windows.seconds)
                        piece.first = n_given
                        n_given += len(windows)
                        if n_given > n_done:
                            yield self._fill(piece, windows)
                            piece = Chunk(number, stop - start)
                        else:  # facts about its clips go into the next piece
                            piece = Chunk(number, stop - start, bad=piece.bad, loud=piece.loud, silent=piece.silent)
                        windows, n_samples = [], 0
                if is_out_of_range(clip_windows.peak):
                    piece.loud[index] = clip_windows.peak
                if not has_signal:
                    piece.silent.add(index)
            except AudioDecodingError as error:
                piece.bad[index] = error.reason
                windows = [owned for owned in windows if owned[0] != index]
                n_samples = sum(len(window) for _, window in windows)
        piece.first = n_given
        yield self._fill(piece, windows)

    def _fill(self, piece: Chunk, windows: list[OwnedWindow]) -> Chunk:
        if self._windowing.mode == "whole":
            windows.sort(key=lambda owned: len(owned[1]))  # similar lengths need little padding
        for batch in self._batches(windows):
            piece.batches.append(self._collator.model_inputs([window for _, window in batch]))
            piece.owners.append(np.array([index for index, _ in batch], dtype=np.int64))
        return piece

    def _batches(self, windows: list[OwnedWindow]) -> Iterator[list[OwnedWindow]]:
        batch: list[OwnedWindow] = []
        for window in windows:
            fits = not batch or self._pads or len(window[1]) == len(batch[0][1])
            if self._windowing.mode == "whole" and (len(batch) + 1) * len(window[1]) > _MAX_BATCH_SAMPLES:
                fits = not batch
            if len(batch) == self._batch_size or not fits:
                yield batch
                batch = []
            batch.append(window)
        if batch:
            yield batch


class ChunkPieces(IterableDataset):
    """Iterates over the pieces of chunks. Loader workers take turns at the chunks.

    Args:
        chunks: The chunks.
        numbers: The numbers of the chunks, in order.
        n_done: The number of windows that have been scored, for chunks with any.
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


def ignore_interrupts(worker: int) -> None:
    """Ignore SIGINT in a loader worker, which would print a traceback on Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
