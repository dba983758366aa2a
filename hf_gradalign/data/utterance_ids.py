"""Unique utterance ids: the corpus' own ids as text, or file names. Handles repeated and contradictory rows."""

from __future__ import annotations

import hashlib
import logging
import os.path
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset
from datasets.features.features import FeatureType

from hf_gradalign.data.arrow import Column, arrow_column, flat, with_slashes
from hf_gradalign.data.labels import LABEL_NAMES
from hf_gradalign.data.request import CorpusError
from hf_gradalign.utils.messages import first_few, pluralize
from hf_gradalign.utils.plain_text import comparable_column

logger = logging.getLogger(__name__)

_EXACT_IN_DOUBLES = 2**53
_MAX_IDS = 10
_BY_FILES = "name clips by their files with --id_column_name none"


def ids_as_text(column: Column, feature: FeatureType | None, display_name: str) -> pa.Array:
    """Convert a column of ids to strings, stripped and in one Unicode form; empty ids become null.

    Args:
        column: Text, integers (also as floats, as pandas writes them), bytes, dates, ...
        feature: The column's type in `datasets`.
        display_name: The column's name for messages.

    Raises:
        CorpusError: If the values cannot be ids: lists, fractions, or bytes that are not text.
    """
    values = flat(column)
    if isinstance(feature, ClassLabel):
        values = pa.array(feature.names, pa.string()).take(values)
    elif pa.types.is_floating(values.type):
        values = _to_whole_numbers(values, display_name)
    try:
        text = comparable_column(values.cast(pa.string()))
    except (pa.ArrowException, NotImplementedError) as error:
        raise CorpusError(
            f"{display_name} holds {values.type}, not one id per clip. Name the right column with --id_column_name, or "
            "name clips by their files with --id_column_name none."
        ) from error
    return pc.if_else(pc.equal(text, ""), None, text)


def file_ids(paths: pa.Array) -> pa.Array:
    """Name clips by their files: the file name without extension, or the path if names repeat, otherwise the row.

    Only clips with repeated names are named by path or row.

    Args:
        paths: The clips' paths; null or empty without a file.
    """
    paths = pc.fill_null(paths, "")
    rows = pa.array([f"row_{row:06d}" for row in range(len(paths))], pa.string())
    # The stem as in pathlib, where a leading dot does not begin an extension.
    stems = pc.replace_substring_regex(pc.replace_substring_regex(paths, r"^.*/", ""), r"([^.])\.[^.]*$", r"\1")
    stems = comparable_column(stems)
    names = pc.if_else(_is_repeated(paths), rows, paths)
    return pc.if_else(_is_repeated(stems), names, stems)


def with_unique_ids(dataset: Dataset, display_name: str) -> Dataset:
    """Give each clip a unique id, and leave out repeated clips.

    Either all clips have ids in the corpus, or none has one, and all are named by their files (`file_ids`).

    Args:
        dataset: With the standard columns, and `utterance_id` if the corpus has ids.
        display_name: The data set's name for messages.

    Returns:
        The data set with `utterance_id`. Exact repetitions of earlier rows are left out, with a warning.

    Raises:
        CorpusError: If ids are missing, the same id or file has both labels, or two different clips have the same id.
            The message names both rows.
    """
    ids = _own_ids(dataset, display_name)
    audio = AudioSources(dataset)
    candidates = _candidates(audio.paths if ids is None else ids, audio.files)
    dropped: set[int] = set()
    if candidates.size:
        rows = _rows(dataset, candidates, ids, audio)
        _refuse_contradictions(rows, display_name, has_ids=ids is not None)
        dropped = _find_repeats(rows, display_name, has_ids=ids is not None)
        if ids is not None:
            _refuse_duplicate_ids([row for row in rows if row.number not in dropped], display_name)
    kept = np.setdiff1d(np.arange(len(dataset)), list(dropped))
    if ids is None:
        dataset = _name_by_files(dataset, audio.paths, kept, display_name)
    # Select last, because adding a column to selected rows would copy them, including audio.
    return dataset.select(kept) if dropped else dataset


def refuse_contradictions_between(parts: Mapping[str, Dataset]) -> None:
    """Check that no audio file has different labels in different data sets.

    Args:
        parts: Data sets with the standard columns, by their names for messages.

    Raises:
        CorpusError: If there is such a file. The message names the file and both data sets.
    """
    tables = []
    for number, dataset in enumerate(parts.values()):
        columns = {"file": AudioSources(dataset).files, "label": flat(arrow_column(dataset, "label"))}
        tables.append(pa.table(columns | {"part": pa.repeat(pa.scalar(number), len(dataset))}))
    table = pa.concat_tables(tables)
    table = table.filter(pc.and_(pc.is_valid(table["file"]), pc.is_valid(table["label"])))
    labels = table.group_by("file").aggregate([("label", "min"), ("label", "max")])
    both = labels.filter(pc.not_equal(labels["label_min"], labels["label_max"]))
    if both.num_rows == 0:
        return
    file = both["file"][0].as_py()
    names = list(parts)
    rows = table.filter(pc.equal(table["file"], file)).to_pylist()
    places = ", ".join(dict.fromkeys(f"{LABEL_NAMES[row['label']]} in {names[row['part']]}" for row in rows))
    raise CorpusError(
        f"{both.num_rows} audio files have both labels, such as {file}: {places}. Correct the wrong label. You can "
        "give a label's meaning per corpus, as in --label_map CORPUS:0=spoof CORPUS:1=bonafide."
    )


@dataclass(frozen=True)
class _CandidateRow:
    """A row that may repeat another one: its number, name, file, label and all other columns."""

    number: int
    name: str
    path: str | None
    file: Hashable
    label: int | None
    rest: str

    def __str__(self) -> str:
        label = "no label" if self.label is None else LABEL_NAMES[self.label]
        return f"row {self.number + 1} ({self.path or self.name}, {label})"


class AudioSources:
    """What the column `audio` says about clips, without reading any audio.

    Attributes:
        paths: Paths of the clips.
        lengths: Lengths of their bytes; null without bytes.
        files: Normalized paths of clips without bytes, equal for the same file; null for clips with bytes.
    """

    def __init__(self, dataset: Dataset) -> None:
        audio = arrow_column(dataset, "audio")
        # Read by field, because the bytes of all clips together may exceed Arrow's offsets.
        self.paths = flat(pc.struct_field(audio, "path")).cast(pa.string())
        self.lengths = flat(pc.binary_length(pc.struct_field(audio, "bytes")))
        self.files = _normalize_paths(pc.if_else(pc.is_null(self.lengths), self.paths, None))


def _own_ids(dataset: Dataset, display_name: str) -> pa.Array | None:
    if "utterance_id" not in dataset.column_names:
        return None
    ids = flat(arrow_column(dataset, "utterance_id"))
    if ids.null_count == len(ids):
        return None
    if ids.null_count:
        raise CorpusError(
            f"{display_name}: {ids.null_count} of {len(ids)} utterance ids are empty (rows "
            f"{_describe_empty_ids(ids)}). Fill them in, name another column with --id_column_name, or {_BY_FILES}."
        )
    return ids


def _name_by_files(dataset: Dataset, paths: pa.Array, kept: np.ndarray, display_name: str) -> Dataset:
    """Name the rows that are kept."""
    if "utterance_id" in dataset.column_names:
        logger.warning("%s: the column of utterance ids is empty, so clips are named by their files.", display_name)
        dataset = dataset.remove_columns("utterance_id")
    names = file_ids(paths.take(pa.array(kept)))
    if pc.count_distinct(names).as_py() != len(names):
        raise CorpusError(
            f"{display_name}: the names of files {first_few(_repeated_names(names).to_pylist())} are also given to "
            "other clips by their rows or paths. Add a column utterance_id."
        )
    is_kept = np.zeros(len(dataset), dtype=bool)
    is_kept[kept] = True
    of_all = pc.replace_with_mask(pa.nulls(len(dataset), pa.string()), pa.array(is_kept), names)
    return dataset.add_column("utterance_id", of_all)


def _candidates(names: pa.Array, files: pa.Array) -> np.ndarray:
    """Return the rows that share their name or file with another row."""
    doubled = pc.is_in(names, value_set=_repeated_names(names))
    doubled = pc.or_(doubled, pc.is_in(files, value_set=_repeated_names(files)))
    return np.flatnonzero(doubled.to_numpy(zero_copy_only=False))


def _rows(dataset: Dataset, candidates: np.ndarray, ids: pa.Array | None, audio: AudioSources) -> list[_CandidateRow]:
    others = [name for name in dataset.column_names if name not in ("audio", "utterance_id", "label")]
    chosen = dataset.with_format(None).select(candidates)
    rest = chosen.select_columns(others) if others else None
    labels = chosen["label"][:]
    numbers = candidates.tolist()
    names = pc.coalesce(audio.files, audio.paths) if ids is None else ids
    files = _files(dataset, numbers, audio)
    return [
        _CandidateRow(
            number,
            name=names[number].as_py() or "",
            path=audio.paths[number].as_py(),
            file=file,
            label=labels[index],
            rest="" if rest is None else repr(rest[index]),
        )
        for index, (number, file) in enumerate(zip(numbers, files, strict=True))
    ]


def _files(dataset: Dataset, numbers: Sequence[int], audio: AudioSources) -> list[Hashable]:
    """Return what identifies each row's audio: its file, or its bytes, which are read only if rows may be equal."""
    keys = [(audio.paths[number].as_py(), audio.lengths[number].as_py()) for number in numbers]
    counts = Counter(keys)
    files: list[Hashable] = []
    for number, key in zip(numbers, keys, strict=True):
        file = audio.files[number].as_py()
        if file is None:
            file = ("row", number)
            if key[1] is not None and counts[key] > 1:
                file = ("bytes", hashlib.blake2b(dataset[number]["audio"]["bytes"]).hexdigest())
        files.append(file)
    return files


def _refuse_contradictions(rows: Sequence[_CandidateRow], display_name: str, *, has_ids: bool) -> None:
    pairs = {}
    for key in ("file", "name") if has_ids else ("file",):
        for group in _group_rows(rows, key):
            first = {row.label: row for row in reversed(group) if row.label is not None}
            if len(first) > 1:
                pair = sorted(first.values(), key=lambda row: row.number)
                pairs[tuple(row.number for row in pair)] = " and ".join(map(str, pair))
    if pairs:
        raise CorpusError(
            f"{display_name}: {pluralize(len(pairs), 'clip has', 'clips have')} both labels: "
            f"{first_few(list(pairs.values()), separator='; ')}. Correct or remove one of the rows."
        )


def _find_repeats(rows: Sequence[_CandidateRow], display_name: str, *, has_ids: bool) -> set[int]:
    """Return the rows that repeat an earlier one."""
    first: dict[Hashable, _CandidateRow] = {}
    dropped = []
    for row in rows:
        if first.setdefault((row.name, row.file, row.label, row.rest), row) is not row:
            dropped.append(row)
    if dropped:
        count = pluralize(len(dropped), "row repeats an earlier one and is", "rows repeat earlier ones and are")
        logger.warning("%s: %s left out: %s.", display_name, count, first_few(dropped, separator="; "))
    numbers = {row.number for row in dropped}
    left = [row for row in rows if row.number not in numbers]
    again = [row for group in _group_rows(left, "file") for row in group[1:] if not isinstance(row.file, tuple)]
    if again:
        count = pluralize(len(again), "row names an audio file", "rows name audio files")
        called = "" if has_ids else " These clips are named by their rows."
        message = "%s: %s that an earlier one names, with other values: %s.%s"
        logger.warning(message, display_name, count, first_few(again, separator="; "), called)
    return numbers


def _refuse_duplicate_ids(rows: Sequence[_CandidateRow], display_name: str) -> None:
    groups = _group_rows(rows, "name")
    if groups:
        pairs = [f"{group[0].name}: {' and '.join(map(str, group[:2]))}" for group in groups]
        raise CorpusError(
            f"{display_name}: {pluralize(len(groups), 'utterance id is', 'utterance ids are')} not unique. "
            f"{first_few(pairs, separator='; ')}. Correct them, name another column with --id_column_name, or "
            f"{_BY_FILES}."
        )


def _group_rows(rows: Sequence[_CandidateRow], key: str) -> list[list[_CandidateRow]]:
    groups: dict[Any, list[_CandidateRow]] = defaultdict(list)
    for row in rows:
        groups[getattr(row, key)].append(row)
    return [group for group in groups.values() if len(group) > 1]


def _normalize_paths(paths: pa.Array) -> pa.Array:
    is_odd = pc.match_substring_regex(paths, r"//|/\.{1,2}(/|$)|^\.{1,2}/")
    is_odd = pc.fill_null(pc.and_(is_odd, pc.invert(pc.match_substring(paths, "://"))), False)
    if pc.any(is_odd).as_py():
        tidied = pa.array([os.path.normpath(path) for path in paths.filter(is_odd).to_pylist()], pa.string())
        paths = pc.replace_with_mask(paths, is_odd, with_slashes(tidied))
    return comparable_column(paths)


def _describe_empty_ids(ids: pa.Array) -> str:
    """Return the rows without an id, counted from 1, for messages."""
    return first_few([row + 1 for row in pc.indices_nonzero(pc.is_null(ids)).to_pylist()], _MAX_IDS)


def _repeated_names(names: pa.Array) -> pa.Array:
    """Return the names that occur more than once, without duplicates."""
    counts = pc.value_counts(names.drop_null())
    return counts.filter(pc.greater(counts.field("counts"), 1)).field("values")


def _is_repeated(names: pa.Array) -> pa.Array:
    return pc.or_(pc.is_in(names, value_set=_repeated_names(names)), pc.equal(names, ""))


def _to_whole_numbers(values: pa.Array, display_name: str) -> pa.Array:
    values = pc.if_else(pc.is_nan(values), None, values).cast(pa.float64())
    outside = pc.or_(pc.not_equal(values, pc.floor(values)), pc.greater_equal(pc.abs(values), _EXACT_IN_DOUBLES))
    if pc.any(outside).as_py():
        example = values.filter(outside)[0].as_py()
        raise CorpusError(
            f"{display_name} holds {example}, which is not a whole number, or too large to be exact as a float. Store "
            "ids as text, name another column with --id_column_name, or name clips by their files with "
            "--id_column_name none."
        )
    return values.cast(pa.int64())
