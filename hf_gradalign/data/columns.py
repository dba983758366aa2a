"""Converts corpora to the standard columns: encoded audio, labels by name, utterance ids as text."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from io import BytesIO
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import soundfile
from datasets import ClassLabel, Dataset, Features, LargeList, List, Value
from datasets.features.features import FeatureType

from hf_gradalign.data.arrow import arrow_column, flat, with_slashes
from hf_gradalign.data.labels import LABEL_NAMES, LabelMap, map_labels
from hf_gradalign.data.request import ID_COLUMN, LABEL_COLUMN, NO_COLUMN, CorpusError, CorpusRequest
from hf_gradalign.data.utterance_ids import ids_as_text

logger = logging.getLogger(__name__)

ENCODED = {"bytes": Value("binary"), "path": Value("string")}
"""An encoded clip. Not `Audio`, because `datasets` needs torchcodec to write to such a column, decoded or not."""

_ENCODED_AUDIO = datasets.Audio(decode=False)
_NO_LABELS = {"audio", ID_COLUMN, "split"}
_LABEL = ClassLabel(names=list(LABEL_NAMES))
# Lossless, because samples become float32 later anyway, and integers keep their scale.
_SUBTYPES = {"float16": "FLOAT", "float32": "FLOAT", "float64": "FLOAT", "int16": "PCM_16", "int32": "PCM_32"}
_RATE = "sampling_rate"
_ENCODING_BATCH = 16


def to_standard_columns(dataset: Dataset, display_name: str, request: CorpusRequest) -> Dataset:
    """Convert a split to the standard columns `audio` (`Audio(decode=False)`) and `label` (`LABEL_NAMES`).

    Args:
        dataset: One split, with the columns of its source.
        display_name: The split's name for messages.
        request: The names of the source's columns, and the meaning of its labels.

    Returns:
        The data set with these columns, and `utterance_id` as text, null for empty ids, if the source has ids. `label`
        is null for clips without a label. Further columns are kept.

    Raises:
        CorpusError: If a column is missing or holds something else, or a label is missing or unknown.
    """
    audio_column, label_column, id_column = request.audio_column, request.label_column, request.id_column
    if request.require_labels and label_column == NO_COLUMN:
        raise CorpusError(f"{display_name}: labels are required; name their column with --label_column_name.")
    # The default label column may be missing if labels are optional.
    has_labels = label_column != NO_COLUMN and (
        request.require_labels or label_column != LABEL_COLUMN or label_column in dataset.column_names
    )
    needed = [(audio_column, "--audio_column_name")]
    if has_labels:
        needed.append((label_column, "--label_column_name"))
    if id_column not in (None, NO_COLUMN, ID_COLUMN):
        needed.append((id_column, "--id_column_name"))
    for column, option in needed:
        require_column(column, dataset.column_names, option, display_name)
    dataset = _with_ids(dataset, display_name, id_column)
    dataset = _with_audio(dataset, display_name, audio_column)
    if has_labels:
        return _with_labels(dataset, display_name, request)
    if label_column != NO_COLUMN and (others := [name for name in dataset.column_names if name not in _NO_LABELS]):
        columns = ", ".join(others)
        logger.warning(
            "%s has no column %r (it has %s): error rates cannot be computed.", display_name, label_column, columns
        )
    if "label" in dataset.column_names:
        dataset = dataset.remove_columns("label")
    return dataset.add_column("label", [None] * len(dataset), feature=_LABEL)


def require_column(column: str | None, columns: Iterable[str], option: str, display_name: str) -> None:
    """Raise a CorpusError, which names the option, unless a column exists."""
    if column not in columns:
        raise CorpusError(
            f"{display_name} has no column {column!r}; its columns are {', '.join(columns)}. "
            f"Name the right one with {option}; for one corpus of several, as in {option} CORPUS:COLUMN."
        )


def audio_paths(dataset: Dataset) -> pa.Array:
    """Return the paths in the column `audio`; null for clips with bytes."""
    audio = arrow_column(dataset, "audio")
    return flat(pc.if_else(pc.is_null(pc.struct_field(audio, "bytes")), pc.struct_field(audio, "path"), None))


def with_audio_paths(dataset: Dataset, paths: pa.Array, on_disk: pa.Array, display_name: str) -> Dataset:
    """Replace audio paths by their spelling on disk, with a warning if it differs.

    Args:
        dataset: With the standard columns.
        paths: From `audio_paths`.
        on_disk: From `find_on_disk`. Paths of missing files stay unchanged.
        display_name: The data set's name for messages.
    """
    differs = pc.fill_null(pc.not_equal(paths, on_disk), False)
    if not pc.any(differs).as_py():
        return dataset
    is_misspelled = pc.fill_null(pc.not_equal(with_slashes(paths), on_disk), False)
    if n_misspelled := pc.sum(is_misspelled).as_py():
        logger.warning(
            "%s: the names of %d audio files are spelled differently on disk (another Unicode form, no white space or "
            "quotes, or slashes for backslashes), such as %s. These files are used.",
            *(display_name, n_misspelled, on_disk.filter(is_misspelled)[0].as_py()),
        )
    audio = arrow_column(dataset, "audio")
    chunks, start = [], 0
    for chunk in audio.chunks:
        given = pc.struct_field(chunk, "path")
        moved = pc.if_else(differs.slice(start, len(chunk)), on_disk.slice(start, len(chunk)), given)
        fields = [pc.struct_field(chunk, "bytes"), moved]
        chunks.append(pa.StructArray.from_arrays(fields, names=["bytes", "path"], mask=pc.is_null(chunk)))
        start += len(chunk)
    feature = dataset.features["audio"]
    return dataset.remove_columns("audio").add_column("audio", pa.chunked_array(chunks), feature=feature)


def with_encoded_audio(dataset: Dataset, column: str = "audio") -> Dataset:
    """Convert a column to `Audio(decode=False)`.

    Args:
        dataset: Any data set.
        column: The column of paths, encoded bytes, `{"bytes", "path"}`, or decoded clips. Decoded clips are
            `{"array", "sampling_rate"}`, optionally with a `path`, or only arrays if there is a column `sampling_rate`.
            Arrays have the shape (time,), (channels, time) or (time, channels), and hold floats in [-1, 1], int16 or
            int32.

    Raises:
        CorpusError: If decoded clips have no sampling rate, or samples of another type.
        TypeError, ValueError, pa.ArrowException: From `cast_column`, if the column contains anything else.
    """
    if sample_type(dataset.features, column) is not None:
        encode = _Encode(column, column if _is_decoded(dataset.features[column]) else _RATE)
        features = Features({**dataset.features, column: ENCODED})
        dataset = dataset.with_format("arrow").map(
            encode, batched=True, batch_size=_ENCODING_BATCH, features=features, desc="Encoding arrays"
        )
        dataset = dataset.with_format(None)
    if dataset.features[column] == _ENCODED_AUDIO:
        return dataset
    return dataset.cast_column(column, _ENCODED_AUDIO)


def encode_clip(clip: Mapping[str, Any], kind: str | None = None) -> dict[str, Any]:
    """Encode a decoded clip, `{"array", "sampling_rate"}`, to `{"bytes", "path"}`.

    Args:
        clip: The decoded clip.
        kind: The type of the samples if they are Python numbers.

    Raises:
        CorpusError: If the clip has no sampling rate, or its samples have a type without a scale.
    """
    array = clip.get("array")
    path = clip.get("path")
    if array is None:
        return {"bytes": None, "path": path}
    samples = np.asarray(array, kind)
    if samples.dtype.name not in _SUBTYPES:
        if samples.size:
            raise CorpusError(f"{path or 'A clip'} is an array of {samples.dtype}. Give floats in [-1, 1], or int16.")
        samples = samples.astype(np.float32)
    rate = clip.get(_RATE)
    if not rate or rate != int(rate) or rate < 0:
        raise CorpusError(f"{path or 'A clip'} is an array with a {_RATE} of {rate}. Give it in Hz.")
    if samples.ndim == 2 and samples.shape[0] < samples.shape[1]:  # fewer channels than samples
        samples = samples.T
    if samples.ndim not in (1, 2):
        raise CorpusError(f"{path or 'A clip'} is an array of shape {samples.shape}, not a waveform of shape (time,).")
    subtype = _SUBTYPES[samples.dtype.name]
    if subtype == "FLOAT":
        samples = samples.astype(np.float32)
    file = BytesIO()
    soundfile.write(file, samples, int(rate), format="WAV", subtype=subtype)
    return {"bytes": file.getvalue(), "path": path}


def sample_type(features: Features, column: str) -> str | None:
    """Return the type of the samples in a column of decoded clips; None for other columns.

    Raises:
        CorpusError: If the clips have no sampling rate, or their samples have a type without a scale.
    """
    feature = features[column]
    kind = _sample_type_of(feature["array"] if _is_decoded(feature) else feature)
    if kind is None:
        return None
    if _RATE not in (feature if _is_decoded(feature) else features):
        raise CorpusError(f"The column {column!r} holds arrays without a {_RATE}.")
    if kind not in _SUBTYPES:
        raise CorpusError(
            f"The column {column!r} holds arrays of {kind}. Give samples as floats in [-1, 1], or as int16 or int32."
        )
    return kind


def _with_audio(dataset: Dataset, display_name: str, column: str) -> Dataset:
    # datasets must not decode audio columns, because it would need torchcodec and FFmpeg.
    for name, feature in dataset.features.items():
        if name == column or isinstance(feature, datasets.Audio):
            try:
                dataset = with_encoded_audio(dataset, name)
            except CorpusError as error:
                raise CorpusError(f"{display_name}: {error}") from error
            except (pa.ArrowException, TypeError, ValueError) as error:
                raise CorpusError(
                    f"{display_name}: the column {name!r} holds {feature}, not audio files (paths or encoded bytes). "
                    "Name the right one with --audio_column_name."
                ) from error
    return _rename_column(dataset, column, "audio")


def _with_labels(dataset: Dataset, display_name: str, request: CorpusRequest) -> Dataset:
    column, label_map = request.label_column, request.label_map
    feature = dataset.features[column]
    if not isinstance(feature, ClassLabel | Value):
        raise CorpusError(f"{display_name}: the column {column!r} holds {feature}, not one label per clip.")
    names = feature.names if isinstance(feature, ClassLabel) else None
    values = dataset[column][:]
    if isinstance(label_map, LabelMap):
        label_map.record(names or {value for value in values if value is not None})
    try:
        labels = map_labels(values, names=names, label_map=label_map, allow_missing=not request.require_labels)
    except CorpusError as error:
        hint = "" if request.require_labels else " To score without labels: --label_column_name none."
        raise CorpusError(f"{display_name}, column {column!r}: {error}{hint}") from error
    if unlabeled := [value for value, label in zip(values, labels, strict=True) if label is None]:
        logger.warning(
            "%s: %d of %d clips have no label (%s), and do not count in error rates.",
            *(display_name, len(unlabeled), len(labels), ", ".join(sorted({repr(value) for value in unlabeled}))),
        )
    dataset = _rename_column(dataset, column, "label").remove_columns("label")
    return dataset.add_column("label", labels, feature=_LABEL)


def _with_ids(dataset: Dataset, display_name: str, column: str | None) -> Dataset:
    if column == NO_COLUMN:
        return dataset.remove_columns([name for name in dataset.column_names if name == ID_COLUMN])
    if column in (None, ID_COLUMN) and ID_COLUMN not in dataset.column_names:
        return dataset
    column = column or ID_COLUMN
    given = arrow_column(dataset, column)
    ids = ids_as_text(given, dataset.features[column], f"{display_name}: the column {column!r}")
    if column == ID_COLUMN and dataset.features[column] == Value("string") and given.equals(pa.chunked_array([ids])):
        return dataset
    return dataset.remove_columns([name for name in dataset.column_names if name == ID_COLUMN]).add_column(
        ID_COLUMN, ids, feature=Value("string")
    )


def _rename_column(dataset: Dataset, column: str, name: str) -> Dataset:
    if column == name:
        return dataset
    if name in dataset.column_names:
        logger.warning("The column %r is left out: %r replaces it.", name, column)
        dataset = dataset.remove_columns(name)
    return dataset.rename_column(column, name)


class _Encode:
    """Encodes the clips of a table. This is a class so that its fingerprint depends on the columns."""

    def __init__(self, column: str, rate_column: str) -> None:
        self._column = column
        self._rate_column = rate_column

    def __call__(self, table: pa.Table) -> pa.Table:
        clips = [
            None if not clip.is_valid else encode_clip(self._clip(clip, rate))
            for clip, rate in zip(table[self._column], table[self._rate_column], strict=True)
        ]
        index = table.column_names.index(self._column)
        encoded = pa.array(clips, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
        return table.set_column(index, self._column, encoded)

    def _clip(self, clip: pa.Scalar, rate: pa.Scalar) -> dict[str, Any]:
        if self._rate_column != self._column:
            return {"array": _to_numpy(clip), _RATE: rate.as_py()}
        fields = {name: clip[name] for name in ("array", _RATE, "path") if name in clip}
        return {name: _to_numpy(value) if name == "array" else value.as_py() for name, value in fields.items()}


def _to_numpy(values: pa.Scalar) -> np.ndarray | None:
    if isinstance(values, pa.ExtensionScalar):  # Array2D
        values = values.value
    if not values.is_valid:
        return None
    if pa.types.is_nested(values.type.value_type):
        return np.array([_to_numpy(channel) for channel in values])
    return values.values.to_numpy(zero_copy_only=False)


def _is_decoded(feature: FeatureType) -> bool:
    return isinstance(feature, dict) and "array" in feature


def _sample_type_of(arrays: FeatureType) -> str | None:
    if isinstance(arrays, datasets.Array2D):
        return arrays.dtype
    while isinstance(arrays, List | LargeList):
        arrays = arrays.feature
        if isinstance(arrays, Value) and arrays.dtype.startswith(("float", "int", "uint")):
            return arrays.dtype
    return None
