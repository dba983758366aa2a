"""What `ViewDataset` is for a data set, for a stream: each clip in several views, without a length or an index."""

from __future__ import annotations

import logging
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

from hf_gradalign.data.audio_dataset import ModelItem
from hf_gradalign.data.decoding import AudioDecodingError
from hf_gradalign.data.row_views import RowViews
from hf_gradalign.data.view_dataset import Transform

logger = logging.getLogger(__name__)

# Where a bad clip is met, an earlier one takes its place; with so many bad ones in a row something else is wrong.
_KEPT_ROWS = 16


class StreamedViewDataset(TorchIterableDataset):
    """Each clip of a stream in several views; items as those of `ViewDataset`.

    The stream is gone through again and again, shuffled anew each time (an epoch), and never ends: it takes a number of
    steps to train on it. Its shards are divided among the processes (`datasets.distributed.split_dataset_by_node`) and
    loader workers; where there are too few shards for the processes, each process reads everything and takes its share.

    What is drawn for a clip depends on (seed, epoch, utterance id) alone, and with `repeats` on its place in the
    stream too. The order depends on the seed, the epoch, and how many processes and workers there are: with as many, a
    resumed run goes on with the same items.

    Args:
        stream: with the columns of `STREAM_FEATURES`, as `stream_corpus` and `mix_streams` give it.
        views: as for `ViewDataset`.
        shuffle_buffer_size: clips from among which the next one is drawn, in encoded form, in each loader worker; 0
            leaves the order as it is.
        seed: of the order and of the views' draws, at least 0.
        process_index: which of the processes this one is.
        n_processes: how many processes share the stream.
        repeats: whether a clip may come more than once in an epoch, as in a weighted mix.
        options: as for `ViewDataset`: `sampling_rate` and the window, `rms_level`, `crop`, `label2id`, `augment`,
            `on_bad_audio` (with `skip` the last clip that could be decoded takes a bad one's place).

    Attributes:
        splits_by_process: True: a Trainer must not divide it among the processes once more.

    Raises:
        ValueError: if an argument is out of its range.
    """

    splits_by_process = True

    def __init__(
        self,
        stream: IterableDataset,
        views: Mapping[str, Transform | None],
        *,
        shuffle_buffer_size: int = 1000,
        seed: int = 0,
        process_index: int = 0,
        n_processes: int = 1,
        repeats: bool = False,
        **options: Any,
    ) -> None:
        if shuffle_buffer_size < 0:
            raise ValueError(f"shuffle_buffer_size must be at least 0, not {shuffle_buffer_size}.")
        self._views = RowViews(views, seed=seed, **options)
        self._repeats = repeats
        self._stream = stream
        self._shuffle_buffer_size = shuffle_buffer_size
        self._seed = seed
        self._process = {"rank": process_index, "world_size": n_processes}
        self._blank_batches = 0
        self._batch_size = 1

    @property
    def n_shards(self) -> int:
        """Into how many parts the stream divides for loader workers."""
        return self._order(0).num_shards

    def leave_blank(self, n_batches: int, batch_size: int) -> None:
        """Do not decode what a resumed run throws away: the first batches of this process are silence.

        Args:
            n_batches: how many batches the loader will drop.
            batch_size: clips a batch.
        """
        self._blank_batches, self._batch_size = n_batches, batch_size

    def __iter__(self) -> Iterator[dict[str, ModelItem]]:
        """Items without end.

        Raises:
            AudioDecodingError: at a clip that cannot be decoded, unless bad clips are skipped.
            ValueError: if there are no clips for this process.
        """
        blank = self._blank_items()
        recent: deque[tuple[dict[str, Any], list[int]]] = deque(maxlen=_KEPT_ROWS)
        silence: dict[str, ModelItem] | None = None
        for epoch in count():
            self._views.set_epoch(epoch)
            for position, row in enumerate(self._order(epoch)):
                key = [zlib.crc32(row["utterance_id"].encode()), *([position] if self._repeats else [])]
                if blank and silence is not None:
                    recent.append((row, key))
                    blank -= 1
                    yield silence
                    continue
                item = self._item(row, key, recent)
                if item is None:
                    continue  # nothing has been read yet that could take its place
                silence = silence or self._views.silence(item)
                yield silence if blank else item
                blank -= bool(blank)
            if silence is None:
                if get_worker_info() is None:
                    raise ValueError("The stream has no clips for this process.")
                return  # more workers than shards

    def _order(self, epoch: int) -> IterableDataset:
        """The part of the stream that is this process's, shuffled."""
        # Not by set_epoch, which sets the epoch of all loader workers, and each comes to its end at another time.
        stream = self._stream
        if self._shuffle_buffer_size:
            seed = int(np.random.SeedSequence([self._seed, epoch]).generate_state(1)[0])
            stream = stream.shuffle(seed=seed, buffer_size=self._shuffle_buffer_size)
        return split_dataset_by_node(stream, **self._process)

    def _item(
        self, row: dict[str, Any], key: list[int], recent: deque[tuple[dict[str, Any], list[int]]]
    ) -> dict[str, ModelItem] | None:
        try:
            item = self._views.of(row, key)
        except AudioDecodingError as error:
            self._views.report(error)
        else:
            recent.append((row, key))
            return item
        for earlier in reversed(list(recent)):
            try:
                return self._views.of(*earlier)
            except AudioDecodingError as error:
                self._views.report(error)
        if recent:
            raise AudioDecodingError(f"nor can the {len(recent)} clips before it", row["utterance_id"])
        return None

    def _blank_items(self) -> int:
        """How many items of this worker are to be silence: the loader takes a batch from each worker in turn."""
        worker = get_worker_info()
        workers = min(worker.num_workers, max(self.n_shards, 1)) if worker is not None else 1
        index = worker.id if worker is not None else 0
        return (self._blank_batches // workers + (index < self._blank_batches % workers)) * self._batch_size
