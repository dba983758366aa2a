"""The columns of every named corpus, and a data set with them built without a Python object per row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, DatasetInfo, Features, Value
from datasets.fingerprint import Hasher

from hf_gradalign.data.errors import CorpusError
from hf_gradalign.data.labels import LABEL_NAMES, canonical_label

METADATA_COLUMNS = ("speaker", "system", "codec", "condition", "language", "gender", "subset")
"""Metadata of a clip, null if the protocol does not have it. `system` is the attack, `-` for bona fide speech."""

FEATURES = Features(
    {
        "audio": datasets.Audio(decode=False),
        "label": ClassLabel(names=list(LABEL_NAMES)),
        "utterance_id": Value("string"),
        **{column: Value("string") for column in METADATA_COLUMNS},
    }
)
"""The columns of every named corpus. Some have further text columns after these."""

BONA_FIDE_SYSTEM = "-"

StringColumn = pa.Array | pa.ChunkedArray


def labels_of(keys: StringColumn, source: str) -> pa.Array:
    """Convert a protocol's keys, in any usual spelling, to indices into `LABEL_NAMES`.

    Raises:
        CorpusError: If a key means neither class.
    """
    encoded = _flat(keys).dictionary_encode()
    names = [canonical_label(name) if name is not None else None for name in encoded.dictionary.to_pylist()]
    unknown = [str(key) for key, name in zip(encoded.dictionary.to_pylist(), names, strict=True) if name is None]
    if unknown or encoded.null_count:
        raise CorpusError(
            f"{source}: the keys should be bonafide or spoof, but there are {', '.join(unknown[:10]) or 'empty ones'}."
        )
    numbers = pa.array([LABEL_NAMES.index(name) for name in names], pa.int64())
    return numbers.take(encoded.indices)


def make_dataset(
    paths: StringColumn, labels: pa.Array, utterance_ids: StringColumn, metadata: Mapping[str, Any], identity: object
) -> Dataset:
    """Make a data set with the columns of `FEATURES`, in memory (about 150 bytes per clip).

    Args:
        paths: The audio files.
        labels: Indices into `LABEL_NAMES`.
        utterance_ids: Unique names.
        metadata: Columns of `METADATA_COLUMNS`, null if missing, and further columns. `system` becomes `-` for bona
            fide speech; some protocols repeat the key there.
        identity: Determines the contents, for the fingerprint. By default `datasets` would hash all contents.
    """
    n_clips = len(labels)
    path_column = _flat(paths).cast(pa.string())
    audio = pa.StructArray.from_arrays([pa.nulls(n_clips, pa.binary()), path_column], names=["bytes", "path"])
    columns = {"audio": audio, "label": labels, "utterance_id": _flat(utterance_ids).cast(pa.string())}
    further = [column for column in metadata if column not in METADATA_COLUMNS]
    for column in (*METADATA_COLUMNS, *further):
        values = metadata.get(column)
        columns[column] = pa.nulls(n_clips, pa.string()) if values is None else _flat(values).cast(pa.string())
    is_bona_fide = pc.equal(labels, LABEL_NAMES.index("bonafide"))
    columns["system"] = pc.if_else(is_bona_fide, BONA_FIDE_SYSTEM, columns["system"])
    features = Features({**FEATURES, **{column: Value("string") for column in further}})
    table = pa.table([columns[name] for name in features], schema=features.arrow_schema)
    return Dataset(table, info=DatasetInfo(features=features), fingerprint=Hasher.hash(identity))


def _flat(column: StringColumn) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
