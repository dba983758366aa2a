"""Views of rows that come without an index, for streams."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from datasets import Dataset

from hf_gradalign.data.audio_dataset import ModelItem
from hf_gradalign.data.decoding import AudioDecodingError
from hf_gradalign.data.view_dataset import Transform, ViewDataset


class RowViews(ViewDataset):
    """The views of any row, seeded by a key in place of an index, and with an epoch of each process's own.

    Args:
        views: as for `ViewDataset`.
        options: as for `ViewDataset`.
    """

    def __init__(self, views: Mapping[str, Transform | None], **options: Any) -> None:
        nothing = {"audio": [], "label": [], "utterance_id": []}
        super().__init__(Dataset.from_dict(nothing), views, **options)
        self._own_epoch = 0

    @property
    def epoch(self) -> int:
        """The epoch whose views are given."""
        return self._own_epoch

    def set_epoch(self, epoch: int) -> None:
        """Go to an epoch."""
        self._own_epoch = epoch  # in this worker alone: each comes to the end of its part at another time

    def of(self, row: dict[str, Any], key: list[int]) -> dict[str, ModelItem]:
        """All views of a row.

        Raises:
            AudioDecodingError: if it cannot be decoded.
        """
        return self._views_of(key, row)

    def report(self, error: AudioDecodingError) -> None:
        """Raise, or warn, as `on_bad_audio` says."""
        self._report.bad(error)

    def silence(self, item: dict[str, ModelItem]) -> dict[str, ModelItem]:
        """An item of the same form with nothing to hear."""
        return {
            view: {**inputs, "input_values": np.zeros_like(inputs["input_values"])} for view, inputs in item.items()
        }

    def _decode(self, index: Any, row: dict[str, Any], position: float | None) -> np.ndarray:
        samples = self._read(row, position)  # nothing is kept: a clip comes again after all others
        samples.setflags(write=False)
        return samples

    def _item_seed(self, index: Any, view: str | None = None) -> np.random.SeedSequence:
        spawn_key = () if view is None else (zlib.crc32(view.encode()),)
        return np.random.SeedSequence([self._seed, self.epoch, *index], spawn_key=spawn_key)
