"""What the data sets that feed a model share: read a row, decode its clip, bring it to the window, name its label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from datasets import Dataset
from torch.utils.data import Dataset as TorchDataset

from hf_gradalign.data.cropping import Window, crop, repeat_pad
from hf_gradalign.data.decoding import decode_audio
from hf_gradalign.data.encoded_audio import with_encoded_audio
from hf_gradalign.data.labels import LABEL_NAMES, canonical_label
from hf_gradalign.data.level import scale_to_rms

ModelItem = dict[str, Any]
"""`{"input_values": float32 (time,), "labels": int}`."""

# Enough for a small corpus to be decoded once, and little beside a model; each loader worker has its own.
_KEPT_BYTES = 2**28
_COLUMNS = ("audio", "label", "utterance_id")


class AudioDataset(TorchDataset):
    """Base of `ClipDataset` and `ViewDataset`.

    Args:
        dataset: with the columns `audio` (encoded), `label` (0 spoof, 1 bonafide) and `utterance_id`, as `load_corpus`
            gives it.
        sampling_rate: the rate that the model wants, in Hz.
        window_seconds: the length of every clip for the model, in seconds.
        window_samples: the same in samples; give one of the two, or neither for whole clips.
        rms_level: bring every clip (or, where only the window is decoded, the window) to this root mean square first;
            None leaves the level alone.
        label2id: the model's number for each class, keys in any spelling of spoof and bonafide; by default 0 and 1.

    Attributes:
        window_samples: the length of every clip for the model in samples, None for whole clips.

    Raises:
        ValueError: if a column is missing, both lengths are given, the length is less than a sample, the level is out
            of its range, or `label2id` does not give each class its number.
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
        missing = [column for column in _COLUMNS if column not in dataset.column_names]
        if missing:
            raise ValueError(f"The data set lacks the columns {', '.join(missing)}; load_corpus provides them.")
        # Only what is needed: every row is read with all of its columns.
        self._dataset = with_encoded_audio(dataset.with_format(None).select_columns(list(_COLUMNS)))
        if rms_level is not None and not 0 < rms_level <= 1:
            raise ValueError(f"rms_level must be above 0 and at most 1, not {rms_level}.")
        self.sampling_rate = sampling_rate
        self._rms_level = rms_level
        self._kept: dict[int, np.ndarray] = {}
        self._kept_bytes = 0
        self.window_samples = _window_samples(sampling_rate, window_seconds, window_samples)
        self._label_ids = _label_ids(label2id)

    def __len__(self) -> int:
        return len(self._dataset)

    def __getstate__(self) -> dict[str, Any]:
        # What was decoded is not sent to loader workers that are spawned.
        return {**self.__dict__, "_kept": {}, "_kept_bytes": 0}

    def _row(self, index: int) -> dict[str, Any]:
        return self._dataset[index]

    def _decode(self, index: int, row: dict[str, Any], position: float | None) -> np.ndarray:
        """The clip, shape (time,): the window at `position`, or all of it for None or where there is no window.

        Read-only. Whole clips and leading windows are the same in every epoch, and are kept as far as they fit.
        """
        stays = position is None or position == 0 or self.window_samples is None
        if stays and index in self._kept:
            return self._kept[index]
        samples = self._read(row, position)
        samples.setflags(write=False)
        if stays and self._kept_bytes + samples.nbytes <= _KEPT_BYTES:
            self._kept[index] = samples
            self._kept_bytes += samples.nbytes
        return samples

    def _read(self, row: dict[str, Any], position: float | None) -> np.ndarray:
        window = None
        if position is not None and self.window_samples is not None:
            window = Window(self.window_samples, position)
        samples = decode_audio(row["audio"], self.sampling_rate, window=window, name=row["utterance_id"])
        return samples if self._rms_level is None else scale_to_rms(samples, self._rms_level)

    def _fit(self, samples: np.ndarray, position: float) -> np.ndarray:
        """Crop or repeat to the window's length, where there is one."""
        if self.window_samples is None:
            return samples
        return repeat_pad(crop(samples, Window(self.window_samples, position)), self.window_samples)

    def _item(self, samples: np.ndarray, row: dict[str, Any]) -> ModelItem:
        # A copy: views must not share memory, nor a window keep the whole clip alive.
        return {"input_values": samples.copy(), "labels": self._label_ids[row["label"]]}


def _window_samples(sampling_rate: int, seconds: float | None, samples: int | None) -> int | None:
    if seconds is not None and samples is not None:
        raise ValueError("Give window_seconds or window_samples, not both.")
    if seconds is not None:
        samples = round(seconds * sampling_rate)
    if samples is not None and samples < 1:
        raise ValueError(f"The window must be at least one sample long, not {samples}.")
    return samples


def _label_ids(label2id: Mapping[str, int] | None) -> tuple[int, ...]:
    """The model's number for each of LABEL_NAMES."""
    if label2id is None:
        return tuple(range(len(LABEL_NAMES)))
    ids = {canonical_label(name): int(number) for name, number in label2id.items()}
    if set(ids) != set(LABEL_NAMES) or len(label2id) != len(LABEL_NAMES) or len(set(ids.values())) != len(LABEL_NAMES):
        raise ValueError(f"label2id must give spoof and bonafide a number each, not {dict(label2id)}.")
    return tuple(ids[name] for name in LABEL_NAMES)
