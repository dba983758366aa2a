"""What is done to a stream row by row: the common form, a corpus' name, a class, a subset. All of it can be pickled."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import pyarrow as pa
from datasets import Audio, ClassLabel, Dataset, Features, IterableDataset, Value

from hf_gradalign.data.common_form import ID_COLUMN
from hf_gradalign.data.corpora.arena import read_notes
from hf_gradalign.data.encoded_audio import ENCODED, encode_clip, sample_type
from hf_gradalign.data.errors import CorpusError
from hf_gradalign.data.labels import map_labels
from hf_gradalign.data.utterance_ids import ids_as_text

STREAM_FEATURES = Features({"audio": ENCODED, "label": Value("int64"), "utterance_id": Value("string")})
"""The columns of a stream."""


def without_decoding(stream: IterableDataset) -> IterableDataset:
    """The stream with columns of audio as `{"bytes", "path"}`, whatever they were."""
    for name, kind in features_of(stream).items():
        if isinstance(kind, Audio):
            stream = stream.cast_column(name, ENCODED)
    return stream


def features_of(stream: IterableDataset) -> Features:
    """A stream's columns; where the source does not tell, its first row's.

    Raises:
        CorpusError: if there is no row.
    """
    if stream.features is not None:
        return stream.features
    first = next(iter(stream), None)
    if first is None:
        raise CorpusError("There is nothing in the stream.")
    return Dataset.from_list([dict(first)]).features


class CommonForm:
    """One row of a stream, from whatever its source calls what."""

    def __init__(
        self,
        shown: str,
        columns: Mapping[str, str | None],
        features: Features,
        label_map: Mapping[str, str] | None,
        is_arena: bool,
    ) -> None:
        self._shown = shown
        self._audio_column = columns["audio"]
        self._label_column = columns["label"]
        self._id_column = columns["utterance_id"] or ID_COLUMN
        self._sample_type = sample_type(features, self._audio_column)
        label = features[self._label_column]
        self._names = tuple(label.names) if isinstance(label, ClassLabel) else None
        self._id_feature = features.get(self._id_column)
        self._label_map = label_map
        self._is_arena = is_arena
        self._labels: dict[Any, int] = {}

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """The row with the columns of `STREAM_FEATURES`.

        Raises:
            CorpusError: if its label is missing or not understood.
        """
        audio = row[self._audio_column]
        if isinstance(audio, str):
            audio = {"bytes": None, "path": audio}
        elif isinstance(audio, bytes):
            audio = {"bytes": audio, "path": None}
        elif isinstance(audio, Mapping) and "array" in audio:
            audio = encode_clip(audio, self._sample_type)
        elif isinstance(audio, list):
            audio = encode_clip({"array": audio, "sampling_rate": row.get("sampling_rate")}, self._sample_type)
        label = self._label(row[self._label_column])
        return {"audio": audio, "label": label, "utterance_id": self._utterance_id(row, audio, label)}

    def _label(self, label: Any) -> int:
        if label not in self._labels:
            try:
                self._labels[label] = map_labels([label], names=self._names, label_map=self._label_map)[0]
            except CorpusError as error:
                raise CorpusError(f"{self._shown}, column {self._label_column!r}: {error}") from error
        return self._labels[label]

    def _utterance_id(self, row: dict[str, Any], audio: dict[str, Any] | None, label: int) -> str:
        own = row.get(self._id_column)
        if own is not None:
            shown = f"{self._shown}: the column {self._id_column!r}"
            own = ids_as_text(pa.array([own]), self._id_feature, shown)[0].as_py()
        if own is None and self._is_arena:
            own = read_notes(row.get("notes"), label)["utterance_id"]
        if own is not None:
            return own
        audio = audio or {}
        if audio.get("path"):
            return PurePath(audio["path"]).stem
        return hashlib.blake2b(audio.get("bytes") or b"", digest_size=8).hexdigest()


class Prefixed:
    """Puts the corpus before a row's name."""

    def __init__(self, corpus: str) -> None:
        self._corpus = corpus

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """The row, renamed."""
        return {**row, "utterance_id": f"{self._corpus}/{row['utterance_id']}"}


class HasLabel:
    """Whether a row is of a class."""

    def __init__(self, label: int) -> None:
        self._label = label

    def __call__(self, row: dict[str, Any]) -> bool:
        """Whether the row is kept."""
        return row["label"] == self._label


class InSubset:
    """Whether a row of an Arena's data set is of a subset, by its notes."""

    def __init__(self, subset: str) -> None:
        self._subset = subset

    def __call__(self, row: dict[str, Any]) -> bool:
        """Whether the row is kept."""
        return read_notes(row.get("notes"), 0)["subset"] == self._subset
