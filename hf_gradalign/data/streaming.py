"""Streams of corpora, read from the Hub or from files during training, without a copy on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePath
from typing import Any

import pyarrow as pa
from datasets import Audio, ClassLabel, Dataset, Features, IterableDataset, Value

from hf_gradalign.data.columns import ENCODED, encode_clip, require_column, sample_type
from hf_gradalign.data.corpora import OnMissingAudio, parse_corpus
from hf_gradalign.data.corpora.arena import label_map_of, read_notes
from hf_gradalign.data.labels import LabelMap, map_labels
from hf_gradalign.data.loading import choose_splits, load_requested
from hf_gradalign.data.readers import read_source
from hf_gradalign.data.request import ID_COLUMN, NO_COLUMN, CorpusError, CorpusRequest
from hf_gradalign.data.utterance_ids import ids_as_text

STREAM_FEATURES = Features({"audio": ENCODED, "label": Value("int64"), "utterance_id": Value("string")})
"""The columns of a stream."""

# A loaded data set is divided into up to this many parts for loader workers and processes.
_SHARDS = 64


def stream_corpus(
    name_or_path: str | None,
    *,
    split: str = "train",
    subset: str | None = None,
    on_missing_audio: OnMissingAudio = "stop",
    config_name: str | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    audio_column: str = "audio",
    label_column: str = "label",
    label_map: Mapping[str, str] | None = None,
    id_column: str | None = None,
    min_shards: int = 1,
) -> IterableDataset:
    """Stream a split of a corpus.

    Data sets on the Hub, parquet files, and folders that `load_dataset` reads are streamed. Other corpora (official
    layouts, metadata files, output of `save_to_disk`) are loaded without their audio and then streamed.

    Args:
        name_or_path: As for `load_corpus`, like all arguments without a description.
        split: The corpus' own name of the split.
        subset: See `load_corpus`.
        on_missing_audio: See `load_corpus`.
        config_name: See `load_corpus`.
        revision: See `load_corpus`.
        token: See `load_corpus`.
        audio_column: See `load_corpus`.
        label_column: See `load_corpus`.
        label_map: See `load_corpus`.
        id_column: See `load_corpus`.
        min_shards: The number of parts to divide the stream into, one per loader worker of each process. If there are
            fewer files, parquet files are divided into row groups.

    Returns:
        A stream with the columns `audio` (`{"bytes", "path"}`), `label` (index into `LABEL_NAMES`) and `utterance_id`,
        which is not checked for uniqueness.

    Raises:
        CorpusError: As for `load_corpus`. An unknown label raises it when the stream reaches the label.
    """
    spec = parse_corpus(name_or_path)
    request = CorpusRequest(
        splits={"train": split},
        subset=subset,
        on_missing_audio=on_missing_audio,
        config_name=config_name,
        revision=revision,
        token=token,
        audio_column=audio_column,
        label_column=label_column,
        label_map=label_map,
        id_column=id_column,
        streaming=True,
    )
    if spec.layout is None:
        stream = choose_splits(read_source(spec, request), request, spec.display_name)["train"]
        if isinstance(stream, IterableDataset):
            if stream.num_shards < min_shards:
                stream = stream.reshard()
            return _standardize(stream, f"{spec.display_name}, split {split!r}", request, is_arena=spec.is_arena)
    return as_stream(load_requested(spec, replace(request, streaming=False))["train"])


def as_stream(dataset: Dataset) -> IterableDataset:
    """Stream a data set with the standard columns."""
    dataset = dataset.with_format(None).select_columns(list(STREAM_FEATURES))
    stream = dataset.to_iterable_dataset(num_shards=max(1, min(_SHARDS, len(dataset))))
    return stream.cast_column("audio", ENCODED).cast_column("label", Value("int64"))


def _standardize(
    stream: IterableDataset, display_name: str, request: CorpusRequest, *, is_arena: bool
) -> IterableDataset:
    """Return the stream with the columns of `STREAM_FEATURES`."""
    stream = _without_decoding(stream)
    features = _features_of(stream)
    require_column(request.audio_column, features, "--audio_column_name", display_name)
    require_column(request.label_column, features, "--label_column_name", display_name)
    if request.id_column not in (None, NO_COLUMN):
        require_column(request.id_column, features, "--id_column_name", display_name)
    if request.subset is not None and not is_arena:
        raise CorpusError(f"{display_name} has no subsets.")
    label, label_map = features[request.label_column], request.label_map
    if is_arena:
        label_map = label_map_of(label, label_map)
    names = tuple(label.names) if isinstance(label, ClassLabel) else None
    if names is not None and label_map is None:
        map_labels(range(len(names)), names=names, allow_missing=True)  # so that it fails now, not hours later
    if isinstance(label_map, LabelMap) and label_map.shared:
        # Loader workers cannot report the labels that they find.
        label_map.record(names or [row[request.label_column] for row in stream.take(1)])
    if request.subset not in (None, "all"):
        stream = stream.filter(_InSubset(request.subset))
    to_standard = _RowConverter(display_name, replace(request, label_map=label_map), features, is_arena=is_arena)
    return stream.map(to_standard, remove_columns=list(features), features=STREAM_FEATURES)


def _without_decoding(stream: IterableDataset) -> IterableDataset:
    """Return the stream with audio columns as `{"bytes", "path"}`."""
    for name, kind in _features_of(stream).items():
        if isinstance(kind, Audio):
            stream = stream.cast_column(name, ENCODED)
    return stream


def _features_of(stream: IterableDataset) -> Features:
    """Return a stream's columns; from its first row, if the source does not describe them.

    Raises:
        CorpusError: If the stream is empty.
    """
    if stream.features is not None:
        return stream.features
    first = next(iter(stream), None)
    if first is None:
        raise CorpusError("The stream is empty.")
    return Dataset.from_list([dict(first)]).features


class _RowConverter:
    """Converts a row of a stream to `STREAM_FEATURES`. Like the classes below, it can be pickled."""

    def __init__(self, display_name: str, request: CorpusRequest, features: Features, *, is_arena: bool) -> None:
        self._display_name = display_name
        self._audio_column = request.audio_column
        self._label_column = request.label_column
        self._id_column = request.id_column or ID_COLUMN
        self._sample_type = sample_type(features, self._audio_column)
        label = features[self._label_column]
        self._names = tuple(label.names) if isinstance(label, ClassLabel) else None
        self._id_feature = features.get(self._id_column)
        self._label_map = request.label_map
        self._is_arena = is_arena
        self._labels: dict[Any, int] = {}

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the row with the columns of `STREAM_FEATURES`.

        Raises:
            CorpusError: If the label is missing or unknown.
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
                raise CorpusError(f"{self._display_name}, column {self._label_column!r}: {error}") from error
        return self._labels[label]

    def _utterance_id(self, row: dict[str, Any], audio: dict[str, Any] | None, label: int) -> str:
        own = row.get(self._id_column)
        if own is not None:
            column = f"{self._display_name}: the column {self._id_column!r}"
            own = ids_as_text(pa.array([own]), self._id_feature, column)[0].as_py()
        if own is None and self._is_arena:
            own = read_notes(row.get("notes"), label)["utterance_id"]
        if own is not None:
            return own
        audio = audio or {}
        if audio.get("path"):
            return PurePath(audio["path"]).stem
        return hashlib.blake2b(audio.get("bytes") or b"", digest_size=8).hexdigest()


class AddCorpusPrefix:
    """Adds the corpus' name before a row's utterance id."""

    def __init__(self, corpus: str) -> None:
        self._corpus = corpus

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the row with its new utterance id."""
        return {**row, "utterance_id": f"{self._corpus}/{row['utterance_id']}"}


class HasLabel:
    """Filters rows by class."""

    def __init__(self, label: int) -> None:
        self._label = label

    def __call__(self, row: dict[str, Any]) -> bool:
        """Return whether the row is kept."""
        return row["label"] == self._label


class _InSubset:
    """Filters rows of the Arena's data sets by the subset in their notes."""

    def __init__(self, subset: str) -> None:
        self._subset = subset

    def __call__(self, row: dict[str, Any]) -> bool:
        """Return whether the row is kept."""
        return read_notes(row.get("notes"), 0)["subset"] == self._subset
