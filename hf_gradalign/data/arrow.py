"""Reads columns of data sets without the work that `datasets` does for each access."""

import sys
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

Column = pa.Array | pa.ChunkedArray


def flat(column: Column) -> pa.Array:
    """Return a column as a single array."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def with_slashes(paths: Column) -> Column:
    """Return paths with slashes instead of the backslashes of Windows. Elsewhere, backslashes are parts of names."""
    return pc.replace_substring(paths, "\\", "/") if sys.platform == "win32" else paths


def arrow_column(dataset: Dataset, name: str) -> pa.ChunkedArray:
    """Return a column as an Arrow array. It is copied only if the data set selects or reorders rows of its table."""
    # `select_columns` would copy the description of all columns and take twice the time.
    return dataset.with_format("arrow")[name][:]


class AudioColumn(Sequence[Any]):
    """The column `audio` of a data set without other columns, read from the table on access.

    `dataset["audio"]` also reads on access, but makes a new data set each time, which takes ten times as long.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: Any) -> Any:
        return self._dataset[index]["audio"]
