"""`ViewDataset` for streams, which have neither a length nor indices."""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

import numpy as np
from datasets import IterableDataset
from datasets.distributed import split_dataset_by_node
from torch.utils.data import IterableDataset as TorchIterableDataset
from torch.utils.data import get_worker_info

from hf_gradalign.data.checking import BadAudioReport, OnBadAudio
from hf_gradalign.data.decoding import AudioDecodingError
from hf_gradalign.data.view_maker import AugmentStage, ClipReader, ModelItem, Transform, ViewMaker
from hf_gradalign.data.windows import CropMode

# An earlier clip replaces a bad one; this many consecutive bad clips mean that something else is wrong.
_MAX_RECENT = 16

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
        repeats: Whether a clip may come more than once per epoch, as in a weighted mix.
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
        splits_by_process: True: a Trainer must not divide it among the processes again.

    Raises:
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
        if shuffle_buffer_size < 0:
            raise ValueError(f"shuffle_buffer_size must be at least 0, not {shuffle_buffer_size}.")
        clips = ClipReader(
            sampling_rate=sampling_rate,
            window_seconds=window_seconds,
            window_samples=window_samples,
            rms_level=rms_level,
            label2id=label2id,
        )
        self._maker = ViewMaker(views, clips, crop=crop, seed=seed, augment=augment, defer=defer)
        self._bad_audio = BadAudioReport(on_bad_audio)
        self._repeats = repeats
        self._stream = stream
        self._shuffle_buffer_size = shuffle_buffer_size
        self._seed = seed
        self._process = {"rank": process_index, "world_size": n_processes}
        self._blank_batches = 0
        self._batch_size = 1

    @property
    def n_shards(self) -> int:
        """The number of parts of the stream that loader workers can share."""
        return self._order(0).num_shards

    def leave_blank(self, n_batches: int, batch_size: int) -> None:
        """Replace this process' first batches by silence: a resumed run drops them, so decoding them is a waste.

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
                    continue  # no earlier clip could replace it
                silence = silence or _silence(item)
                yield silence if blank else item
                blank -= bool(blank)
            if silence is None:
                if get_worker_info() is None:
                    raise ValueError("The stream has no clips for this process.")
                return  # more workers than shards

    def _order(self, epoch: int) -> IterableDataset:
        """The shuffled part of the stream for this process."""
        # Not by set_epoch, which would change the epoch of all loader workers: they finish an epoch at different times.
        stream = self._stream
        if self._shuffle_buffer_size:
            seed = int(np.random.SeedSequence([self._seed, epoch]).generate_state(1)[0])
            stream = stream.shuffle(seed=seed, buffer_size=self._shuffle_buffer_size)
        return split_dataset_by_node(stream, **self._process)

    def _item(self, current: _Keyed, epoch: int, recent: deque[_Keyed]) -> dict[str, ModelItem] | None:
        """The views of a row, or else of the latest one in `recent` that can be decoded; None without any."""
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
            raise AudioDecodingError(f"nor can the {len(recent)} clips before it", current[0]["utterance_id"])
        return None

    def _blank_items(self) -> int:
        """The number of silent items of this worker. The loader takes batches from its workers in turn."""
        worker = get_worker_info()
        workers = min(worker.num_workers, max(self.n_shards, 1)) if worker is not None else 1
        index = worker.id if worker is not None else 0
        return (self._blank_batches // workers + (index < self._blank_batches % workers)) * self._batch_size


def _silence(item: Mapping[str, ModelItem]) -> dict[str, ModelItem]:
    """An item of the same form with silent samples."""
    return {view: {**inputs, "input_values": np.zeros_like(inputs["input_values"])} for view, inputs in item.items()}
