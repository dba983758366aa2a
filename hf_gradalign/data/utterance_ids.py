"""Utterance ids: a corpus' own as text, whatever they are stored as; else the names of the files."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel
from datasets.features.features import FeatureType

from hf_gradalign.data.errors import CorpusError
from hf_gradalign.data.text_values import comparable

_EXACT_IN_DOUBLES = 2**53
_SHOWN = 10


def ids_as_text(column: pa.ChunkedArray, feature: FeatureType, shown: str) -> pa.Array:
    """A column of ids as strings: stripped, in one Unicode form, null for empty ones.

    Args:
        column: text, whole numbers (also as floats, as pandas writes them), bytes, dates, ...
        feature: what `datasets` takes them for.
        shown: what errors call the column.

    Raises:
        CorpusError: if it holds what cannot be an id: several values a clip, fractions, bytes that are no text.
    """
    values = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(feature, ClassLabel):
        values = pa.array(feature.names, pa.string()).take(values)
    elif pa.types.is_floating(values.type):
        values = _whole(values, shown)
    try:
        text = comparable(values.cast(pa.string()))
    except (pa.ArrowException, NotImplementedError) as error:
        raise CorpusError(
            f"{shown} holds {values.type}, not one id per clip. Name the right column with --id_column_name, or name "
            "clips by their files with --id_column_name none."
        ) from error
    return pc.if_else(pc.equal(text, ""), None, text)


def file_ids(paths: pa.Array) -> pa.Array:
    """A name for each clip: its file's name without ending; where that is there twice, its path; else its row.

    Only the clips whose names are there twice get another one.

    Args:
        paths: of the clips, null or empty where there is none.
    """
    paths = pc.fill_null(paths, "")
    rows = pa.array([f"row_{row:06d}" for row in range(len(paths))], pa.string())
    # The name without folders and its last ending, as pathlib has it: a leading dot is no ending.
    stems = pc.replace_substring_regex(pc.replace_substring_regex(paths, r"^.*/", ""), r"([^.])\.[^.]*$", r"\1")
    stems = comparable(stems)
    names = pc.if_else(_is_repeated(paths), rows, paths)
    return pc.if_else(_is_repeated(stems), names, stems)


def empty_ids(ids: pa.Array) -> str:
    """The rows without an id, counted from 1, for messages."""
    rows = pc.indices_nonzero(pc.is_null(ids)).to_pylist()
    return ", ".join(str(row + 1) for row in rows[:_SHOWN]) + (", ..." if len(rows) > _SHOWN else "")


def repeated(names: pa.Array) -> pa.Array:
    """Those of the names that are there more than once, each once."""
    counts = pc.value_counts(names.drop_null())
    return counts.filter(pc.greater(counts.field("counts"), 1)).field("values")


def _is_repeated(names: pa.Array) -> pa.Array:
    return pc.or_(pc.is_in(names, value_set=repeated(names)), pc.equal(names, ""))


def _whole(values: pa.Array, shown: str) -> pa.Array:
    values = pc.if_else(pc.is_nan(values), None, values).cast(pa.float64())
    outside = pc.or_(pc.not_equal(values, pc.floor(values)), pc.greater_equal(pc.abs(values), _EXACT_IN_DOUBLES))
    if pc.any(outside).as_py():
        example = values.filter(outside)[0].as_py()
        raise CorpusError(
            f"{shown} holds {example}, which is no whole number, or too large a one to be exact as a float. Store ids "
            "as text, name another column with --id_column_name, or name clips by their files with "
            "--id_column_name none."
        )
    return values.cast(pa.int64())
