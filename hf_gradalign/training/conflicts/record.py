"""The conflict record with one row per update: a file that is readable at any time, and its rows as arrays."""

import errno
import json
import math
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from hf_gradalign.utils.files import refuse_link_out, require_reachable
from hf_gradalign.utils.table_bounds import parse_json

RecordFormat = Literal["jsonl", "parquet"]
Row = dict[str, Any]
Pair = tuple[str, str]
Floats = NDArray[np.float64]

RUNNING_NAME = "conflicts.jsonl"
PARQUET_NAME = "conflicts.parquet"

_ROW_GROUP = 5000
_GAP = array("d", [math.nan])
_TYPES = {
    "step": pa.int64(),
    "epoch": pa.float64(),
    "conflict": pa.bool_(),
    "skipped": pa.bool_(),
    "module": pa.list_(pa.string()),
    "ids": pa.list_(pa.string()),
}


class ConflictRecord:
    """Writes a run's conflict record, `conflicts.jsonl` or `conflicts.parquet` in its folder.

    During the run, the record is in JSON Lines for both formats. Rows can be appended to JSON Lines, and a killed
    process leaves at most an incomplete last line. A Parquet file without its footer cannot be read at all. When
    training ends, the record is converted to Parquet if you chose that format. When a run is resumed, it is converted
    back.

    Args:
        folder: The run's folder, created if it does not exist.
        file_format: Format of a finished run's record, "jsonl" or "parquet".
    """

    def __init__(self, folder: str | Path, file_format: RecordFormat = "jsonl") -> None:
        self.folder = Path(folder)
        self.file_format = file_format

    def begin(self, step: int, resumed_from: Path | None = None) -> int:
        """Truncate the record after `step` and prepare to append.

        Args:
            step: Updates so far: 0 in a new run, the checkpoint's step in a resumed one.
            resumed_from: Folder of the run that the checkpoint is from. If `folder` has no record, that run's record
                is continued.

        Returns:
            The step of the last row kept, 0 if there is none.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        running, finished = self.folder / RUNNING_NAME, self.folder / PARQUET_NAME
        refuse_link_out(running, self.folder)
        source = find_conflict_record(self.folder)
        if source is None and resumed_from is not None:
            source = find_conflict_record(resumed_from)
        last = 0
        if step == 0 or source is None:
            running.unlink(missing_ok=True)
        elif source == running:
            last = _truncate_after(running, step)
        else:
            temporary = self.folder / f"_{RUNNING_NAME}"  # names with a leading underscore are not published
            temporary.unlink(missing_ok=True)  # never write through a link
            with temporary.open("w", encoding="utf-8", newline="\n") as file:
                for row in read_conflict_rows(source):
                    if row["step"] <= step:
                        last = row["step"]
                        file.write(_to_json_line(row))
            os.replace(temporary, running)
        finished.unlink(missing_ok=True)
        return last

    def append(self, rows: Iterable[Row]) -> None:
        """Append rows, in which non-finite numbers must be None."""
        refuse_link_out(self.folder / RUNNING_NAME, self.folder)
        text = "".join(map(_to_json_line, rows))
        content, path = text.encode(), self.folder / RUNNING_NAME
        with path.open("ab", buffering=0) as file:
            end = file.tell()
            try:
                if file.write(content) < len(content):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            except OSError:  # an incomplete line would make the later ones unreadable
                file.truncate(end)
                raise

    def finish(self) -> None:
        """Convert the record to `file_format`."""
        running = self.folder / RUNNING_NAME
        if self.file_format != "parquet" or not running.is_file():
            return
        names = {name: None for row in read_conflict_rows(running) for name in row}
        schema = pa.schema([(name, _type_of(name)) for name in names])
        temporary = self.folder / f"_{PARQUET_NAME}"
        temporary.unlink(missing_ok=True)
        with parquet.ParquetWriter(temporary, schema) as writer:
            for rows in _batched(read_conflict_rows(running), _ROW_GROUP):
                writer.write_table(pa.Table.from_pylist(rows, schema))
        os.replace(temporary, self.folder / PARQUET_NAME)
        running.unlink()


class ConflictHistory:
    """A run's conflict record as arrays, for S updates of K views. NaN where no finite value was recorded.

    Args:
        rows: Rows of a conflict record, as returned by `read_conflict_rows`.

    Attributes:
        views: Names of the K views.
        pairs: All pairs of views; empty for a single view.
        steps: Shape (S,), step numbers of the updates.
        epochs: Shape (S,), epoch of each update, counted from 1.
        losses: For each view, shape (S,).
        norms: For each view, shape (S,), norms of the gradients.
        conflicts: Shape (S,), 1 if any two views conflicted and 0 if none did.
        cosines: For each pair, shape (S,), in [-1, 1].
        norm_ratios: For each pair (a, b), shape (S,), |g_b| / |g_a|.
        modules: Names of the M recorded modules, in the model's order; empty if none were recorded.
        module_cosines: For each pair, shape (S, M).
        module_norms: For each view, shape (S, M).
    """

    def __init__(self, rows: Iterable[dict[str, Any]]) -> None:
        steps, epochs = array("q"), array("q")
        views: dict[str, None] = {}
        self.modules: list[str] = []
        known: set[str] = set()
        # By column, or column and module: numbers in Python objects would take five times the memory.
        numbers: dict[str | tuple[str, str], array[float]] = {}

        def add(name: str | tuple[str, str], number: float | None) -> None:
            column = numbers.setdefault(name, array("d"))
            column.extend(_GAP * (len(steps) - 1 - len(column)))
            column.append(math.nan if number is None else number)

        for row in rows:
            steps.append(row["step"])
            epochs.append(epoch_number(row["epoch"]))
            views.update(dict.fromkeys(views_of(row)))
            modules = row.get("module") or ()
            if not known.issuperset(modules):
                _merge(self.modules, modules)
                known.update(modules)
            for name, value in row.items():
                if name.startswith(("cosine_", "norm_ratio_", "loss_", "grad_norm_")) or name == "conflict":
                    add(name, value)
                elif name.startswith(("module_cosine_", "module_grad_norm_")) and value:
                    for module, number in zip(modules, value, strict=True):
                        add((name, module), number)
        self.views = list(views)
        self.pairs: list[Pair] = list(combinations(self.views, 2))
        self.steps = np.array(steps, dtype=int)
        self.epochs = np.array(epochs, dtype=int)

        def column(name: str | tuple[str, str]) -> Floats:
            values = np.full(len(steps), np.nan)
            recorded = numbers.pop(name, _GAP)
            values[: len(recorded)] = recorded
            return values

        def matrix(name: str) -> Floats:
            values = np.empty((len(steps), len(self.modules)))
            for index, module in enumerate(self.modules):
                values[:, index] = column((name, module))
            return values

        self.losses = {view: column(f"loss_{view}") for view in self.views}
        self.norms = {view: column(f"grad_norm_{view}") for view in self.views}
        self.conflicts = column("conflict")
        self.cosines = {(a, b): column(f"cosine_{a}_{b}") for a, b in self.pairs}
        self.norm_ratios = {(a, b): column(f"norm_ratio_{b}_{a}") for a, b in self.pairs}
        self.module_cosines = {(a, b): matrix(f"module_cosine_{a}_{b}") for a, b in self.pairs}
        self.module_norms = {view: matrix(f"module_grad_norm_{view}") for view in self.views}

    @classmethod
    def read(cls, source: str | Path) -> "ConflictHistory":
        """Read a run's conflict record.

        Args:
            source: A run's folder, or the file.

        Raises:
            FileNotFoundError: If the path does not exist, or the run has no record.
            ValueError: If the file is not a conflict record, or is still empty.
        """
        path = Path(source)
        require_reachable(path)
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist")
        if path.is_dir():
            path = find_conflict_record(path)
            if path is None:
                raise FileNotFoundError(
                    f"{source} contains no conflict record (conflicts.jsonl or conflicts.parquet); train with "
                    "--conflict_record jsonl to write one, and --conflict_record_modules to include every module"
                )
        history = cls(read_conflict_rows(path))
        if not len(history.steps):
            raise ValueError(f"{path} has no updates yet; rows are written every 50 updates and with each checkpoint")
        return history

    def conflict_rates(self, pair: Pair) -> tuple[NDArray[np.int64], Floats]:
        """Return the epochs with finite cosines, and for each the fraction of them that are negative."""
        cosines = self.cosines[pair]
        finite = np.isfinite(cosines)
        epochs, index = np.unique(self.epochs[finite], return_inverse=True)
        return epochs, np.bincount(index, cosines[finite] < 0) / np.bincount(index)


def find_conflict_record(folder: str | Path) -> Path | None:
    """Return the path of the conflict record in a run's folder, or None."""
    # If both exist, the run was killed before it could remove this one, which is complete.
    paths = (Path(folder, name) for name in (RUNNING_NAME, PARQUET_NAME))
    return next((path for path in paths if path.is_file()), None)


def read_conflict_rows(path: str | Path) -> Iterator[Row]:
    """Read the rows of a conflict record, one at a time.

    An incomplete last line, left by a killed run, is skipped.

    Args:
        path: A `.parquet` file; any other name is read as JSON Lines.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it is not a conflict record.
    """
    path = Path(path)
    rows = _parquet_rows(path) if path.suffix == ".parquet" else _json_rows(path)
    for row in rows:
        if not isinstance(row, dict) or "step" not in row or not views_of(row):
            raise ValueError(f"{path} is not a conflict record: it has a row without `step` or `grad_norm_<view>`")
        yield row


def views_of(columns: Iterable[str]) -> list[str]:
    """Return the names of the views from the names of a record's columns."""
    return [name.removeprefix("grad_norm_") for name in columns if name.startswith("grad_norm_")]


def epoch_number(epoch: float) -> int:
    """Return the epoch, counted from 1, of an update or evaluation that ends at the Trainer's fractional `epoch`."""
    return max(1, math.ceil(epoch - 1e-9))  # rounding may put the fraction just above a whole number


def _json_rows(path: Path) -> Iterator[Any]:
    broken = None
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if broken is not None:
                raise ValueError(f"{path} is not a conflict record: line {broken} is not JSON")
            try:
                yield parse_json(line)
            except ValueError:  # includes bytes that are not UTF-8
                broken = number
    if broken == 1:
        raise ValueError(f"{path} is not a conflict record: line 1 is not JSON")


def _parquet_rows(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:  # gives a better error than Arrow for a bad path
        try:
            content = parquet.ParquetFile(file)
        except pa.ArrowInvalid as error:
            raise ValueError(f"{path} is not a conflict record: {error}") from None
        for batch in content.iter_batches(_ROW_GROUP):
            # If an option was changed before a resume, some rows lack a column, which then holds null.
            yield from batch.to_pylist()


def _truncate_after(path: Path, step: int) -> int:
    last, end = 0, 0
    with path.open("rb+") as file:
        for line in file:
            try:
                row = parse_json(line) if line.endswith(b"\n") else None
            except ValueError:
                row = None
            if not isinstance(row, dict) or not isinstance(row.get("step"), int) or row["step"] > step:
                break  # incomplete (left by a killed run) or after `step`
            last, end = row["step"], end + len(line)
        file.truncate(end)
    return last


def _to_json_line(row: Row) -> str:
    return json.dumps(row, allow_nan=False) + "\n"


def _type_of(name: str) -> pa.DataType:
    return _TYPES.get(name) or (pa.list_(pa.float64()) if name.startswith("module_") else pa.float64())


def _batched(rows: Iterable[Row], size: int) -> Iterator[Sequence[Row]]:
    batch: list[Row] = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _merge(names: list[str], others: Sequence[str]) -> None:
    """Insert new names (of layers that earlier updates dropped) at their position among the known ones."""
    start = 0
    for position, name in enumerate(others):
        if name not in names:
            end = min((names.index(later) for later in others[position + 1 :] if later in names), default=len(names))
            prefix, number = _split_number(name)
            later = (
                index
                for index in range(start, end)
                if _split_number(names[index])[0] == prefix and _split_number(names[index])[1] > number
            )
            names.insert(next(later, end), name)
        start = names.index(name) + 1


def _split_number(name: str) -> tuple[str, int]:
    prefix, _, number = name.rpartition(".")
    return (prefix, int(number)) if number.isdecimal() else (name, 0)
