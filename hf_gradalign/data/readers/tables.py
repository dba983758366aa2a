"""Reads data sets of tables with `load_dataset` and `load_from_disk`."""

from __future__ import annotations

import errno
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa
from datasets import (
    Dataset,
    DatasetBuilder,
    DatasetDict,
    IterableDataset,
    load_dataset,
    load_dataset_builder,
    load_from_disk,
)
from datasets import config as datasets_config
from datasets.exceptions import DatasetsError

from hf_gradalign.data.readers.class_numbering import refuse_other_numbering, wanted_files
from hf_gradalign.data.readers.shards import report_missing_shards
from hf_gradalign.data.request import CorpusError, CorpusRequest

if TYPE_CHECKING:
    from datasets.packaged_modules.parquet.parquet import ParquetConfig

Splits = Mapping[str, Dataset | IterableDataset]

_SAVED = ("dataset_dict.json", "state.json")
# Builders that encode audio, for which they need torchcodec and FFmpeg.
_AUDIO_BUILDERS = {"audiofolder", "webdataset"}


def is_saved(folder: Path) -> bool:
    """Return whether a folder was written by `save_to_disk`."""
    return any((folder / name).is_file() for name in _SAVED)


def read_saved(folder: Path, train_split: str) -> Splits:
    """Read a folder written by `save_to_disk`. A single data set becomes the training split.

    Raises:
        CorpusError: If it cannot be read.
    """
    try:
        saved = load_from_disk(str(folder))
    # A saved split without rows raises an IndexError.
    except (OSError, ValueError, IndexError, pa.ArrowException) as error:
        raise CorpusError(
            f"Cannot read {folder}, which save_to_disk wrote. Does it have a split without rows? {error!r}"
        ) from error
    return _as_splits(saved if isinstance(saved, DatasetDict) else {train_split: saved})


def load_splits(display_name: str, path: str, request: CorpusRequest, **options: Any) -> Splits:
    """Read a local data set with `load_dataset`.

    Args:
        display_name: The data set's name for messages.
        path: The first argument of `load_dataset`.
        request: The wanted splits, and whether to stream them.
        options: Further arguments of `load_dataset`.

    Raises:
        CorpusError: If it cannot be read.
    """
    try:
        with _without_counting():
            return load_any_splits(display_name, path, request, **options)
    except (OSError, ValueError, DatasetsError, pa.ArrowException) as error:
        if isinstance(error, CorpusError):
            raise
        cause = error.__cause__ or error
        hint = " Choose one with --dataset_config_name." if "Config name is missing" in str(error) else ""
        raise CorpusError(f"Cannot read {display_name} as a data set: {cause}.{hint or _cache_hint(cause)}") from error


def _cache_hint(error: BaseException) -> str:
    if not isinstance(error, OSError):
        return ""
    # Only the cache is written to, and the error may name no file.
    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    if not (is_full or _is_of_the_cache(error.filename)):
        return ""
    folder = datasets_config.HF_DATASETS_CACHE
    room = "Free some space there, or set" if is_full else "To keep it in another folder, set"
    return f" The cache of data sets is {folder}. {room} HF_HOME or HF_DATASETS_CACHE."


def _is_of_the_cache(filename: object) -> bool:
    """Return whether a path is in the cache of data sets, or a folder that contains the cache."""
    cache = Path(datasets_config.HF_DATASETS_CACHE)
    return isinstance(filename, str) and (cache.is_relative_to(filename) or Path(filename).is_relative_to(cache))


def load_any_splits(display_name: str, path: str, request: CorpusRequest, **options: Any) -> Splits:
    """Read a data set like `load_splits`, also from the Hub, but with the errors of `load_dataset`.

    Raises:
        CorpusError: If it is a data set of audio files, which must be downloaded to a folder first.
    """
    builder = load_dataset_builder(path, **options)
    if builder.name in _AUDIO_BUILDERS and not (request.streaming and builder.name == "webdataset"):
        hint = (
            f"download it (hf download {display_name} --repo-type dataset --local-dir FOLDER) and give --corpus FOLDER"
        )
        if Path(path).is_dir():
            hint = f"to read tables among them, name these, as in --corpus '{display_name}/**/*.parquet'"
        raise CorpusError(
            f"{display_name} is a data set of audio files or archives, which are read from a folder: {hint}."
        )
    if Path(path).is_dir():
        files = [Path(file) for of_split in wanted_files(builder, request).values() for file in of_split]
        # `datasets` would also read train-00000-of-00002.parquet.bak.
        files = [file for file in files if file.suffix != ".bak"]
        report_missing_shards(files, request, are_wanted=True)
    refuse_other_numbering(builder, request)
    if not request.streaming and ParquetSplits.is_lazy(builder):
        return ParquetSplits(builder, display_name, options.get("token"))
    return _as_splits(load_dataset(path, streaming=request.streaming, **options))


class ParquetSplits(Mapping[str, Dataset]):
    """The splits of a data set of parquet files. Each is downloaded on first access; `load_dataset` downloads all.

    Args:
        builder: A builder of parquet files (`is_lazy`), from `load_dataset_builder`.
        display_name: The data set's name for messages.
        token: The Hub token.

    Raises:
        CorpusError: On access to a split that cannot be read.
    """

    def __init__(self, builder: DatasetBuilder, display_name: str, token: str | bool | None) -> None:
        self._builder = builder
        self._display_name = display_name
        self._token = token
        self._read: dict[str, Dataset] = {}
        self._files = {str(split): list(files) for split, files in (builder.config.data_files or {}).items()}

    @staticmethod
    def is_lazy(builder: DatasetBuilder) -> bool:
        """Return whether the splits of a data set can be read separately."""
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
        config = cast("ParquetConfig", self._builder.config)
        options: dict[str, Any] = {"columns": config.columns, "filters": config.filters}
        features = self._builder.info.features
        try:
            with _without_counting():
                loaded = load_dataset("parquet", data_files=files, features=features, token=self._token, **options)
        except (OSError, ValueError, DatasetsError, pa.ArrowException) as error:
            cause = error.__cause__ or error
            raise CorpusError(
                f"Cannot read {self._display_name} as a data set: {cause}.{_cache_hint(cause)}"
            ) from error
        return loaded[split].with_format(None)


def _as_splits(loaded: Mapping[Any, Dataset | IterableDataset]) -> Splits:
    return {str(split): dataset.with_format(None) for split, dataset in loaded.items()}


@contextmanager
def _without_counting() -> Generator[None]:
    """Keep `datasets` from reporting to the Hub that local files are loaded, which needs a network."""
    before = datasets_config.HF_UPDATE_DOWNLOAD_COUNTS
    datasets_config.HF_UPDATE_DOWNLOAD_COUNTS = False
    try:
        yield
    finally:
        datasets_config.HF_UPDATE_DOWNLOAD_COUNTS = before
