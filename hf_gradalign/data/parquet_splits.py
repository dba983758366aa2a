"""The splits of a data set of parquet files, each downloaded when it is taken; `load_dataset` takes them all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import datasets
import pyarrow as pa
from datasets import Dataset, DatasetBuilder, load_dataset
from datasets.exceptions import DatasetsError

from hf_gradalign.data.errors import CorpusError


class ParquetSplits(Mapping[str, Dataset]):
    """Data sets by split; taking one reads it, listing their names does not.

    Args:
        builder: of parquet files (`is_lazy`), as `load_dataset_builder` gives it.
        shown: what errors call the data set.
        token: the Hub token.

    Raises:
        CorpusError: when a split is taken that cannot be read.
    """

    def __init__(self, builder: DatasetBuilder, shown: str, token: str | bool | None) -> None:
        self._builder = builder
        self._shown = shown
        self._token = token
        self._read: dict[str, Dataset] = {}
        self._files = {str(split): list(files) for split, files in builder.config.data_files.items()}

    @staticmethod
    def is_lazy(builder: DatasetBuilder) -> bool:
        """Whether the splits of a data set can be read one by one."""
        return builder.name == "parquet" and bool(builder.config.data_files)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, split: str) -> Dataset:
        if split not in self._read:
            self._read[split] = self._load(split)
        return self._read[split]

    def _load(self, split: str) -> Dataset:
        files = {split: self._files[split]}
        options = {"columns": self._builder.config.columns, "filters": self._builder.config.filters}
        features = self._builder.info.features
        try:
            with without_counting():
                found = load_dataset("parquet", data_files=files, features=features, token=self._token, **options)
        except (OSError, ValueError, DatasetsError, pa.ArrowException) as error:
            raise CorpusError(f"Cannot read {self._shown} as a data set: {error.__cause__ or error}.") from error
        return found[split].with_format(None)


@contextmanager
def without_counting() -> Iterator[None]:
    """Keeps `datasets` from telling the Hub that something on this disk was loaded: it would need a network."""
    before = datasets.config.HF_UPDATE_DOWNLOAD_COUNTS
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False
    try:
        yield
    finally:
        datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = before
