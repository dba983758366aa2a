"""Bring a data set of any source into the common form: encoded audio, labels by name, utterance ids."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import datasets
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, Value

from hf_gradalign.data.errors import CorpusError
from hf_gradalign.data.labels import LABEL_NAMES, map_labels

logger = logging.getLogger(__name__)


def in_common_form(
    dataset: Dataset,
    shown: str,
    audio_column: str,
    label_column: str,
    label_map: Mapping[str, str] | None,
    *,
    require_labels: bool = True,
) -> Dataset:
    """The data set with `audio` (`Audio(decode=False)`), `label` (`LABEL_NAMES`) and `utterance_id` beside the rest.

    Args:
        dataset: one split, as its source has it.
        shown: what errors call it.
        audio_column: its column with audio.
        label_column: its column with labels.
        label_map: what the labels mean, where their names do not say.
        require_labels: whether there must be labels; else `label` is null where there is no such column.

    Raises:
        CorpusError: if a column is missing or holds something else, or a label is missing or not understood.
    """
    needed = [(audio_column, "--audio_column_name")]
    has_labels = require_labels or label_column in dataset.column_names
    if has_labels:
        needed.append((label_column, "--label_column_name"))
    for column, option in needed:
        if column not in dataset.column_names:
            raise CorpusError(
                f"{shown} has no column {column!r}; its columns are {', '.join(dataset.column_names)}. "
                f"Name the right one with {option}."
            )
    dataset = _with_audio(dataset, shown, audio_column)
    if has_labels:
        dataset = _with_labels(dataset, shown, label_column, label_map)
    else:
        nothing = [None] * len(dataset)
        dataset = dataset.add_column("label", nothing, feature=ClassLabel(names=list(LABEL_NAMES)))
    return _with_utterance_ids(dataset)


def audio_paths(dataset: Dataset) -> pa.Array:
    """The column `audio`'s paths, null where its bytes are there too."""
    # Through Arrow, which does not copy the audio beside the paths.
    audio = dataset.select_columns(["audio"]).with_format("arrow")[:]["audio"]
    paths = pc.if_else(pc.is_null(pc.struct_field(audio, "bytes")), pc.struct_field(audio, "path"), None)
    return paths.combine_chunks() if isinstance(paths, pa.ChunkedArray) else paths


def _with_audio(dataset: Dataset, shown: str, column: str) -> Dataset:
    # Columns of audio must not be decoded by datasets: that takes torchcodec and FFmpeg.
    for name, feature in dataset.features.items():
        if name == column or isinstance(feature, datasets.Audio):
            try:
                dataset = dataset.cast_column(name, datasets.Audio(decode=False))
            except (pa.ArrowException, TypeError, ValueError) as error:
                raise CorpusError(
                    f"{shown}: the column {name!r} holds {feature}, not audio files (paths or encoded bytes). "
                    "Name the right one with --audio_column_name."
                ) from error
    return _renamed(dataset, column, "audio")


def _with_labels(dataset: Dataset, shown: str, column: str, label_map: Mapping[str, str] | None) -> Dataset:
    feature = dataset.features[column]
    if not isinstance(feature, ClassLabel | Value):
        raise CorpusError(f"{shown}: the column {column!r} holds {feature}, not one label a clip.")
    names = feature.names if isinstance(feature, ClassLabel) else None
    try:
        labels = map_labels(dataset[column][:], names=names, label_map=label_map)
    except CorpusError as error:
        raise CorpusError(f"{shown}, column {column!r}: {error}") from error
    dataset = _renamed(dataset, column, "label").remove_columns("label")
    return dataset.add_column("label", labels, feature=ClassLabel(names=list(LABEL_NAMES)))


def _with_utterance_ids(dataset: Dataset) -> Dataset:
    if "utterance_id" in dataset.column_names:
        return dataset
    table = dataset.select_columns(["audio"]).with_format("arrow")[:]
    paths = pc.fill_null(pc.struct_field(table["audio"], "path"), "")
    # The name without folders and its last ending, as pathlib has it: a leading dot is no ending.
    stems = pc.replace_substring_regex(pc.replace_substring_regex(paths, r"^.*/", ""), r"([^.])\.[^.]*$", r"\1")
    for names in (stems, paths):
        if pc.count_distinct(names).as_py() == len(names) and not pc.any(pc.equal(names, "")).as_py():
            return dataset.add_column("utterance_id", names)
    return dataset.add_column("utterance_id", [f"row_{index:06d}" for index in range(len(dataset))])


def _renamed(dataset: Dataset, column: str, name: str) -> Dataset:
    if column == name:
        return dataset
    if name in dataset.column_names:
        logger.warning("The column %r is left out: %r is used in its place.", name, column)
        dataset = dataset.remove_columns(name)
    return dataset.rename_column(column, name)
