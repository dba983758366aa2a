"""Rows that come twice: the same row again is left out, a row that contradicts another one is refused."""

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
from datasets import Dataset

from hf_gradalign.data.errors import CorpusError
from hf_gradalign.data.labels import LABEL_NAMES
from hf_gradalign.data.text_values import comparable
from hf_gradalign.data.utterance_ids import empty_ids, file_ids, repeated

logger = logging.getLogger(__name__)

_SHOWN = 5
_BY_FILES = "name clips by their files with --id_column_name none"


@dataclass(frozen=True)
class _Row:
    """A row that may be another one's repeat: its number, name, file, label and all that it says."""

    number: int
    name: str
    path: str | None
    file: Hashable
    label: int | None
    rest: str

    def __str__(self) -> str:
        label = "no label" if self.label is None else LABEL_NAMES[self.label]
        return f"row {self.number + 1} ({self.path or self.name}, {label})"


def with_unique_ids(dataset: Dataset, shown: str) -> Dataset:
    """Each clip once, each with an id that no other has.

    Ids of its own must be there for all clips, or for none; clips without are named by their files (`file_ids`).

    Args:
        dataset: in the common form, with `utterance_id` where the corpus has ids of its own.
        shown: what messages call it.

    Returns:
        The data set with `utterance_id`; rows that say exactly what an earlier one says are left out, with a warning.

    Raises:
        CorpusError: if ids are missing, if the same id or the same file has both labels, or if an id of the corpus' own
            is that of two different clips. Both rows are named.
    """
    ids = _own_ids(dataset, shown)
    audio = _Audio(dataset)
    candidates = _candidates(audio.paths if ids is None else ids, audio.files)
    dropped: set[int] = set()
    if candidates.size:
        rows = _rows(dataset, candidates, ids, audio)
        _refuse_contradictions(rows, shown, has_ids=ids is not None)
        dropped = _repeats(rows, shown, has_ids=ids is not None)
        if ids is not None:
            _refuse_doubled_ids([row for row in rows if row.number not in dropped], shown)
    kept = np.setdiff1d(np.arange(len(dataset)), list(dropped))
    if ids is None:
        dataset = _named_by_files(dataset, audio.paths, kept, shown)
    # Last of all: a column that is added to chosen rows copies them, audio and all.
    return dataset.select(kept) if dropped else dataset


def refuse_contradictions_between(parts: Mapping[str, Dataset]) -> None:
    """See that no audio file has one label in one data set and the other in another one.

    Args:
        parts: data sets in the common form, by what messages call them.

    Raises:
        CorpusError: if one has; the message names the file and both.
    """
    tables = []
    for number, dataset in enumerate(parts.values()):
        columns = {"file": _Audio(dataset).files, "label": _column(dataset, "label")}
        tables.append(pa.table(columns | {"part": pa.repeat(pa.scalar(number), len(dataset))}))
    table = pa.concat_tables(tables)
    table = table.filter(pc.and_(pc.is_valid(table["file"]), pc.is_valid(table["label"])))
    labels = table.group_by("file").aggregate([("label", "min"), ("label", "max")])
    both = labels.filter(pc.not_equal(labels["label_min"], labels["label_max"]))
    if both.num_rows == 0:
        return
    file = both["file"][0].as_py()
    names = list(parts)
    said = table.filter(pc.equal(table["file"], file)).to_pylist()
    listed = ", ".join(dict.fromkeys(f"{LABEL_NAMES[row['label']]} in {names[row['part']]}" for row in said))
    raise CorpusError(
        f"{both.num_rows} audio files have both labels, such as {file}: {listed}. Correct the wrong one; a label's "
        "meaning can be given per corpus, as in --label_map CORPUS:0=spoof CORPUS:1=bonafide."
    )


class _Audio:
    """What the column `audio` says without being read.

    Attributes:
        paths: of the clips.
        lengths: of their bytes, null where there are none.
        files: the paths of those without bytes, equal for the same file however it is written; null for the others.
    """

    def __init__(self, dataset: Dataset) -> None:
        audio = dataset.select_columns(["audio"]).with_format("arrow")[:]["audio"]
        # Field by field: all clips' bytes in one array may be more than Arrow's offsets can tell.
        self.paths = _flat(pc.struct_field(audio, "path")).cast(pa.string())
        self.lengths = _flat(pc.binary_length(pc.struct_field(audio, "bytes")))
        self.files = _normal_paths(pc.if_else(pc.is_null(self.lengths), self.paths, None))


def _own_ids(dataset: Dataset, shown: str) -> pa.Array | None:
    if "utterance_id" not in dataset.column_names:
        return None
    ids = _column(dataset, "utterance_id")
    if ids.null_count == len(ids):
        return None
    if ids.null_count:
        raise CorpusError(
            f"{shown}: {ids.null_count} of {len(ids)} utterance ids are empty (rows {empty_ids(ids)}). Fill them in, "
            f"name another column with --id_column_name, or {_BY_FILES}."
        )
    return ids


def _named_by_files(dataset: Dataset, paths: pa.Array, kept: np.ndarray, shown: str) -> Dataset:
    """The data set with names for the rows that are kept."""
    if "utterance_id" in dataset.column_names:
        logger.warning("%s: the column of utterance ids is empty; clips are named by their files.", shown)
        dataset = dataset.remove_columns("utterance_id")
    names = file_ids(paths.take(pa.array(kept)))
    if pc.count_distinct(names).as_py() != len(names):
        raise CorpusError(
            f"{shown}: files are called {', '.join(repeated(names).to_pylist()[:_SHOWN])}, as others are named by "
            "their rows or paths. Give clips a column utterance_id."
        )
    is_kept = np.zeros(len(dataset), dtype=bool)
    is_kept[kept] = True
    of_all = pc.replace_with_mask(pa.nulls(len(dataset), pa.string()), pa.array(is_kept), names)
    return dataset.add_column("utterance_id", of_all)


def _candidates(names: pa.Array, files: pa.Array) -> np.ndarray:
    """The rows whose name or file is another one's too."""
    doubled = pc.is_in(names, value_set=repeated(names))
    doubled = pc.or_(doubled, pc.is_in(files, value_set=repeated(files)))
    return np.flatnonzero(doubled.to_numpy(zero_copy_only=False))


def _rows(dataset: Dataset, candidates: np.ndarray, ids: pa.Array | None, audio: _Audio) -> list[_Row]:
    others = [name for name in dataset.column_names if name not in ("audio", "utterance_id", "label")]
    chosen = dataset.with_format(None).select(candidates)
    rest = chosen.select_columns(others) if others else None
    labels = chosen["label"][:]
    numbers = candidates.tolist()
    names = pc.coalesce(audio.files, audio.paths) if ids is None else ids
    files = _files(dataset, numbers, audio)
    return [
        _Row(
            number,
            name=names[number].as_py() or "",
            path=audio.paths[number].as_py(),
            file=file,
            label=labels[place],
            rest="" if rest is None else repr(rest[place]),
        )
        for place, (number, file) in enumerate(zip(numbers, files, strict=True))
    ]


def _files(dataset: Dataset, numbers: Sequence[int], audio: _Audio) -> list[Hashable]:
    """What tells the rows' audio apart: its file, else its bytes, which are read only where that may matter."""
    looks = [(audio.paths[number].as_py(), audio.lengths[number].as_py()) for number in numbers]
    counts = Counter(looks)
    files: list[Hashable] = []
    for number, look in zip(numbers, looks, strict=True):
        file = audio.files[number].as_py()
        if file is None:
            file = ("row", number)
            if look[1] is not None and counts[look] > 1:
                file = ("bytes", hashlib.blake2b(dataset[number]["audio"]["bytes"]).hexdigest())
        files.append(file)
    return files


def _refuse_contradictions(rows: Sequence[_Row], shown: str, *, has_ids: bool) -> None:
    pairs = {}
    for key in ("file", "name") if has_ids else ("file",):
        for group in _groups(rows, key):
            first = {row.label: row for row in reversed(group) if row.label is not None}
            if len(first) > 1:
                pair = sorted(first.values(), key=lambda row: row.number)
                pairs[tuple(row.number for row in pair)] = " and ".join(map(str, pair))
    if pairs:
        raise CorpusError(
            f"{shown}: {_counted(len(pairs), 'clip has', 'clips have')} both labels: {_few(list(pairs.values()))}. "
            "Correct or remove one of the rows."
        )


def _repeats(rows: Sequence[_Row], shown: str, *, has_ids: bool) -> set[int]:
    """The rows that say what an earlier one says."""
    first: dict[Hashable, _Row] = {}
    dropped = []
    for row in rows:
        if first.setdefault((row.name, row.file, row.label, row.rest), row) is not row:
            dropped.append(row)
    if dropped:
        listed = _few([str(row) for row in dropped])
        count = _counted(len(dropped), "row repeats an earlier one and is", "rows repeat earlier ones and are")
        logger.warning("%s: %s left out: %s.", shown, count, listed)
    numbers = {row.number for row in dropped}
    left = [row for row in rows if row.number not in numbers]
    again = [row for group in _groups(left, "file") for row in group[1:] if not isinstance(row.file, tuple)]
    if again:
        count = _counted(len(again), "row names an audio file", "rows name audio files")
        called = "" if has_ids else " These clips are named by their rows."
        listed = _few([str(row) for row in again])
        logger.warning("%s: %s that an earlier one names, with other values: %s.%s", shown, count, listed, called)
    return numbers


def _refuse_doubled_ids(rows: Sequence[_Row], shown: str) -> None:
    groups = _groups(rows, "name")
    if groups:
        listed = [f"{group[0].name}: {' and '.join(map(str, group[:2]))}" for group in groups]
        raise CorpusError(
            f"{shown}: {_counted(len(groups), 'utterance id is', 'utterance ids are')} not unique. {_few(listed)}. "
            f"Correct them, name another column with --id_column_name, or {_BY_FILES}."
        )


def _groups(rows: Sequence[_Row], key: str) -> list[list[_Row]]:
    groups: dict[Any, list[_Row]] = defaultdict(list)
    for row in rows:
        groups[getattr(row, key)].append(row)
    return [group for group in groups.values() if len(group) > 1]


def _normal_paths(paths: pa.Array) -> pa.Array:
    is_odd = pc.match_substring_regex(paths, r"//|/\.{1,2}(/|$)|^\.{1,2}/")
    is_odd = pc.fill_null(pc.and_(is_odd, pc.invert(pc.match_substring(paths, "://"))), False)
    if pc.any(is_odd).as_py():
        tidied = pa.array([os.path.normpath(path) for path in paths.filter(is_odd).to_pylist()], pa.string())
        paths = pc.replace_with_mask(paths, is_odd, tidied)
    return comparable(paths)


def _column(dataset: Dataset, name: str) -> pa.Array:
    return _flat(dataset.select_columns([name]).with_format("arrow")[:][name])


def _flat(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _counted(number: int, one: str, several: str) -> str:
    return f"{number} {one if number == 1 else several}"


def _few(items: Sequence[str]) -> str:
    return "; ".join(items[:_SHOWN]) + (f"; and {len(items) - _SHOWN} more" if len(items) > _SHOWN else "")
