"""Columns of audio as encoded files, never decoded by `datasets`: paths, bytes, and waveforms turned into WAV."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import soundfile
from datasets import Dataset, Features, LargeList, List, Value
from datasets.features.features import FeatureType

from hf_gradalign.data.errors import CorpusError

ENCODED = {"bytes": Value("binary"), "path": Value("string")}
"""An encoded clip. Not `Audio`: `datasets` takes torchcodec to put a clip into such a column, decoded or not."""

# Nothing is lost: samples are float32 in all that follows, and whole numbers keep their scale.
_SUBTYPES = {"float16": "FLOAT", "float32": "FLOAT", "float64": "FLOAT", "int16": "PCM_16", "int32": "PCM_32"}
_RATE = "sampling_rate"
_CLIPS_AT_ONCE = 16


def with_encoded_audio(dataset: Dataset, column: str = "audio") -> Dataset:
    """The data set with a column as `Audio(decode=False)`.

    Args:
        dataset: any.
        column: its column of paths, encoded bytes, `{"bytes", "path"}`, or decoded clips: `{"array", "sampling_rate"}`,
            with a `path` or without, or arrays alone beside a column `sampling_rate`. Arrays are of shape (time,),
            (channels, time) or (time, channels); floats in [-1, 1], int16 or int32.

    Raises:
        CorpusError: if decoded clips have no sampling rate, or samples of another type.
        TypeError, ValueError, pa.ArrowException: as `cast_column`, if the column holds something else.
    """
    if sample_type(dataset.features, column) is not None:
        encode = _Encode(column, column if _is_decoded(dataset.features[column]) else _RATE)
        features = Features({**dataset.features, column: ENCODED})
        dataset = dataset.with_format("arrow").map(
            encode, batched=True, batch_size=_CLIPS_AT_ONCE, features=features, desc="Encoding arrays"
        )
        dataset = dataset.with_format(None)
    return dataset.cast_column(column, datasets.Audio(decode=False))


def encode_clip(clip: Mapping[str, Any], kind: str | None = None) -> dict[str, Any]:
    """A decoded clip, `{"array", "sampling_rate"}`, as `{"bytes", "path"}`.

    Args:
        clip: the clip.
        kind: the type of its samples, where they are Python's numbers.

    Raises:
        CorpusError: if it has no sampling rate, or samples of a type without a scale.
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
    if samples.ndim == 2 and samples.shape[0] < samples.shape[1]:  # there are fewer channels than samples
        samples = samples.T
    if samples.ndim not in (1, 2):
        raise CorpusError(f"{path or 'A clip'} is an array of shape {samples.shape}, and no waveform of shape (time,).")
    subtype = _SUBTYPES[samples.dtype.name]
    if subtype == "FLOAT":
        samples = samples.astype(np.float32)
    file = BytesIO()
    soundfile.write(file, samples, int(rate), format="WAV", subtype=subtype)
    return {"bytes": file.getvalue(), "path": path}


def sample_type(features: Features, column: str) -> str | None:
    """The type of the samples in a column of decoded clips; None for any other column.

    Raises:
        CorpusError: if they have no sampling rate, or are of a type that has no scale.
    """
    feature = features[column]
    kind = _type_of(feature["array"] if _is_decoded(feature) else feature)
    if kind is None:
        return None
    if _RATE not in (feature if _is_decoded(feature) else features):
        raise CorpusError(f"The column {column!r} holds arrays without a {_RATE}.")
    if kind not in _SUBTYPES:
        raise CorpusError(
            f"The column {column!r} holds arrays of {kind}. Give samples as floats in [-1, 1], or as int16 or int32."
        )
    return kind


class _Encode:
    """Encodes the clips of a table; a class, so that its fingerprint depends on the columns."""

    def __init__(self, column: str, beside: str) -> None:
        self._column = column
        self._beside = beside

    def __call__(self, table: pa.Table) -> pa.Table:
        clips = [
            None if not clip.is_valid else encode_clip(self._clip(clip, rate))
            for clip, rate in zip(table[self._column], table[self._beside], strict=True)
        ]
        place = table.column_names.index(self._column)
        encoded = pa.array(clips, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
        return table.set_column(place, self._column, encoded)

    def _clip(self, clip: pa.Scalar, rate: pa.Scalar) -> dict[str, Any]:
        if self._beside != self._column:
            return {"array": _array(clip), _RATE: rate.as_py()}
        fields = {name: clip[name] for name in ("array", _RATE, "path") if name in clip}
        return {name: _array(value) if name == "array" else value.as_py() for name, value in fields.items()}


def _array(values: pa.Scalar) -> np.ndarray | None:
    if isinstance(values, pa.ExtensionScalar):  # Array2D
        values = values.value
    if not values.is_valid:
        return None
    if pa.types.is_nested(values.type.value_type):
        return np.array([_array(channel) for channel in values])
    return values.values.to_numpy(zero_copy_only=False)


def _is_decoded(feature: FeatureType) -> bool:
    return isinstance(feature, dict) and "array" in feature


def _type_of(arrays: FeatureType) -> str | None:
    if isinstance(arrays, datasets.Array2D):
        return arrays.dtype
    while isinstance(arrays, List | LargeList):
        arrays = arrays.feature
        if isinstance(arrays, Value) and arrays.dtype.startswith(("float", "int", "uint")):
            return arrays.dtype
    return None
