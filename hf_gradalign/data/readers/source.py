"""Find out what a corpus' name or path refers to, and read its splits with their own columns."""

from __future__ import annotations

import difflib
import glob
import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from datasets import Dataset, IterableDataset
from datasets.exceptions import DatasetsError

from hf_gradalign.data.corpora import CorpusSpec, did_you_mean, parse_corpus
from hf_gradalign.data.corpora.arena import arena_files
from hf_gradalign.data.errors import CorpusError
from hf_gradalign.data.readers.archives import is_archive
from hf_gradalign.data.readers.class_folders import SHARD
from hf_gradalign.data.readers.folder import read_archives, read_folder
from hf_gradalign.data.readers.metadata import Metadata, read_metadata
from hf_gradalign.data.readers.tables import ParquetSplits, Splits, load_any_splits, load_splits
from hf_gradalign.data.request import CorpusRequest
from hf_gradalign.utils.hub_waits import hub_fault

_DEMO_FOLDER = Path(__file__).parents[1] / "demo_corpus"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
# The builders of `load_dataset` for files that hold a whole corpus.
_BUILDERS = {".parquet": "parquet", ".arrow": "arrow"}

T = TypeVar("T")


def demo_corpus_files() -> dict[str, str]:
    """The parquet file of each split of the demo corpus: train, validation and test."""
    return {split: str(_DEMO_FOLDER / f"{split}.parquet") for split in ("train", "validation", "test")}


def read_source(spec: CorpusSpec | str | None, request: CorpusRequest) -> Mapping[str, Dataset | IterableDataset]:
    """Read all splits of a corpus without an official layout, with its own columns.

    Args:
        spec: From `parse_corpus`, or its argument: the demo corpus; a folder (see `read_folder`); a CSV or JSON Lines
            file with a column `file_name`; parquet, Arrow, tar or zip files, one or a glob; a folder in the Arena's
            format; or `owner/name` on the Hub.
        request: What is asked for.

    Returns:
        The splits. Those of parquet files are read on access. With `request.streaming` they are iterable data sets, if
        the source can be streamed.

    Raises:
        CorpusError: If nothing is found, or it cannot be read.
    """
    spec = spec if isinstance(spec, CorpusSpec) else parse_corpus(spec)
    splits = _read(spec, request)
    if isinstance(splits, ParquetSplits):
        for name in {*splits} & {*request.split_names}:
            splits.get(name)  # read now, to fail now
    return splits


def _read(spec: CorpusSpec, request: CorpusRequest) -> Splits:
    if spec.is_demo:
        files = demo_corpus_files()
        return load_splits("the demo corpus", "parquet", data_files=files, streaming=request.streaming)
    name = spec.hub_id or spec.path or spec.text
    path = Path(name).expanduser()
    if spec.hub_id is None or path.exists():
        if path.is_dir():
            if spec.is_arena:
                return load_splits(str(path), "parquet", data_files=arena_files(path), streaming=request.streaming)
            return read_folder(path, request)
        if path.is_file() or glob.has_magic(name):
            return _read_files(path, request)
    if not _HUB_ID.fullmatch(name):
        raise CorpusError(_not_found(path, name, "nor a data set on the Hub (owner/name)"))
    try:
        return load_any_splits(
            name,
            name,
            streaming=request.streaming,
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
        raise CorpusError(_not_found(path, name, f"nor reachable on the Hub ({reason})")) from error


def _read_files(path: Path, request: CorpusRequest) -> Splits:
    files = [Path(file) for file in sorted(glob.glob(str(path), recursive=True))] or [path]
    if not all(file.is_file() for file in files):
        raise CorpusError(f"{path} matches no files.")
    suffixes = {file.suffix.lower() for file in files}
    if len(files) == 1 and suffixes <= {".csv", ".jsonl"}:
        return read_metadata([Metadata(path)], audio_column=request.audio_column, train_split=request.split_names[0])
    builder = _BUILDERS.get(suffixes.pop()) if len(suffixes) == 1 else None
    if builder is not None:
        return load_splits(str(path), builder, data_files=_by_split(files, request), streaming=request.streaming)
    if not all(map(is_archive, files)):
        raise CorpusError(
            f"{path} is neither parquet nor one metadata file (.csv, .jsonl), nor Arrow files or archives (.tar, "
            ".tar.gz, .zip)."
        )
    splits = read_archives(files, Path(os.path.commonpath([file.parent for file in files])), request)
    return _renamed_if_single(splits, request)


def _by_split(files: Sequence[Path], request: CorpusRequest) -> dict[str, list[str]]:
    splits: dict[str, list[str]] = defaultdict(list)
    for file in files:
        splits[re.sub(r"\W", "_", SHARD.sub("", file.stem)) or request.split_names[0]].append(str(file))
    return _renamed_if_single(dict(splits), request)


def _renamed_if_single(splits: Mapping[str, T], request: CorpusRequest) -> dict[str, T]:
    # A single name means a split only if that split is requested.
    if len(splits) == 1 and next(iter(splits)) not in request.split_names:
        return {request.split_names[0]: next(iter(splits.values()))}
    return dict(splits)


def _not_found(path: Path, name: str, why: str) -> str:
    parent = path.parent
    neighbors = [entry.name for entry in parent.iterdir()] if parent.is_dir() else []
    close = [str(parent / name) for name in difflib.get_close_matches(path.name, neighbors)]
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    hint = hint or did_you_mean(name)
    return f"{path} is neither a local path (looked for {path.absolute()}) {why}.{hint}"
