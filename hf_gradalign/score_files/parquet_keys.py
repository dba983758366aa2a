"""Labels from parquet files, such as the data sets of the Arena; audio in them is not read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import ClassLabel, Features
from numpy.typing import NDArray

from hf_gradalign.data.corpora.arena import LABEL_MAP, read_notes
from hf_gradalign.score_files.clips import Clips, flat, read_labels
from hf_gradalign.score_files.column_names import IDS, LABELS, is_one_of
from hf_gradalign.score_files.errors import ScoreFileError

_AUDIO = "audio"
_USUAL_LABELS = ("label", "labels", "key", *LABELS)
_USUAL_IDS = ("utterance_id", "id", "path", "file", "file_name", *IDS)
_ARENA_LABELS = "labels.parquet"


def is_parquet(path: Path) -> bool:
    """Whether a path is a parquet file, a pattern of such, or a folder with some."""
    return path.suffix == ".parquet" or (path.is_dir() and bool(_files(path)))


def read_parquet_keys(
    path: Path,
    *,
    id_column: str | None = None,
    label_column: str | None = None,
    label_map: Mapping[str, str] | None = None,
) -> Clips:
    """Read labels from parquet files.

    Labels have names by the files' own schema, or by `label_map`; those of the Arena's form (a column `notes`, or
    `data/labels.parquet`) are its numbers, 0 bona fide and 1 spoof. Its notes give ids, speakers, systems and so on.

    Raises:
        ScoreFileError: If there is no such file, or it has no labels, no ids, or labels that mean nothing.
    """
    files = _files(path)
    if not files:
        raise ScoreFileError(f"There is no file {path}.")
    try:
        return _read_keys(path, files, id_column, label_column, label_map)
    except ScoreFileError:
        raise
    except (OSError, pa.ArrowException, KeyError, TypeError, AttributeError, ValueError) as error:
        # The last are of what `datasets` takes the schema's notes for, where others wrote them.
        raise ScoreFileError(f"Cannot read {path}: {error!r}") from error


def _read_keys(
    path: Path,
    files: list[Path],
    id_column: str | None,
    label_column: str | None,
    label_map: Mapping[str, str] | None,
) -> Clips:
    schema = pq.read_schema(files[0])
    names = [name for name in schema.names if name != _AUDIO]
    table = pa.concat_tables([pq.read_table(file, columns=names) for file in files])
    source = str(path)
    label = _column(source, names, label_column, _USUAL_LABELS, "labels", "--label_column")
    values = table[label]
    feature = Features.from_arrow_schema(schema).get(label)
    if isinstance(feature, ClassLabel):
        numbers = values.combine_chunks().cast(pa.int64())
        numbers = pc.if_else(pc.less(numbers, 0), None, numbers)  # -1 stands for no label
        values = pa.array(feature.names, pa.string()).take(numbers)
    elif label_map is None and ("notes" in names or files[0].name == _ARENA_LABELS):
        label_map = LABEL_MAP
    labels, types = read_labels(flat(values), source, label_map)
    columns = {
        name: flat(table[name])
        for name in names
        if name not in (label, "notes") and _is_plain(table.schema.field(name))
    }
    if "notes" in names:
        columns |= _from_notes(table["notes"], labels)
    ids = columns.pop(_column(source, list(columns), id_column, _USUAL_IDS, "utterance ids", "--id_column"))
    return Clips(source, ids, labels=labels, trial_types=types, columns=columns)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if path.is_dir():
        tests = sorted(path.glob("data/test-*.parquet")) or sorted(path.glob("test-*.parquet"))
        labels = sorted(path.glob(f"data/{_ARENA_LABELS}")) + sorted(path.glob(_ARENA_LABELS))
        return tests or labels[:1]
    return sorted(path.parent.glob(path.name))


def _column(source: str, names: list[str], given: str | None, usual: tuple[str, ...], what: str, option: str) -> str:
    wanted = usual if given is None else (given,)
    found = next((name for other in wanted for name in names if is_one_of(name, (other,))), None)
    if found is None:
        looked_for = given or " or ".join(wanted[:3])
        raise ScoreFileError(
            f"{source} has no column {looked_for} with {what} among {', '.join(names)}; name it with {option}."
        )
    return found


def _is_plain(field: pa.Field) -> bool:
    return not pa.types.is_nested(field.type) and not pa.types.is_null(field.type)


def _from_notes(notes: pa.ChunkedArray, labels: NDArray[np.int64]) -> dict[str, pa.Array]:
    rows = [read_notes(text, label) for text, label in zip(notes.to_pylist(), labels, strict=True)]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return {name: pa.array(values, pa.string()) for name, values in columns.items() if any(values)}
