"""Finds out what a corpus' name or path refers to, and reads its splits with their own columns."""

from __future__ import annotations

import glob
import logging
import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar, cast

import pyarrow as pa
from datasets import Dataset, IterableDataset, Value
from datasets.exceptions import DatasetsError

from hf_gradalign.data.corpora import CorpusSpec, did_you_mean, parse_corpus
from hf_gradalign.data.corpora.arena import arena_files
from hf_gradalign.data.readers.archives import KEY, bare_name, is_archive, is_tar, read_webdataset, unpack
from hf_gradalign.data.readers.class_folders import (
    SHARD,
    read_class_folders,
    splits_of_paths,
    warn_about_contradicting_folders,
)
from hf_gradalign.data.readers.metadata import Metadata, find_metadata, read_metadata, warn_about_unnamed_files
from hf_gradalign.data.readers.shards import report_missing_shards
from hf_gradalign.data.readers.tables import ParquetSplits, Splits, is_saved, load_any_splits, load_splits, read_saved
from hf_gradalign.data.request import CorpusError, CorpusRequest
from hf_gradalign.data.utterance_ids import file_ids
from hf_gradalign.utils.folder_listing import FolderListing, list_folder, similar_path
from hf_gradalign.utils.hub_waits import hub_fault
from hf_gradalign.utils.messages import first_few

logger = logging.getLogger(__name__)

_DEMO_FOLDER = Path(__file__).parents[1] / "demo_corpus"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
# The builders of `load_dataset` for files that contain a whole corpus.
_BUILDERS = {".parquet": "parquet", ".arrow": "arrow"}

T = TypeVar("T")


def demo_corpus_files() -> dict[str, str]:
    """Return the parquet file of each split of the demo corpus: train, validation and test."""
    return {split: str(_DEMO_FOLDER / f"{split}.parquet") for split in ("train", "validation", "test")}


def read_source(spec: CorpusSpec | str | None, request: CorpusRequest) -> Mapping[str, Dataset | IterableDataset]:
    """Read all splits of a corpus without an official layout, with its own columns.

    Args:
        spec: From `parse_corpus`, or the argument of `parse_corpus`: the demo corpus; a folder (see `read_folder`); a
            CSV or JSON Lines file with a column `file_name`; parquet, Arrow, tar or zip files, one or a glob; a folder
            in the Arena's format; or `owner/name` on the Hub.
        request: What to load.

    Returns:
        The splits. Splits of parquet files are read on access. With `request.streaming`, they are iterable data sets if
        the source can be streamed.

    Raises:
        CorpusError: If nothing is found, or the corpus cannot be read.
    """
    spec = spec if isinstance(spec, CorpusSpec) else parse_corpus(spec)
    splits = _read(spec, request)
    if isinstance(splits, ParquetSplits):
        for name in {*splits} & {*request.split_names}:
            splits.get(name)  # read it now, so that errors occur now
    return splits


def _read(spec: CorpusSpec, request: CorpusRequest) -> Splits:
    if spec.is_demo:
        files = demo_corpus_files()
        return load_splits("the demo corpus", "parquet", request, data_files=files)
    name = spec.hub_id or spec.path or spec.text
    path = Path(name).expanduser()
    if spec.hub_id is None or path.exists():
        if path.is_dir():
            if spec.is_arena:
                report_missing_shards(sorted(path.glob("data/*.parquet")), request)
                return load_splits(str(path), "parquet", request, data_files=arena_files(path))
            return read_folder(path, request)
        if path.is_file() or glob.has_magic(name):
            return _read_files(path, request)
    if not _HUB_ID.fullmatch(name):
        raise CorpusError(_not_found_message(path, name, "nor a data set on the Hub (owner/name)"))
    try:
        return load_any_splits(
            name,
            name,
            request,
            name=request.config_name,
            revision=request.revision,
            token=request.token,
        )
    except CorpusError:
        raise
    except (OSError, ValueError, DatasetsError) as error:
        if "Config name is missing" in str(error) or "BuilderConfig" in str(error):
            raise CorpusError(f"{name}: {error}\nChoose one with --dataset_config_name.") from error
        reason = " ".join(str(hub_fault(error) or error).split())
        raise CorpusError(_not_found_message(path, name, f"nor reachable on the Hub ({reason})")) from error


def _read_files(path: Path, request: CorpusRequest) -> Splits:
    files = [Path(file) for file in sorted(glob.glob(str(path), recursive=True))] or [path]
    if not all(file.is_file() for file in files):
        raise CorpusError(f"{path} matches no files.")
    report_missing_shards(files, request, are_chosen=True)
    suffixes = {file.suffix.lower() for file in files}
    if len(files) == 1 and suffixes <= {".csv", ".tsv", ".jsonl"}:
        return _read_metadata([Metadata(files[0])], files[0].parent, request)
    builder = _BUILDERS.get(suffixes.pop()) if len(suffixes) == 1 else None
    if builder is not None:
        return load_splits(str(path), builder, request, data_files=_by_split(files, request))
    if not all(map(is_archive, files)):
        raise CorpusError(
            f"{path} is neither parquet nor one metadata file (.csv, .tsv, .jsonl), nor Arrow files or archives (.tar, "
            ".tar.gz, .zip)."
        )
    splits = read_archives(files, Path(os.path.commonpath([file.parent for file in files])), request)
    return _rename_single_split(splits, request)


def _by_split(files: Sequence[Path], request: CorpusRequest) -> dict[str, list[str]]:
    splits: dict[str, list[str]] = defaultdict(list)
    for file in files:
        splits[re.sub(r"\W", "_", SHARD.sub("", file.stem)) or request.split_names[0]].append(str(file))
    return _rename_single_split(dict(splits), request)


def _rename_single_split(splits: Mapping[str, T], request: CorpusRequest) -> dict[str, T]:
    # A single name is a split's name only if that split is requested.
    if len(splits) == 1 and next(iter(splits)) not in request.split_names:
        return {request.split_names[0]: next(iter(splits.values()))}
    return dict(splits)


def _not_found_message(path: Path, name: str, why: str) -> str:
    hint = similar_path(path) or did_you_mean(name)
    return f"{path} is neither a local path (looked for {path.absolute()}) {why}.{hint}"


def read_folder(folder: Path, request: CorpusRequest) -> Splits:
    """Read all splits of a folder, with their own columns.

    Args:
        folder: A folder written by `save_to_disk`, or with one of these: audio files with `metadata.csv` or
            `metadata.jsonl` at any depth; audio files in class folders; tar or zip archives of either, or WebDataset
            shards; tables that `load_dataset` reads.
        request: What to load.

    Raises:
        CorpusError: If the folder is none of these, or cannot be read.
    """
    if is_saved(folder):
        return read_saved(folder, request.split_names[0])
    listing = list_folder(folder)
    archives = [file for file in listing.others if is_archive(file)]
    has_parquet = any(file.suffix.lower() == ".parquet" for file in listing.others)
    files = _read_audio_files(listing, request, in_class_folders=not has_parquet)
    if files is not None:
        if archives:  # the files were probably unpacked from them
            logger.warning(
                "%s: archives next to audio files or metadata are not read: %s.", folder, first_few(archives)
            )
        return files
    if listing.unreadable:
        listing.log_left_out()
    if archives and not has_parquet:
        report_missing_shards(archives, request)
        return read_archives(archives, folder, request)
    if has_parquet and (listing.audio or archives):
        logger.warning(
            "%s: reading the parquet files; %d audio files and %d archives are used only if the parquet files name "
            "them.",
            folder,
            len(listing.audio),
            len(archives),
        )
    return load_splits(str(folder), str(folder.resolve()), request, name=request.config_name)


def read_archives(archives: Sequence[Path], root: Path, request: CorpusRequest) -> Splits:
    """Read all splits of tar and zip archives, like folders with the same names.

    With `request.streaming`, WebDataset shards that have the requested columns are not unpacked.

    Args:
        archives: The files.
        root: A folder that contains them.
        request: What to load.

    Raises:
        CorpusError: If the archives cannot be unpacked, or contain neither audio nor tables.
    """
    if request.streaming and (stream := _stream_archives(archives, root, request)) is not None:
        return stream
    folder = unpack(archives, root)
    try:
        splits: Splits | None = read_webdataset(list_folder(folder), request) if any(map(is_tar, archives)) else None
        if splits is None:
            splits = read_folder(folder, replace(request, streaming=False))
    except CorpusError as error:
        raise CorpusError(f"{first_few(archives)}, unpacked: {error}") from error
    loaded = cast("Mapping[str, Dataset]", splits)  # not streamed
    return {split: _add_archive_ids(dataset, folder, request.audio_column) for split, dataset in loaded.items()}


def _stream_archives(archives: Sequence[Path], root: Path, request: CorpusRequest) -> Splits | None:
    if not all(map(is_tar, archives)):
        return None
    paths = [archive.parent.relative_to(root) / bare_name(archive) / archive.name for archive in archives]
    files: dict[str, list[str]] = {}
    for archive, split in zip(archives, splits_of_paths(paths, request.split_names), strict=True):
        files.setdefault(split, []).append(str(archive))
    try:
        streams = load_splits(str(root), "webdataset", request, data_files=files)
    except CorpusError:
        return None
    columns = next(iter(streams.values())).features or {}
    return streams if request.audio_column in columns and request.label_column in columns else None


def _read_metadata(metadata: Sequence[Metadata], folder: Path, request: CorpusRequest) -> dict[str, Dataset]:
    corpus = read_metadata(metadata, audio_column=request.audio_column, train_split=request.split_names[0])
    warn_about_contradicting_folders(corpus, folder, request)
    return corpus


def _read_audio_files(
    listing: FolderListing, request: CorpusRequest, *, in_class_folders: bool
) -> dict[str, Dataset] | None:
    columns = ("file_name", request.audio_column, request.label_column, "label", "split")
    metadata = find_metadata(listing, request.split_names, columns)
    if metadata:
        corpus = _read_metadata(metadata, listing.folder, request)
        warn_about_unnamed_files(listing, corpus, request.audio_column)
        return corpus
    if listing.audio and in_class_folders:
        corpus = read_class_folders(listing, request)
        listing.log_left_out()
        return corpus
    return None


def _add_archive_ids(dataset: Dataset, folder: Path, audio_column: str) -> Dataset:
    """Add ids that do not depend on where the archive was unpacked: `file_ids` of the paths in the archive."""
    if "utterance_id" in dataset.column_names or dataset.features.get(audio_column) != Value("string"):
        return dataset
    paths = dataset[audio_column][:]
    if KEY in dataset.column_names:  # even without a file
        paths = [path or f"{folder.as_posix()}/{key}." for path, key in zip(paths, dataset[KEY], strict=True)]
    if None in paths:
        return dataset
    within = [path.removeprefix(f"{folder.as_posix()}/") for path in paths]
    unique = list(dict.fromkeys(within))
    ids = dict(zip(unique, file_ids(pa.array(unique)).to_pylist(), strict=True))
    return dataset.add_column("utterance_id", [ids[path] for path in within])
