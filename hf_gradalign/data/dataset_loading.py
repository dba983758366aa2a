"""What `datasets` itself reads: `load_dataset` and `load_from_disk`, as splits by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
from datasets import Dataset, DatasetDict, IterableDataset, load_dataset, load_dataset_builder, load_from_disk
from datasets.exceptions import DatasetsError

from hf_gradalign.data.errors import CorpusError
from hf_gradalign.data.parquet_splits import ParquetSplits, without_counting

Splits = Mapping[str, Dataset | IterableDataset]

_SAVED = ("dataset_dict.json", "state.json")
# Builders that encode audio, which takes torchcodec and with it FFmpeg.
_OF_AUDIO_FILES = {"audiofolder", "webdataset"}


def is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` wrote a folder."""
    return any((folder / name).is_file() for name in _SAVED)


def read_saved(folder: Path, train_split: str) -> Splits:
    """The splits of a folder that `save_to_disk` wrote; of a single data set the training split.

    Raises:
        CorpusError: if it cannot be read.
    """
    try:
        found = load_from_disk(str(folder))
    # An IndexError is the answer to a saved split without rows.
    except (OSError, ValueError, IndexError, pa.ArrowException) as error:
        raise CorpusError(
            f"Cannot read {folder}, which save_to_disk wrote; has it a split without rows? {error!r}"
        ) from error
    return _as_splits(found if isinstance(found, DatasetDict) else DatasetDict({train_split: found}))


def load_splits(shown: str, path: str, *, streaming: bool, **options: object) -> Splits:
    """The splits of what lies on disk, as `load_dataset` reads it.

    Args:
        shown: what errors call the data set.
        path: for `load_dataset`.
        streaming: whether to read it as it is gone through.
        options: for `load_dataset`.

    Raises:
        CorpusError: if it cannot be read.
    """
    try:
        with without_counting():
            return load_splits_of_any(shown, path, streaming=streaming, **options)
    except (OSError, ValueError, DatasetsError, pa.ArrowException) as error:
        if isinstance(error, CorpusError):
            raise
        cause = error.__cause__ or error
        hint = " Choose one with --dataset_config_name." if "Config name is missing" in str(error) else ""
        raise CorpusError(f"Cannot read {shown} as a data set: {cause}.{hint}") from error


def load_splits_of_any(shown: str, path: str, *, streaming: bool, **options: object) -> Splits:
    """As `load_splits`, but with the errors of `load_dataset`.

    Raises:
        CorpusError: if it is a data set of audio files, which is read from a folder.
    """
    builder = load_dataset_builder(path, **options)
    if builder.name in _OF_AUDIO_FILES and not (streaming and builder.name == "webdataset"):
        way_out = f"download it (hf download {shown} --repo-type dataset --local-dir FOLDER) and give --corpus FOLDER"
        if Path(path).is_dir():
            way_out = f"where tables are meant that lie among them, name these, as in --corpus '{shown}/**/*.parquet'"
        raise CorpusError(f"{shown} is a data set of audio files or archives, which are read from a folder: {way_out}.")
    if not streaming and ParquetSplits.is_lazy(builder):
        return ParquetSplits(builder, shown, options.get("token"))
    return _as_splits(load_dataset(path, streaming=streaming, **options))


def _as_splits(found: Splits) -> Splits:
    return {str(split): dataset.with_format(None) for split, dataset in found.items()}
