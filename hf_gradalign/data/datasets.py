"""Data sets that feed a model: `ClipDataset` for evaluation, `ViewDataset` and `StreamedViewDataset` for training."""

from __future__ import annotations

import copy
import operator
import zlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import torch
from datasets import Dataset, IterableDataset
from datasets.distributed import split_dataset_by_node
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import IterableDataset as TorchIterableDataset
from torch.utils.data import get_worker_info

from hf_gradalign.data.checking import BadAudioReport, OnBadAudio
from hf_gradalign.data.columns import with_encoded_audio
from hf_gradalign.data.decoding import AudioDecodingError
from hf_gradalign.data.view_maker import AugmentStage, ClipReader, CropMode, ModelItem, Transform, ViewMaker
from hf_gradalign.utils.loader_workers import shared_number

# Size of each loader worker's cache of decoded clips: enough for a small corpus, and small next to a model.
_CACHE_BYTES = 2**28
# Stop after this many consecutive failures: the disk is probably gone.
_MAX_CONSECUTIVE_BAD = 100
# In a stream, an earlier clip replaces a bad one; this many consecutive bad clips mean that something else is wrong.
_MAX_RECENT = 16
_COLUMNS = ("audio", "label", "utterance_id")


class AudioDataset(TorchDataset):
    """Base class of `ClipDataset` and `ViewDataset`. Decodes the clips of a corpus and caches them.

    Args:
        dataset: With the columns `audio` (encoded), `label` (0 spoof, 1 bonafide) and `utterance_id`, as `load_corpus`
            returns it.
        sampling_rate: The model's sampling rate in Hz.
        window_seconds: Length of every clip for the model in seconds.
        window_samples: The same in samples. Give one of the two, or neither for whole clips.
        rms_level: Scale every clip to this root mean square, in (0, 1]. If only the window is decoded, the window's
            level is used. None keeps the level.
        label2id: The model's id for each class, with keys in any spelling of spoof and bonafide. Defaults to 0 and 1.

    Attributes:
        sampling_rate: The model's sampling rate in Hz.
        window_samples: Length of every clip for the model in samples; None for whole clips.
        label2id: The labels of spoof and bonafide in the items. The trainer compares them with the model's.

    Raises:
        TypeError: If `dataset` is not a `datasets.Dataset`.
        ValueError: If a column is missing, both lengths are given, the length is less than a sample, the level is out
            of range, or `label2id` does not give each class its own id.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        sampling_rate: int,
        window_seconds: float | None = None,
        window_samples: int | None = None,
        rms_level: float | None = None,
        label2id: Mapping[str, int] | None = None,
    ) -> None:
        if not isinstance(dataset, Dataset):
            raise TypeError(
                f"dataset must be a datasets.Dataset, not {type(dataset).__name__}: choose a split of a DatasetDict, "
                "convert rows with Dataset.from_list or from_pandas, and use StreamedViewDataset for streams."
            )
        missing = [column for column in _COLUMNS if column not in dataset.column_names]
        if missing:
            raise ValueError(f"The data set lacks the columns {', '.join(missing)}; load_corpus provides them.")
        # Reading a row reads all of its columns, so keep only those that are needed.
        self._dataset = with_encoded_audio(dataset.with_format(None).select_columns(list(_COLUMNS)))
        self._clips = ClipReader(
            sampling_rate=sampling_rate,
            window_seconds=window_seconds,
            window_samples=window_samples,
            rms_level=rms_level,
            label2id=label2id,
        )
        self.sampling_rate = sampling_rate
        self.window_samples = self._clips.window_samples
        self.label2id = self._clips.label2id
        self._cache: dict[int, np.ndarray] = {}
        self._cache_bytes = 0

    def __len__(self) -> int:
        return len(self._dataset)

    def __getstate__(self) -> dict[str, Any]:
        # Spawned loader workers start with an empty cache.
        return {**self.__dict__, "_cache": {}, "_cache_bytes": 0}

    def _decode(self, index: int, row: Mapping[str, Any], position: float | None) -> np.ndarray:
        """Decode like `ClipReader.read`, with a cache for whole clips and leading windows, which every epoch needs."""
        is_constant = position is None or position == 0 or self.window_samples is None
        if is_constant and index in self._cache:
            return self._cache[index]
        samples = self._clips.read(row, position)
        if is_constant and self._cache_bytes + samples.nbytes <= _CACHE_BYTES:
            self._cache[index] = samples
            self._cache_bytes += samples.nbytes
        return samples


class ClipDataset(AudioDataset):
    """Clips for evaluation and ordinary training.

    An item is `{"input_values": float32 (time,), "labels": int}`: the clip's leading window, repeated if the clip is
    shorter, or the whole clip without a window. The arguments are those of `AudioDataset`.
    """

    def __getitem__(self, index: int) -> ModelItem:
        """Return the clip at `index`.

        Raises:
            AudioDecodingError: If it cannot be decoded.
        """
        row = self._dataset[index]
        return self._clips.item(self._clips.fit(self._decode(index, row, 0.0), 0.0), row)

    def select(self, indices: Sequence[int]) -> ClipDataset:
        """Return a data set of some of the clips, in this order."""
        selected = copy.copy(self)
        selected._dataset = self._dataset.select(list(indices))
        selected._cache, selected._cache_bytes = {}, 0
        return selected


class ViewDataset(AudioDataset):
    """Several views of each clip, for dual-path augmented training (arXiv 2509.20682, section on DPDA).

    An item is `{view: {"input_values": float32 (time,), "labels": int}}`. Item i of epoch e depends only on
    (seed, e, i), not on the order of access or on the loader workers. All views of an item show the same window of the
    clip, and a view's draws do not depend on the other views.

    Args:
        dataset: As for `AudioDataset`.
        views: A transform for each view's name, None for the unchanged clip. Called as
            `transform(samples, sample_rate=...)` with float32 samples of shape (time,), which it may change in place.
            Returns an array of shape (time,), of any length. Draws from the global generators of Python, NumPy and
            torch, as in audiomentations, are reproducible. Draws from a transform's own generator are not.
        sampling_rate: The model's sampling rate in Hz.
        window_seconds: Length of every clip for the model in seconds.
        window_samples: The same in samples. Give one of the two, or neither for whole clips.
        rms_level: Scale every clip to this root mean square before the transforms; None keeps the level. The effect of
            RawBoost depends on the level.
        crop: Which part of a longer clip to take: `random` (drawn per epoch) or `leading`.
        seed: At least 0.
        label2id: The model's id for each class. Defaults to 0 for spoof and 1 for bonafide.
        augment: What transforms see. `utterance`: the whole clip, before the crop, as in the published recipe.
            `window`: only the window, which is faster for long clips.
        on_bad_audio: What to do with a clip that cannot be decoded, if `check_audio` was not run before: `stop` raises,
            `skip` takes the next clip instead and warns.
        defer: Leave a RawBoost at the end of a view to the accelerator. The view's item then contains the clip before
            RawBoost (the whole clip if `augment` is `utterance`) and RawBoost's parameters under `deferred`.
            `DeferredAugmentation` applies them to batches. Needs a window.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        dataset: Dataset,
        views: Mapping[str, Transform | None],
        *,
        sampling_rate: int,
        window_seconds: float | None = None,
        window_samples: int | None = None,
        rms_level: float | None = None,
        crop: CropMode = "random",
        seed: int = 0,
        label2id: Mapping[str, int] | None = None,
        augment: AugmentStage = "utterance",
        on_bad_audio: OnBadAudio = "stop",
        defer: bool = False,
    ) -> None:
        super().__init__(
            dataset,
            sampling_rate=sampling_rate,
            window_seconds=window_seconds,
            window_samples=window_samples,
            rms_level=rms_level,
            label2id=label2id,
        )
        self._maker = ViewMaker(views, self._clips, crop=crop, seed=seed, augment=augment, defer=defer)
        self._bad_audio = BadAudioReport(on_bad_audio)
        # In shared memory, so that running loader workers see changes.
        self._epoch = shared_number(torch.int64)

    @property
    def epoch(self) -> int:
        """The epoch whose items are returned."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, counted from 0, including in running loader workers. The Trainer's loader calls this.

        Raises:
            ValueError: If `epoch` is negative.
        """
        if epoch < 0:
            raise ValueError(f"epoch must be at least 0, not {epoch}.")
        self._epoch.fill_(int(epoch))

    def __getitem__(self, index: int) -> dict[str, ModelItem]:
        """Return all views of the clip at `index`.

        Raises:
            AudioDecodingError: If the clip cannot be decoded; with `on_bad_audio` `skip`, if none after it can either.
            ValueError: If a transform returns anything but finite samples of shape (time,).
        """
        first = range(len(self))[operator.index(index)]  # -1 and the last index give the same item
        n_tries = min(len(self), _MAX_CONSECUTIVE_BAD)
        for ahead in range(n_tries):
            index = (first + ahead) % len(self)
            row = self._dataset[index]
            try:
                return self._maker.make(row, [self.epoch, index], partial(self._decode, index, row))
            except AudioDecodingError as error:
                self._bad_audio.report(error)
        raise AudioDecodingError(f"none of the {n_tries} clips from this one on can be decoded", f"clip {first}")


_Keyed = tuple[dict[str, Any], list[int]]
"""A row and the key of its draws, without the epoch."""


class StreamedViewDataset(TorchIterableDataset):
    """Several views of each clip of a stream, with items like those of `ViewDataset`.

    Iterates over the stream forever, in a new order per pass (an epoch): train on it for a number of steps. Processes
    (`datasets.distributed.split_dataset_by_node`) and loader workers share the stream's shards. If there are more
    processes than shards, each process reads everything and takes its share.

    The draws for a clip depend only on (seed, epoch, utterance id), and with `repeats` also on its position in the
    stream. The order depends on the seed, the epoch, and the number of processes and workers: with the same number, a
    resumed run continues with the same items.

    Args:
        stream: With the columns of `STREAM_FEATURES`, as `stream_corpus` and `mix_streams` return it.
        views: As for `ViewDataset`.
        shuffle_buffer_size: Number of encoded clips per loader worker to draw the next clip from; 0 keeps the order.
        seed: Seed of the order and of the views' draws, at least 0.
        process_index: Index of this process.
        n_processes: Number of processes that share the stream.
        repeats: Whether a clip may occur more than once per epoch, as in a weighted mix.
        sampling_rate: As for `ViewDataset`, like all further arguments.
        window_seconds: See above.
        window_samples: See above.
        rms_level: See above.
        label2id: See above.
        crop: See above.
        augment: See above.
        on_bad_audio: See above, but `skip` repeats the last clip that could be decoded.
        defer: See above.

    Attributes:
        splits_by_process: True, so that a Trainer does not divide the stream among the processes again.

    Raises:
        TypeError: If `stream` is not a `datasets.IterableDataset`.
        ValueError: If an argument is out of range.
    """

    splits_by_process = True

    def __init__(
        self,
        stream: IterableDataset,
        views: Mapping[str, Transform | None],
        *,
        sampling_rate: int,
        shuffle_buffer_size: int = 1000,
        seed: int = 0,
        process_index: int = 0,
        n_processes: int = 1,
        repeats: bool = False,
        window_seconds: float | None = None,
        window_samples: int | None = None,
        rms_level: float | None = None,
        label2id: Mapping[str, int] | None = None,
        crop: CropMode = "random",
        augment: AugmentStage = "utterance",
        on_bad_audio: OnBadAudio = "stop",
        defer: bool = False,
    ) -> None:
        if not isinstance(stream, IterableDataset):
            raise TypeError(
                f"stream must be a datasets.IterableDataset, not {type(stream).__name__}. ViewDataset takes a Dataset."
            )
        if shuffle_buffer_size < 0:
            raise ValueError(f"shuffle_buffer_size must be at least 0, not {shuffle_buffer_size}.")
        clips = ClipReader(
            sampling_rate=sampling_rate,
            window_seconds=window_seconds,
            window_samples=window_samples,
            rms_level=rms_level,
            label2id=label2id,
        )
        self.label2id = clips.label2id
        self._maker = ViewMaker(views, clips, crop=crop, seed=seed, augment=augment, defer=defer)
        self._bad_audio = BadAudioReport(on_bad_audio)
        self._repeats = repeats
        self._stream = stream
        self._shuffle_buffer_size = shuffle_buffer_size
        self._seed = seed
        self._process_index = process_index
        self._n_processes = n_processes
        self._blank_batches = 0
        self._batch_size = 1

    @property
    def n_shards(self) -> int:
        """The number of parts of the stream that loader workers can share."""
        return self._order(0).num_shards

    def leave_blank(self, n_batches: int, batch_size: int) -> None:
        """Replace the first batches of this process by silence, because a resumed run drops them.

        Args:
            n_batches: Number of batches that the loader will drop.
            batch_size: Clips per batch.
        """
        self._blank_batches, self._batch_size = n_batches, batch_size

    def __iter__(self) -> Iterator[dict[str, ModelItem]]:
        """Yield items without end.

        Raises:
            AudioDecodingError: At a clip that cannot be decoded, unless bad clips are skipped.
            ValueError: If there are no clips for this process.
        """
        blank = self._blank_items()
        recent: deque[_Keyed] = deque(maxlen=_MAX_RECENT)
        silence: dict[str, ModelItem] | None = None
        for epoch in count():
            for position, row in enumerate(self._order(epoch)):
                key = [zlib.crc32(row["utterance_id"].encode()), *([position] if self._repeats else [])]
                if blank and silence is not None:
                    recent.append((row, key))
                    blank -= 1
                    yield silence
                    continue
                item = self._item((row, key), epoch, recent)
                if item is None:
                    continue  # there is no earlier clip to replace it
                silence = silence or _silence(item)
                yield silence if blank else item
                blank -= bool(blank)
            if silence is None:
                if get_worker_info() is None:
                    raise ValueError("The stream has no clips for this process.")
                return  # more workers than shards

    def _order(self, epoch: int) -> IterableDataset:
        """Return the shuffled part of the stream for this process."""
        # set_epoch would change the epoch of all loader workers, but they finish an epoch at different times.
        stream = self._stream
        if self._shuffle_buffer_size:
            seed = int(np.random.SeedSequence([self._seed, epoch]).generate_state(1)[0])
            stream = stream.shuffle(seed=seed, buffer_size=self._shuffle_buffer_size)
        return split_dataset_by_node(stream, rank=self._process_index, world_size=self._n_processes)

    def _item(self, current: _Keyed, epoch: int, recent: deque[_Keyed]) -> dict[str, ModelItem] | None:
        """Return the views of a row or, if decoding fails, of the latest in `recent` that works; None without any."""
        for row, key in (current, *reversed(recent)):
            try:
                item = self._maker.make(row, [epoch, *key])
            except AudioDecodingError as error:
                self._bad_audio.report(error)
                continue
            if row is current[0]:
                recent.append(current)
            return item
        if recent:
            reason = f"neither this clip nor the {len(recent)} before it can be decoded"
            raise AudioDecodingError(reason, current[0]["utterance_id"])
        return None

    def _blank_items(self) -> int:
        """Return how many silent items this worker makes. The loader takes batches from its workers in turn."""
        worker = get_worker_info()
        workers = min(worker.num_workers, max(self.n_shards, 1)) if worker is not None else 1
        index = worker.id if worker is not None else 0
        return (self._blank_batches // workers + (index < self._blank_batches % workers)) * self._batch_size


def _silence(item: Mapping[str, ModelItem]) -> dict[str, ModelItem]:
    """Return an item of the same shape with silent samples."""
    return {view: {**inputs, "input_values": np.zeros_like(inputs["input_values"])} for view, inputs in item.items()}
