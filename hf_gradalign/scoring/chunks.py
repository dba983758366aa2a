"""The corpus in chunks: what a loader worker decodes and batches at a time, and what is written at a time."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset
from transformers.feature_extraction_utils import FeatureExtractionMixin

from hf_gradalign.audio import AudioDecodingError, resample_clip, sound_of_array
from hf_gradalign.data import ViewCollator
from hf_gradalign.data.decoding import DecodedClip, decode_clip
from hf_gradalign.data.level import scale_to_rms
from hf_gradalign.data.out_of_range import is_out_of_range
from hf_gradalign.scoring.windowing import Windowing

OwnedWindow = tuple[int, NDArray[np.float32]]
"""The place in a chunk of the clip that a waveform is of, and the waveform."""

# Whole clips are batched by length, for which there must be some to choose from.
_BATCHES_OF_WHOLE_CLIPS = 8


@dataclass
class Chunk:
    """Some neighbouring clips of a corpus, as the model takes them.

    Attributes:
        number: Place of the chunk in the corpus.
        n_clips: How many clips it has, bad ones included.
        batches: Model inputs, tensors of shape (windows, ...).
        owners: For each batch, the place in the chunk of the clip that each window is of.
        bad: What is wrong with clips that cannot be scored, by their place in the chunk.
        loud: Largest absolute value of clips that have samples outside [-1, 1], by their place in the chunk.
    """

    number: int
    n_clips: int
    batches: list[dict[str, torch.Tensor]] = field(default_factory=list)
    owners: list[NDArray[np.int64]] = field(default_factory=list)
    bad: dict[int, str] = field(default_factory=dict)
    loud: dict[int, float] = field(default_factory=dict)

    def pin_memory(self) -> "Chunk":
        """In page-locked memory; called by the loader where there is an accelerator."""
        self.batches = [{name: tensor.pin_memory() for name, tensor in batch.items()} for batch in self.batches]
        return self


class ChunkDataset(Dataset):
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

    def __getitem__(self, number: int) -> Chunk:
        """Decode a chunk; clips that cannot be decoded are noted and left out."""
        start, stop = self.bounds(number)
        chunk = Chunk(number, stop - start)
        windows: list[OwnedWindow] = []
        for place, clip in enumerate(self._clips[start:stop]):
            try:
                decoded = self._decode(clip)
                windows += [(place, window) for window in self._windowing.cut(decoded.samples)]
                if is_out_of_range(decoded.peak):
                    chunk.loud[place] = decoded.peak
            except AudioDecodingError as error:
                chunk.bad[place] = error.reason
        if self._windowing.mode == "whole":
            windows.sort(key=lambda owned: len(owned[1]))  # clips of like lengths need little padding
        for batch in self._batches(windows):
            inputs = self._collate([{"input_values": window, "labels": 0} for _, window in batch])
            inputs.pop("labels")
            chunk.batches.append(inputs)
            chunk.owners.append(np.array([place for place, _ in batch], dtype=np.int64))
        return chunk

    def _batches(self, windows: list[OwnedWindow]) -> Iterator[list[OwnedWindow]]:
        batch: list[OwnedWindow] = []
        for window in windows:
            fits = not batch or self._pads or len(window[1]) == len(batch[0][1])
            if len(batch) == self._batch_size or not fits:
                yield batch
                batch = []
            batch.append(window)
        if batch:
            yield batch

    def _decode(self, clip: Any) -> DecodedClip:
        if isinstance(clip, Mapping) and clip.get("array") is not None:
            sound = sound_of_array(clip["array"], clip.get("sampling_rate") or self._sampling_rate)
            decoded = DecodedClip(resample_clip(sound.samples, sound.rate, self._sampling_rate), sound.peak)
        else:
            decoded = decode_clip(clip, self._sampling_rate, window=self._windowing.decoded)
        if self._rms_level is None:
            return decoded
        return DecodedClip(scale_to_rms(decoded.samples, self._rms_level), decoded.peak)
