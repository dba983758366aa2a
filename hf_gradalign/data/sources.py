"""Find out what a corpus' name or path is, and read its splits as they are."""

from __future__ import annotations

import difflib
import glob
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
from datasets import Dataset, DatasetDict, IterableDataset, load_dataset, load_dataset_builder, load_from_disk
from datasets.exceptions import DatasetsError

from hf_gradalign.data.corpora import CorpusSpec, did_you_mean, parse_corpus
from hf_gradalign.data.corpora.arena import arena_files
from hf_gradalign.data.corpora.audio_listing import AUDIO_SUFFIXES
from hf_gradalign.data.demo_corpus import demo_corpus_files
from hf_gradalign.data.errors import CorpusError
from hf_gradalign.data.metadata_folder import METADATA_NAMES, find_metadata, read_metadata
from hf_gradalign.data.parquet_splits import ParquetSplits

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_SHARD = re.compile(r"[-_.]?\d+(-of-\d+)?(-[0-9a-f]{16})?$")
_SAVED = ("dataset_dict.json", "state.json")


def read_source(
    spec: CorpusSpec | str | None,
    *,
    config_name: str | None,
    revision: str | None,
    token: str | bool | None,
    audio_column: str,
    split_names: tuple[str, ...],
    lists_audio: bool = False,
    streaming: bool = False,
) -> Mapping[str, Dataset | IterableDataset]:
    """Read all splits of a corpus without a layout of its own, columns untouched.

    Args:
        spec: as `parse_corpus` takes or gives it: the demo corpus; a folder written by `save_to_disk`; a folder with
            `metadata.csv` or `metadata.jsonl`, or that file; a parquet file or a glob of them; a folder in the Arena's
            form; any other folder that `load_dataset` reads; else `owner/name` on the Hub.
        config_name: the configuration, where a data set has several.
        revision: the Hub repository's branch, tag or commit.
        token: the Hub token; None for the one that is logged in.
        audio_column: what the paths of a metadata file become.
        split_names: the splits that will be asked for, the training split first; names for files that say nothing.
        lists_audio: whether a folder with nothing but audio files is a corpus, without labels.
        streaming: whether to read what `load_dataset` reads as it is gone through, without a copy on disk.

    Returns:
        The splits: data sets, those of parquet files read when they are taken; with `streaming` iterable ones, where
        there is something to stream.

    Raises:
        CorpusError: if nothing is found, or what is found cannot be read.
    """
    spec = spec if isinstance(spec, CorpusSpec) else parse_corpus(spec)
    found = _find(spec, config_name, revision, token, audio_column, split_names, lists_audio, streaming)
    if isinstance(found, ParquetSplits):
        for name in {*found} & {*split_names}:
            found.get(name)  # read now, so that what is wrong with it is told now
    return found


def _find(
    spec: CorpusSpec,
    config_name: str | None,
    revision: str | None,
    token: str | bool | None,
    audio_column: str,
    split_names: tuple[str, ...],
    lists_audio: bool,
    streaming: bool,
) -> Mapping[str, Dataset | IterableDataset]:
    if spec.is_demo:
        return _load("the demo corpus", "parquet", data_files=demo_corpus_files(), streaming=streaming)
    name = spec.hub_id or spec.path or spec.text
    path = Path(name).expanduser()
    if spec.hub_id is None or path.exists():
        if path.is_dir():
            if spec.is_arena:
                return _load(str(path), "parquet", data_files=arena_files(path), streaming=streaming)
            return _read_folder(path, config_name, audio_column, split_names, lists_audio, streaming)
        if path.is_file() or glob.has_magic(name):
            return _read_files(path, audio_column, split_names, streaming)
    if not _HUB_ID.fullmatch(name):
        raise CorpusError(_not_found(path, name, "nor the name of a data set on the Hub, which would be owner/name"))
    try:
        return _splits(name, name, streaming, name=config_name, revision=revision, token=token)
    except CorpusError:
        raise
    except (OSError, ValueError, DatasetsError) as error:
        if "Config name is missing" in str(error) or "BuilderConfig" in str(error):
            raise CorpusError(f"{name}: {error}\nChoose one with --dataset_config_name.") from error
        raise CorpusError(_not_found(path, name, f"nor reachable on the Hub ({error})")) from error


def _read_folder(
    folder: Path,
    config_name: str | None,
    audio_column: str,
    split_names: tuple[str, ...],
    lists_audio: bool,
    streaming: bool,
) -> Mapping[str, Dataset | IterableDataset]:
    if any((folder / name).is_file() for name in _SAVED):
        return _read_saved(folder, split_names[0])
    metadata = find_metadata(folder)
    if metadata:
        return read_metadata(metadata, audio_column=audio_column, train_split=split_names[0])
    suffixes = {path.suffix.lower() for path in folder.rglob("*") if path.is_file()}
    if suffixes & set(AUDIO_SUFFIXES) and ".parquet" not in suffixes:
        if lists_audio:
            files = sorted(str(path) for path in folder.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES)
            return DatasetDict({split_names[0]: Dataset.from_dict({audio_column: files})})
        raise CorpusError(
            f"{folder} holds audio files but no {' or '.join(METADATA_NAMES)} that labels them. Write one, with the "
            "columns file_name (relative to it), label and, if you like, split."
        )
    return _load(str(folder), str(folder.resolve()), name=config_name, streaming=streaming)


def _read_saved(folder: Path, train_split: str) -> DatasetDict:
    try:
        found = load_from_disk(str(folder))
    # An IndexError is the answer to a saved split without rows.
    except (OSError, ValueError, IndexError, pa.ArrowException) as error:
        raise CorpusError(
            f"Cannot read {folder}, which save_to_disk wrote; has it a split without rows? {error!r}"
        ) from error
    return _as_splits(found if isinstance(found, DatasetDict) else DatasetDict({train_split: found}))


def _read_files(
    path: Path, audio_column: str, split_names: tuple[str, ...], streaming: bool
) -> Mapping[str, Dataset | IterableDataset]:
    files = [Path(file) for file in sorted(glob.glob(str(path), recursive=True))] or [path]
    if not all(file.is_file() for file in files):
        raise CorpusError(f"{path} matches no files.")
    if len(files) == 1 and path.suffix in (".csv", ".jsonl"):
        return read_metadata({None: path}, audio_column=audio_column, train_split=split_names[0])
    if any(file.suffix != ".parquet" for file in files):
        raise CorpusError(f"{path} is neither parquet nor one metadata file (.csv, .jsonl).")
    splits: dict[str, list[str]] = defaultdict(list)
    for file in files:
        splits[re.sub(r"\W", "_", _SHARD.sub("", file.stem)) or split_names[0]].append(str(file))
    # A single name says nothing about splits, unless it is one that is asked for.
    if len(splits) == 1 and next(iter(splits)) not in split_names:
        splits = {split_names[0]: next(iter(splits.values()))}
    return _load(str(path), "parquet", data_files=dict(splits), streaming=streaming)


def _load(shown: str, builder: str, *, streaming: bool, **options: object) -> Mapping[str, Dataset | IterableDataset]:
    try:
        return _splits(shown, builder, streaming, **options)
    except (OSError, ValueError, DatasetsError, pa.ArrowException) as error:
        cause = error.__cause__ or error
        hint = " Choose one with --dataset_config_name." if "Config name is missing" in str(error) else ""
        raise CorpusError(f"Cannot read {shown} as a data set: {cause}.{hint}") from error


def _splits(shown: str, path: str, streaming: bool, **options: object) -> Mapping[str, Dataset | IterableDataset]:
    if not streaming:
        builder = load_dataset_builder(path, **options)
        if ParquetSplits.is_lazy(builder):
            return ParquetSplits(builder, shown, options.get("token"))
    return _as_splits(load_dataset(path, streaming=streaming, **options))


def _as_splits(found: Mapping[str, Dataset | IterableDataset]) -> Mapping[str, Dataset | IterableDataset]:
    return {str(split): dataset.with_format(None) for split, dataset in found.items()}


def _not_found(path: Path, name: str, why: str) -> str:
    parent = path.parent
    neighbours = [entry.name for entry in parent.iterdir()] if parent.is_dir() else []
    close = [str(parent / name) for name in difflib.get_close_matches(path.name, neighbours)]
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    hint = hint or did_you_mean(name)
    return f"{path} is neither a local path (looked for {path.absolute()}) {why}.{hint}"
