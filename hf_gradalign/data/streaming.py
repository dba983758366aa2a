"""Corpora read as they are gone through, from the Hub or from parquet files, without a copy on disk."""

from __future__ import annotations

from collections.abc import Mapping

from datasets import ClassLabel, Dataset, IterableDataset, Value

from hf_gradalign.data.common_form import NO_COLUMN
from hf_gradalign.data.corpora import OnMissingAudio, parse_corpus
from hf_gradalign.data.corpora.arena import label_map_of
from hf_gradalign.data.encoded_audio import ENCODED
from hf_gradalign.data.errors import CorpusError
from hf_gradalign.data.label_map import LabelMap
from hf_gradalign.data.labels import map_labels
from hf_gradalign.data.loading import load_corpus, shown_name
from hf_gradalign.data.sources import read_source
from hf_gradalign.data.splits import choose_splits
from hf_gradalign.data.stream_rows import (
    STREAM_FEATURES,
    CommonForm,
    InSubset,
    features_of,
    without_decoding,
)
from hf_gradalign.data.wanted import Wanted

# What is not streamed can still be divided between so many loader workers and processes.
_SHARDS = 64
_COLUMN_OPTIONS = {"audio": "--audio_column_name", "label": "--label_column_name", "utterance_id": "--id_column_name"}


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

    What is on the Hub, in parquet files or in a folder that `load_dataset` reads is streamed; other corpora (official
    layouts, metadata files, what `save_to_disk` wrote) are loaded, their audio staying where it is, and gone through.

    Args:
        name_or_path: as for `load_corpus`, as are the other arguments.
        split: the corpus' name of the split.
        subset: as for `load_corpus`.
        on_missing_audio: as for `load_corpus`.
        config_name: as for `load_corpus`.
        revision: as for `load_corpus`.
        token: as for `load_corpus`.
        audio_column: as for `load_corpus`.
        label_column: as for `load_corpus`.
        label_map: as for `load_corpus`.
        id_column: as for `load_corpus`.
        min_shards: into how many parts the stream should divide, one for each loader worker of each process: where it
            has fewer files, parquet files are divided into their row groups.

    Returns:
        A stream with the columns `audio` (`{"bytes", "path"}`), `label` (index into `LABEL_NAMES`) and `utterance_id`,
        of which it is not seen to that they are unique.

    Raises:
        CorpusError: as `load_corpus` does; a label that is not understood, when the stream comes to it.
    """
    spec = parse_corpus(name_or_path)
    if spec.layout is None:
        wanted = Wanted(
            splits=(split,),
            audio_column=audio_column,
            label_column=label_column,
            label_map=label_map,
            config_name=config_name,
            streaming=True,
        )
        source = read_source(spec, wanted, revision=revision, token=token)
        stream = choose_splits(source, {"train": split}, frozenset(), shown_name(spec))["train"]
        if isinstance(stream, IterableDataset):
            shown = f"{shown_name(spec)}, split {split!r}"
            if stream.num_shards < min_shards:
                stream = stream.reshard()
            columns = {"audio": audio_column, "label": label_column, "utterance_id": id_column}
            return _in_common_form(stream, shown, columns, label_map, spec.is_arena, subset)
    dataset = load_corpus(
        name_or_path,
        splits=("train",),
        train_split=split,
        subset=subset,
        on_missing_audio=on_missing_audio,
        config_name=config_name,
        audio_column=audio_column,
        label_column=label_column,
        label_map=label_map,
        id_column=id_column,
    )["train"]
    return as_stream(dataset)


def as_stream(dataset: Dataset) -> IterableDataset:
    """A data set in the common form as a stream."""
    dataset = dataset.with_format(None).select_columns(list(STREAM_FEATURES))
    stream = dataset.to_iterable_dataset(num_shards=max(1, min(_SHARDS, len(dataset))))
    return stream.cast_column("audio", ENCODED).cast_column("label", Value("int64"))


def _in_common_form(
    stream: IterableDataset,
    shown: str,
    columns: Mapping[str, str | None],
    label_map: Mapping[str, str] | None,
    is_arena: bool,
    subset: str | None,
) -> IterableDataset:
    stream = without_decoding(stream)
    features = features_of(stream)
    for role, option in _COLUMN_OPTIONS.items():
        column = columns[role]
        if column not in features and not (role == "utterance_id" and column in (None, NO_COLUMN)):
            raise CorpusError(
                f"{shown} has no column {column!r}; its columns are {', '.join(features)}. Name the right one with "
                f"{option}; for one corpus of several, as in {option} CORPUS:COLUMN."
            )
    if subset is not None and not is_arena:
        raise CorpusError(f"{shown} has no subsets.")
    label = features[columns["label"]]
    if is_arena:
        label_map = label_map_of(label, label_map)
    names = tuple(label.names) if isinstance(label, ClassLabel) else None
    if names is not None and label_map is None:
        map_labels(range(len(names)), names=names, allow_missing=True)  # said now, not hours later
    if isinstance(label_map, LabelMap) and label_map.shared:
        # Loader workers cannot say what they come to.
        label_map.note(names or [row[columns["label"]] for row in stream.take(1)])
    if subset not in (None, "all"):
        stream = stream.filter(InSubset(subset))
    form = CommonForm(shown, columns, features, label_map, is_arena)
    return stream.map(form, remove_columns=list(features), features=STREAM_FEATURES)
