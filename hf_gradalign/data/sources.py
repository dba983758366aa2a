"""Find out what a corpus' name or path is, and read its splits as they are."""

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

from hf_gradalign.data.archives import is_archive
from hf_gradalign.data.corpora import CorpusSpec, did_you_mean, parse_corpus
from hf_gradalign.data.corpora.arena import arena_files
from hf_gradalign.data.dataset_loading import Splits, load_splits, load_splits_of_any
from hf_gradalign.data.demo_corpus import demo_corpus_files
from hf_gradalign.data.errors import CorpusError
from hf_gradalign.data.folder_names import SHARD
from hf_gradalign.data.folders import read_archives, read_folder
from hf_gradalign.data.metadata_folder import Metadata, read_metadata
from hf_gradalign.data.parquet_splits import ParquetSplits
from hf_gradalign.data.wanted import Wanted
from hf_gradalign.hub_waits import hub_fault

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
# What load_dataset calls the builders of files that hold all that there is to a corpus.
_BUILDERS = {".parquet": "parquet", ".arrow": "arrow"}

T = TypeVar("T")


def read_source(
    spec: CorpusSpec | str | None,
    wanted: Wanted,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
) -> Mapping[str, Dataset | IterableDataset]:
    """Read all splits of a corpus without a layout of its own, columns untouched.

    Args:
        spec: as `parse_corpus` takes or gives it: the demo corpus; a folder (see `read_folder`); a CSV or JSON Lines
            file with a column `file_name`; a parquet, Arrow, tar or zip file or a glob of them; a folder in the Arena's
            form; else `owner/name` on the Hub.
        wanted: what is asked for.
        revision: the Hub repository's branch, tag or commit.
        token: the Hub token; None for the one that is logged in.

    Returns:
        The splits: data sets, those of parquet files read when they are taken; with `wanted.streaming` iterable ones,
        where there is something to stream.

    Raises:
        CorpusError: if nothing is found, or what is found cannot be read.
    """
    spec = spec if isinstance(spec, CorpusSpec) else parse_corpus(spec)
    found = _find(spec, wanted, revision, token)
    if isinstance(found, ParquetSplits):
        for name in {*found} & {*wanted.splits}:
            found.get(name)  # read now, so that what is wrong with it is told now
    return found


def _find(spec: CorpusSpec, wanted: Wanted, revision: str | None, token: str | bool | None) -> Splits:
    if spec.is_demo:
        files = demo_corpus_files()
        return load_splits("the demo corpus", "parquet", data_files=files, streaming=wanted.streaming)
    name = spec.hub_id or spec.path or spec.text
    path = Path(name).expanduser()
    if spec.hub_id is None or path.exists():
        if path.is_dir():
            if spec.is_arena:
                return load_splits(str(path), "parquet", data_files=arena_files(path), streaming=wanted.streaming)
            return read_folder(path, wanted)
        if path.is_file() or glob.has_magic(name):
            return _read_files(path, wanted)
    if not _HUB_ID.fullmatch(name):
        raise CorpusError(_not_found(path, name, "nor the name of a data set on the Hub, which would be owner/name"))
    try:
        return load_splits_of_any(
            name, name, streaming=wanted.streaming, name=wanted.config_name, revision=revision, token=token
        )
    except CorpusError:
        raise
    except (OSError, ValueError, DatasetsError) as error:
        if "Config name is missing" in str(error) or "BuilderConfig" in str(error):
            raise CorpusError(f"{name}: {error}\nChoose one with --dataset_config_name.") from error
        reason = " ".join(str(hub_fault(error) or error).split())
        raise CorpusError(_not_found(path, name, f"nor reachable on the Hub ({reason})")) from error


def _read_files(path: Path, wanted: Wanted) -> Splits:
    files = [Path(file) for file in sorted(glob.glob(str(path), recursive=True))] or [path]
    if not all(file.is_file() for file in files):
        raise CorpusError(f"{path} matches no files.")
    suffixes = {file.suffix.lower() for file in files}
    if len(files) == 1 and suffixes <= {".csv", ".jsonl"}:
        return read_metadata([Metadata(path)], audio_column=wanted.audio_column, train_split=wanted.splits[0])
    builder = _BUILDERS.get(suffixes.pop()) if len(suffixes) == 1 else None
    if builder is not None:
        return load_splits(str(path), builder, data_files=_by_split(files, wanted), streaming=wanted.streaming)
    if not all(map(is_archive, files)):
        raise CorpusError(
            f"{path} is neither parquet nor one metadata file (.csv, .jsonl), nor Arrow files or archives (.tar, "
            ".tar.gz, .zip)."
        )
    found = read_archives(files, Path(os.path.commonpath([file.parent for file in files])), wanted)
    return _renamed_if_single(found, wanted)


def _by_split(files: Sequence[Path], wanted: Wanted) -> dict[str, list[str]]:
    splits: dict[str, list[str]] = defaultdict(list)
    for file in files:
        splits[re.sub(r"\W", "_", SHARD.sub("", file.stem)) or wanted.splits[0]].append(str(file))
    return _renamed_if_single(dict(splits), wanted)


def _renamed_if_single(splits: Mapping[str, T], wanted: Wanted) -> dict[str, T]:
    # A single name says nothing about splits, unless it is one that is asked for.
    if len(splits) == 1 and next(iter(splits)) not in wanted.splits:
        return {wanted.splits[0]: next(iter(splits.values()))}
    return dict(splits)


def _not_found(path: Path, name: str, why: str) -> str:
    parent = path.parent
    neighbours = [entry.name for entry in parent.iterdir()] if parent.is_dir() else []
    close = [str(parent / name) for name in difflib.get_close_matches(path.name, neighbours)]
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    hint = hint or did_you_mean(name)
    return f"{path} is neither a local path (looked for {path.absolute()}) {why}.{hint}"
