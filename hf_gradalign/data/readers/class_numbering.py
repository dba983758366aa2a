"""Refuses files that number the classes differently, because `datasets` reads all of them with the names of one."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from itertools import chain

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import ClassLabel, DatasetBuilder, Features, Value
from datasets.features.features import FeatureType

from hf_gradalign.data.request import NO_COLUMN, CorpusError, CorpusRequest
from hf_gradalign.labels import canonical_label, normalize_label

logger = logging.getLogger(__name__)

_CARD = "README.md"
_MAX_NAMES = 5


def refuse_other_numbering(builder: DatasetBuilder, request: CorpusRequest) -> None:
    """Check that the local files of the wanted splits number the classes as they will be read.

    `datasets` reads the labels with the names in README.md, otherwise with those in the first file of the first split.
    Only parquet files that are not streamed are read split by split (`ParquetSplits`), each with the names in its first
    file.

    Args:
        builder: Any builder. Only those of parquet and Arrow files are checked.
        request: The wanted splits, the column of labels, and their meaning.

    Raises:
        CorpusError: If two files, or a file and README.md, give a number different meanings, or a file is damaged.
        OSError, ValueError: If a file cannot be read for another reason.
    """
    schema_of = _SCHEMA_OF.get(builder.name or "")
    if schema_of is None or request.label_column == NO_COLUMN:
        return
    card = builder.info.features
    groups = list(wanted_files(builder, request).values())
    if card is None and (request.streaming or builder.name == "arrow"):
        first = next(iter((builder.config.data_files or {"": []}).values()))[:1]
        groups = [[*filter(os.path.isfile, map(str, first)), *chain.from_iterable(groups)]]
    for files in groups:
        kinds: dict[str, FeatureType | None] = {}
        for file in files:
            try:
                kinds[file] = Features.from_arrow_schema(schema_of(file)).get(request.label_column)
            except pa.ArrowException as error:
                raise CorpusError(f"Cannot read {file} as a data set: {error}") from error
        if card is not None:
            kinds = {_CARD: card.get(request.label_column), **kinds}
        require_one_numbering(kinds, request.label_column, request.label_map)


def wanted_files(builder: DatasetBuilder, request: CorpusRequest) -> dict[str, list[str]]:
    """Return the files on this machine that a builder would read for each wanted split."""
    wanted = {name.strip().lower() for name in request.split_names}
    splits = builder.config.data_files or {}
    return {
        str(split): [file for file in map(str, files) if os.path.isfile(file)]
        for split, files in splits.items()
        if str(split).lower() in wanted
    }


def require_one_numbering(
    kinds: Mapping[str, FeatureType | None], column: str, label_map: Mapping[str, str] | None
) -> None:
    """Check that all files can be read with the class names of the first one.

    Texts can, because they are names. Numbers without names can too, with a warning unless the names are in README.md.

    Args:
        kinds: The type of the column in each file; None where it is missing.
        column: The column of labels.
        label_map: The meaning of labels that are not known by name.

    Raises:
        CorpusError: If a file gives a number another meaning than the first file does.
    """
    if not kinds:
        return
    (first, kind), *others = kinds.items()
    for file, own in others:
        if isinstance(own, ClassLabel):
            # Without names, the label map defines the numbers.
            expected = kind.names if isinstance(kind, ClassLabel) else range(len(own.names))
            if _meanings(own.names, label_map) != _meanings(expected, label_map)[: len(own.names)]:
                raise CorpusError(
                    f"{first} and {file} number the classes of the column {column!r} differently: "
                    f"{_describe_names(kind)} and {_describe_names(own)}. Correct the wrong one. If both are right, "
                    "name the files as two corpora."
                )
        elif isinstance(kind, ClassLabel) and isinstance(own, Value) and "string" not in own.dtype and first != _CARD:
            logger.warning(
                "%s does not name the classes of the column %r. Its numbers are read with the names in %s: %s.",
                *(file, column, first, _describe_names(kind)),
            )


def _meanings(names: Iterable[str | int], label_map: Mapping[str, str] | None) -> list[str]:
    return [canonical_label(name, label_map) or normalize_label(name) for name in names]


def _describe_names(kind: FeatureType | None) -> str:
    return "/".join(kind.names[:_MAX_NAMES]) if isinstance(kind, ClassLabel) else "no names"


def _schema_of_arrow(file: str) -> pa.Schema:
    with pa.memory_map(file) as source:
        try:
            return pa.ipc.open_stream(source).schema
        except pa.ArrowInvalid:
            return pa.ipc.open_file(source).schema


_SCHEMA_OF = {"parquet": pq.read_schema, "arrow": _schema_of_arrow}
