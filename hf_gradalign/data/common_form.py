"""Bring a data set of any source into the common form: encoded audio, labels by name, utterance ids as text."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import datasets
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, Value

from hf_gradalign.data.encoded_audio import with_encoded_audio
from hf_gradalign.data.errors import CorpusError
from hf_gradalign.data.label_map import LabelMap
from hf_gradalign.data.labels import LABEL_NAMES, map_labels
from hf_gradalign.data.utterance_ids import ids_as_text

logger = logging.getLogger(__name__)

NO_COLUMN = "none"
"""In place of a column's name: there is none."""
LABEL_COLUMN = "label"
"""The column with labels, unless another one is named."""
ID_COLUMN = "utterance_id"
"""The column with utterance ids, unless another one is named."""

_NO_LABELS = {"audio", ID_COLUMN, "split"}
_LABEL = ClassLabel(names=list(LABEL_NAMES))


def in_common_form(
    dataset: Dataset,
    shown: str,
    audio_column: str,
    label_column: str,
    label_map: Mapping[str, str] | None,
    *,
    id_column: str | None = None,
    require_labels: bool = True,
) -> Dataset:
    """The data set with `audio` (`Audio(decode=False)`) and `label` (`LABEL_NAMES`) beside the rest.

    Args:
        dataset: one split, as its source has it.
        shown: what errors call it.
        audio_column: its column with audio.
        label_column: its column with labels; `none` for none.
        label_map: what the labels mean, where their names do not say.
        id_column: its column with utterance ids; None for `utterance_id`, if it is there; `none` for none.
        require_labels: whether there must be labels; else `label` is null for clips that have none.

    Returns:
        The data set; with `utterance_id` as text, null for empty ones, where it has a column for it.

    Raises:
        CorpusError: if a column is missing or holds something else, or a label is missing or not understood.
    """
    if require_labels and label_column == NO_COLUMN:
        raise CorpusError(f"{shown}: there must be labels; name their column with --label_column_name.")
    # Without a word about them, labels are taken where there are any.
    has_labels = require_labels or label_column not in (NO_COLUMN, LABEL_COLUMN) or label_column in dataset.column_names
    has_labels &= label_column != NO_COLUMN
    needed = [(audio_column, "--audio_column_name")]
    if has_labels:
        needed.append((label_column, "--label_column_name"))
    if id_column not in (None, NO_COLUMN, ID_COLUMN):
        needed.append((id_column, "--id_column_name"))
    for column, option in needed:
        if column not in dataset.column_names:
            raise CorpusError(
                f"{shown} has no column {column!r}; its columns are {', '.join(dataset.column_names)}. "
                f"Name the right one with {option}; for one corpus of several, as in {option} CORPUS:COLUMN."
            )
    dataset = _with_ids(dataset, shown, id_column)
    dataset = _with_audio(dataset, shown, audio_column)
    if has_labels:
        return _with_labels(dataset, shown, label_column, label_map, require_labels=require_labels)
    if label_column != NO_COLUMN and (others := [name for name in dataset.column_names if name not in _NO_LABELS]):
        found = ", ".join(others)
        logger.warning("%s has no column %r (it has %s): no error rate.", shown, label_column, found)
    if "label" in dataset.column_names:
        dataset = dataset.remove_columns("label")
    return dataset.add_column("label", [None] * len(dataset), feature=_LABEL)


def audio_paths(dataset: Dataset) -> pa.Array:
    """The column `audio`'s paths, null where its bytes are there too."""
    # Through Arrow, which does not copy the audio beside the paths.
    audio = dataset.select_columns(["audio"]).with_format("arrow")[:]["audio"]
    paths = pc.if_else(pc.is_null(pc.struct_field(audio, "bytes")), pc.struct_field(audio, "path"), None)
    return paths.combine_chunks() if isinstance(paths, pa.ChunkedArray) else paths


def with_audio_paths(dataset: Dataset, paths: pa.Array, found: pa.Array, shown: str) -> Dataset:
    """The data set with audio files where they were found, with a note if that is not where they were said to be.

    Args:
        dataset: in the common form.
        paths: from `audio_paths`.
        found: from `find_on_disk`; those that are not there stay as they are.
        shown: what messages call the data set.
    """
    differs = pc.fill_null(pc.not_equal(paths, found), False)
    n_differing = pc.sum(differs).as_py() or 0
    if n_differing == 0:
        return dataset
    logger.warning(
        "%s: %d audio files are called otherwise on disk (in another Unicode form, without blanks or quotes, or with "
        "slashes for backslashes), such as %s. They are taken for the same.",
        *(shown, n_differing, found.filter(differs)[0].as_py()),
    )
    audio = dataset.select_columns(["audio"]).with_format("arrow")[:]["audio"]
    chunks, start = [], 0
    for chunk in audio.chunks:
        said = pc.struct_field(chunk, "path")
        moved = pc.if_else(differs.slice(start, len(chunk)), found.slice(start, len(chunk)), said)
        fields = [pc.struct_field(chunk, "bytes"), moved]
        chunks.append(pa.StructArray.from_arrays(fields, names=["bytes", "path"], mask=pc.is_null(chunk)))
        start += len(chunk)
    feature = dataset.features["audio"]
    return dataset.remove_columns("audio").add_column("audio", pa.chunked_array(chunks), feature=feature)


def _with_audio(dataset: Dataset, shown: str, column: str) -> Dataset:
    # Columns of audio must not be decoded by datasets: that takes torchcodec and FFmpeg.
    for name, feature in dataset.features.items():
        if name == column or isinstance(feature, datasets.Audio):
            try:
                dataset = with_encoded_audio(dataset, name)
            except CorpusError as error:
                raise CorpusError(f"{shown}: {error}") from error
            except (pa.ArrowException, TypeError, ValueError) as error:
                raise CorpusError(
                    f"{shown}: the column {name!r} holds {feature}, not audio files (paths or encoded bytes). "
                    "Name the right one with --audio_column_name."
                ) from error
    return _renamed(dataset, column, "audio")


def _with_labels(
    dataset: Dataset, shown: str, column: str, label_map: Mapping[str, str] | None, *, require_labels: bool
) -> Dataset:
    feature = dataset.features[column]
    if not isinstance(feature, ClassLabel | Value):
        raise CorpusError(f"{shown}: the column {column!r} holds {feature}, not one label a clip.")
    names = feature.names if isinstance(feature, ClassLabel) else None
    values = dataset[column][:]
    if isinstance(label_map, LabelMap):
        label_map.note(names or {value for value in values if value is not None})
    try:
        labels = map_labels(values, names=names, label_map=label_map, allow_missing=not require_labels)
    except CorpusError as error:
        way_out = "" if require_labels else " To score without labels: --label_column_name none."
        raise CorpusError(f"{shown}, column {column!r}: {error}{way_out}") from error
    if unlabeled := [value for value, label in zip(values, labels, strict=True) if label is None]:
        logger.warning(
            "%s: %d of %d clips have no label (%s), and count in no error rate.",
            *(shown, len(unlabeled), len(labels), ", ".join(sorted({repr(value) for value in unlabeled}))),
        )
    dataset = _renamed(dataset, column, "label").remove_columns("label")
    return dataset.add_column("label", labels, feature=_LABEL)


def _with_ids(dataset: Dataset, shown: str, column: str | None) -> Dataset:
    if column == NO_COLUMN:
        return dataset.remove_columns([name for name in dataset.column_names if name == ID_COLUMN])
    if column in (None, ID_COLUMN) and ID_COLUMN not in dataset.column_names:
        return dataset
    column = column or ID_COLUMN
    given = dataset.select_columns([column]).with_format("arrow")[:][column]
    ids = ids_as_text(given, dataset.features[column], f"{shown}: the column {column!r}")
    if column == ID_COLUMN and dataset.features[column] == Value("string") and given.equals(pa.chunked_array([ids])):
        return dataset
    return dataset.remove_columns([name for name in dataset.column_names if name == ID_COLUMN]).add_column(
        ID_COLUMN, ids, feature=Value("string")
    )


def _renamed(dataset: Dataset, column: str, name: str) -> Dataset:
    if column == name:
        return dataset
    if name in dataset.column_names:
        logger.warning("The column %r is left out: %r is used in its place.", name, column)
        dataset = dataset.remove_columns(name)
    return dataset.rename_column(column, name)
