"""The conflict record as a file: a row an update, readable at any moment and however the run ends."""

import errno
import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from pyarrow import parquet

from hf_gradalign.training.links import refuse_link_out
from hf_gradalign.utils.table_bounds import parse_json

RecordFormat = Literal["jsonl", "parquet"]
Row = dict[str, Any]

RUNNING_NAME = "conflicts.jsonl"
PARQUET_NAME = "conflicts.parquet"

_ROW_GROUP = 5000
_TYPES = {
    "step": pa.int64(),
    "epoch": pa.float64(),
    "conflict": pa.bool_(),
    "skipped": pa.bool_(),
    "module": pa.list_(pa.string()),
}


class ConflictRecord:
    """A run's conflict record, `conflicts.jsonl` or `conflicts.parquet` in its folder.

    While the run goes on the record is JSON Lines in either format: that can be appended to, and a process that is
    killed leaves at most its last line half-written, where a Parquet file without its footer is lost. A Parquet record
    is made of it when training ends, and made JSON Lines again where a run is resumed.

    Args:
        folder: The run's folder; created where it is missing.
        file_format: "jsonl" or "parquet", for the record of a finished run.
    """

    def __init__(self, folder: str | Path, file_format: RecordFormat = "jsonl") -> None:
        self.folder = Path(folder)
        self.file_format = file_format

    def begin(self, step: int, resumed_from: Path | None = None) -> int:
        """Make ready for the rows after `step`; what the record has of later ones is cut off.

        Args:
            step: Updates so far: 0 in a new run, else those behind the checkpoint.
            resumed_from: The folder of the run that the checkpoint is of; its record is gone on with if `folder` has
                none.

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
            last = _cut(running, step)
        else:
            temporary = self.folder / f"_{RUNNING_NAME}"  # publishing leaves such names out
            temporary.unlink(missing_ok=True)  # a link to elsewhere is not written through
            with temporary.open("w", encoding="utf-8") as file:
                for row in read_conflict_rows(source):
                    if row["step"] <= step:
                        last = row["step"]
                        file.write(_line(row))
            os.replace(temporary, running)
        finished.unlink(missing_ok=True)
        return last

    def append(self, rows: Iterable[Row]) -> None:
        """Write rows; numbers that are not finite must be None."""
        refuse_link_out(self.folder / RUNNING_NAME, self.folder)
        text = "".join(map(_line, rows))
        content, path = text.encode(), self.folder / RUNNING_NAME
        with path.open("ab", buffering=0) as file:
            end = file.tell()
            try:
                if file.write(content) < len(content):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            except OSError:  # half a line would make all that follow unreadable
                file.truncate(end)
                raise

    def finish(self) -> None:
        """Bring the record into the format asked for."""
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


def find_conflict_record(folder: str | Path) -> Path | None:
    """The conflict record in a run's folder, if there is one."""
    # Where both are there, the run was killed between writing the one and removing the other: this one is whole.
    paths = (Path(folder, name) for name in (RUNNING_NAME, PARQUET_NAME))
    return next((path for path in paths if path.is_file()), None)


def read_conflict_rows(path: str | Path) -> Iterator[Row]:
    """The rows of a conflict record, one at a time.

    A last line that is half-written, as a killed run leaves it, is passed over.

    Args:
        path: A `.parquet` file, else JSON Lines.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no conflict record.
    """
    path = Path(path)
    rows = _parquet_rows(path) if path.suffix == ".parquet" else _json_rows(path)
    for row in rows:
        if not isinstance(row, dict) or "step" not in row or not views_of(row):
            raise ValueError(f"{path} is no conflict record: it has a row without `step` or `grad_norm_<view>`")
        yield row


def views_of(columns: Iterable[str]) -> list[str]:
    """The views' names, from the names of a record's columns."""
    return [name.removeprefix("grad_norm_") for name in columns if name.startswith("grad_norm_")]


def epoch_number(epoch: float) -> int:
    """The epoch, from 1, that an update or evaluation belongs to, from the Trainer's fraction of epochs at its end."""
    return max(1, math.ceil(epoch - 1e-9))  # the fraction is a sum of floats, and may end just above a whole number


def _json_rows(path: Path) -> Iterator[Any]:
    broken = None
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if broken is not None:
                raise ValueError(f"{path} is no conflict record: line {broken} is not JSON")
            try:
                yield parse_json(line)
            except ValueError:  # also for bytes that are not UTF-8
                broken = number
    if broken == 1:
        raise ValueError(f"{path} is no conflict record: line 1 is not JSON")


def _parquet_rows(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:  # says what is wrong with a path better than Arrow does
        try:
            content = parquet.ParquetFile(file)
        except pa.ArrowInvalid as error:
            raise ValueError(f"{path} is no conflict record: {error}") from None
        for batch in content.iter_batches(_ROW_GROUP):
            # A row that lacks a column (the option was changed between two starts of a run) has it as null.
            yield from batch.to_pylist()


def _cut(path: Path, step: int) -> int:
    last, end = 0, 0
    with path.open("rb+") as file:
        for line in file:
            try:
                row = parse_json(line) if line.endswith(b"\n") else None
            except ValueError:
                row = None
            if not isinstance(row, dict) or not isinstance(row.get("step"), int) or row["step"] > step:
                break  # half-written by a killed run, or not one of its rows
            last, end = row["step"], end + len(line)
        file.truncate(end)
    return last


def _line(row: Row) -> str:
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


__all__ = ["ConflictRecord", "RecordFormat", "epoch_number", "find_conflict_record", "read_conflict_rows", "views_of"]
