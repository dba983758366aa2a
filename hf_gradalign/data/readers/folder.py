"""Read a folder as a corpus: metadata files, class folders, archives or tables."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
from datasets import Dataset, DatasetDict, Value

from hf_gradalign.data.errors import CorpusError
from hf_gradalign.data.readers.archives import bare_name, is_archive, is_tar, unpack
from hf_gradalign.data.readers.class_folders import listed, read_class_folders, splits_of_paths
from hf_gradalign.data.readers.metadata import find_metadata, read_metadata, warn_of_unnamed_files
from hf_gradalign.data.readers.tables import Splits, is_saved, load_splits, read_saved
from hf_gradalign.data.readers.webdataset import KEY, read_webdataset
from hf_gradalign.data.request import CorpusRequest
from hf_gradalign.data.utterance_ids import file_ids
from hf_gradalign.utils.folder_listing import FolderListing, list_folder

logger = logging.getLogger(__name__)


def read_folder(folder: Path, request: CorpusRequest) -> Splits:
    """Read all splits of a folder, with their own columns.

    Args:
        folder: One of: a folder written by `save_to_disk`; audio files with `metadata.csv` or `metadata.jsonl` at any
            depth; audio files in class folders; tar or zip archives of either, or of WebDataset shards; tables that
            `load_dataset` reads.
        request: What is asked for.

    Raises:
        CorpusError: If it is none of these, or cannot be read.
    """
    if is_saved(folder):
        return read_saved(folder, request.split_names[0])
    listing = list_folder(folder)
    archives = [file for file in listing.others if is_archive(file)]
    has_parquet = any(file.suffix.lower() == ".parquet" for file in listing.others)
    files = _read_audio_files(listing, request, in_class_folders=not has_parquet)
    if files is not None:
        if archives:  # probably the source of the files
            names = listed([*map(str, archives)])
            logger.warning("%s: archives next to audio files or metadata are not read: %s.", folder, names)
        return files
    if listing.unreadable:
        listing.tell()
    if archives and not has_parquet:
        return read_archives(archives, folder, request)
    if has_parquet and (listing.audio or archives):
        logger.warning(
            "%s: reading its parquet files; %d audio files and %d archives count only if these name them.",
            folder,
            len(listing.audio),
            len(archives),
        )
    return load_splits(str(folder), str(folder.resolve()), name=request.config_name, streaming=request.streaming)


def read_archives(archives: Sequence[Path], root: Path, request: CorpusRequest) -> Splits:
    """Read all splits of tar and zip archives, like folders of the same names.

    With `request.streaming`, WebDataset shards that have the requested columns are not unpacked.

    Args:
        archives: The files.
        root: A folder that contains them.
        request: What is asked for.

    Raises:
        CorpusError: If they cannot be unpacked, or hold neither audio nor tables.
    """
    if request.streaming and (stream := _streamed(archives, root, request)) is not None:
        return stream
    folder = unpack(archives, root)
    try:
        found = read_webdataset(list_folder(folder), request) if any(map(is_tar, archives)) else None
        if found is None:
            found = read_folder(folder, replace(request, streaming=False))
    except CorpusError as error:
        raise CorpusError(f"{listed([*map(str, archives)])}, unpacked: {error}") from error
    return {split: _named_within(dataset, folder, request.audio_column) for split, dataset in found.items()}


def _streamed(archives: Sequence[Path], root: Path, request: CorpusRequest) -> Splits | None:
    if not all(map(is_tar, archives)):
        return None
    paths = [archive.parent.relative_to(root) / bare_name(archive) / archive.name for archive in archives]
    files: dict[str, list[str]] = {}
    for archive, split in zip(archives, splits_of_paths(paths, request.split_names), strict=True):
        files.setdefault(split, []).append(str(archive))
    try:
        found = load_splits(str(root), "webdataset", data_files=files, streaming=True)
    except CorpusError:
        return None
    columns = next(iter(found.values())).features or {}
    return found if request.audio_column in columns and request.label_column in columns else None


def _read_audio_files(listing: FolderListing, request: CorpusRequest, *, in_class_folders: bool) -> DatasetDict | None:
    metadata = find_metadata(listing, request.split_names)
    if metadata:
        corpus = read_metadata(metadata, audio_column=request.audio_column, train_split=request.split_names[0])
        warn_of_unnamed_files(listing, corpus, request.audio_column)
        return corpus
    if listing.audio and in_class_folders:
        corpus = read_class_folders(listing, request)
        listing.tell()
        return corpus
    return None


def _named_within(dataset: Dataset, folder: Path, audio_column: str) -> Dataset:
    """Add ids that do not depend on where the archive was unpacked: `file_ids` of paths within it."""
    if "utterance_id" in dataset.column_names or dataset.features.get(audio_column) != Value("string"):
        return dataset
    paths = dataset[audio_column][:]
    if KEY in dataset.column_names:  # also without a file
        paths = [path or f"{folder}/{key}." for path, key in zip(paths, dataset[KEY], strict=True)]
    if None in paths:
        return dataset
    within = [path.removeprefix(f"{folder}/") for path in paths]
    unique = list(dict.fromkeys(within))
    ids = dict(zip(unique, file_ids(pa.array(unique)).to_pylist(), strict=True))
    return dataset.add_column("utterance_id", [ids[path] for path in within])
