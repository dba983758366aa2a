"""Read a folder as a corpus, whatever is in it: metadata, class folders, archives, tables."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
from datasets import Dataset, DatasetDict, Value

from hf_gradalign.data.archives import bare_name, is_archive, is_tar, unpack
from hf_gradalign.data.class_folders import read_class_folders
from hf_gradalign.data.dataset_loading import Splits, is_saved, load_splits, read_saved
from hf_gradalign.data.errors import CorpusError
from hf_gradalign.data.folder_names import listed, splits_of_paths
from hf_gradalign.data.metadata_folder import find_metadata, read_metadata, tell_what_is_left_out
from hf_gradalign.data.utterance_ids import file_ids
from hf_gradalign.data.wanted import Wanted
from hf_gradalign.data.webdataset_form import KEY, read_webdataset
from hf_gradalign.folder_listing import FolderListing, list_folder

logger = logging.getLogger(__name__)


def read_folder(folder: Path, wanted: Wanted) -> Splits:
    """Read all splits of a folder, columns untouched.

    Args:
        folder: what `save_to_disk` wrote; audio files with `metadata.csv` or `metadata.jsonl` at any depth; audio files
            in class folders; tar or zip archives of either, or of shards in the form of WebDataset; tables that
            `load_dataset` reads.
        wanted: what is asked for.

    Raises:
        CorpusError: if it is none of these, or cannot be read.
    """
    if is_saved(folder):
        return read_saved(folder, wanted.splits[0])
    listing = list_folder(folder)
    archives = [file for file in listing.others if is_archive(file)]
    has_parquet = any(file.suffix.lower() == ".parquet" for file in listing.others)
    files = _read_audio_files(listing, wanted, in_class_folders=not has_parquet)
    if files is not None:
        if archives:  # perhaps what the files came in
            shown = listed([*map(str, archives)])
            logger.warning("%s: archives are not read where there are audio files or metadata: %s.", folder, shown)
        return files
    if listing.unreadable:
        listing.tell()
    if archives and not has_parquet:
        return read_archives(archives, folder, wanted)
    if has_parquet and (listing.audio or archives):
        logger.warning(
            "%s: read are its parquet files; %d audio files and %d archives there count only where they are named.",
            folder,
            len(listing.audio),
            len(archives),
        )
    return load_splits(str(folder), str(folder.resolve()), name=wanted.config_name, streaming=wanted.streaming)


def read_archives(archives: Sequence[Path], root: Path, wanted: Wanted) -> Splits:
    """Read all splits of tar and zip archives, as if they were folders of their names.

    With `wanted.streaming`, shards in the form of WebDataset that have the columns as such are not unpacked.

    Args:
        archives: the files.
        root: a folder around them.
        wanted: what is asked for.

    Raises:
        CorpusError: if they cannot be unpacked, or hold neither audio nor tables.
    """
    if wanted.streaming and (stream := _streamed(archives, root, wanted)) is not None:
        return stream
    folder = unpack(archives, root)
    try:
        found = read_webdataset(list_folder(folder), wanted) if any(map(is_tar, archives)) else None
        if found is None:
            found = read_folder(folder, replace(wanted, streaming=False))
    except CorpusError as error:
        raise CorpusError(f"{listed([*map(str, archives)])}, unpacked: {error}") from error
    return {split: _named_within(dataset, folder, wanted.audio_column) for split, dataset in found.items()}


def _streamed(archives: Sequence[Path], root: Path, wanted: Wanted) -> Splits | None:
    if not all(map(is_tar, archives)):
        return None
    places = [archive.parent.relative_to(root) / bare_name(archive) / archive.name for archive in archives]
    files: dict[str, list[str]] = {}
    for archive, split in zip(archives, splits_of_paths(places, wanted.splits), strict=True):
        files.setdefault(split, []).append(str(archive))
    try:
        found = load_splits(str(root), "webdataset", data_files=files, streaming=True)
    except CorpusError:
        return None
    columns = next(iter(found.values())).features or {}
    return found if wanted.audio_column in columns and wanted.label_column in columns else None


def _read_audio_files(listing: FolderListing, wanted: Wanted, *, in_class_folders: bool) -> DatasetDict | None:
    metadata = find_metadata(listing, wanted.splits)
    if metadata:
        corpus = read_metadata(metadata, audio_column=wanted.audio_column, train_split=wanted.splits[0])
        tell_what_is_left_out(listing, corpus, wanted.audio_column)
        return corpus
    if listing.audio and in_class_folders:
        corpus = read_class_folders(listing, wanted)
        listing.tell()
        return corpus
    return None


def _named_within(dataset: Dataset, folder: Path, audio_column: str) -> Dataset:
    """Ids that do not depend on where the archive was unpacked: as for all files, but with paths from there on."""
    if "utterance_id" in dataset.column_names or dataset.features.get(audio_column) != Value("string"):
        return dataset
    paths = dataset[audio_column][:]
    if KEY in dataset.column_names:  # also where there is no file
        paths = [path or f"{folder}/{key}." for path, key in zip(paths, dataset[KEY], strict=True)]
    if None in paths:
        return dataset
    within = [path.removeprefix(f"{folder}/") for path in paths]
    unique = list(dict.fromkeys(within))
    ids = dict(zip(unique, file_ids(pa.array(unique)).to_pylist(), strict=True))
    return dataset.add_column("utterance_id", [ids[path] for path in within])
