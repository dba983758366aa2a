"""A data set of clips as they are, for evaluation and ordinary training."""

import copy
from collections.abc import Sequence

from hf_gradalign.data.audio_dataset import AudioDataset, ModelItem


class ClipDataset(AudioDataset):
    """Each clip's leading window, repeated where the clip is shorter; the whole clip where no window is given.

    Items are `{"input_values": float32 (time,), "labels": int}` and always the same.
    """

    def __getitem__(self, index: int) -> ModelItem:
        """The clip at `index`.

        Raises:
            AudioDecodingError: if it cannot be decoded.
        """
        row = self._row(index)
        return self._item(self._fit(self._decode(index, row, 0.0), 0.0), row)

    def select(self, indices: Sequence[int]) -> "ClipDataset":
        """A data set of some of the clips, in this order."""
        selected = copy.copy(self)
        selected._dataset = self._dataset.select(list(indices))
        selected._kept, selected._kept_bytes = {}, 0
        return selected
