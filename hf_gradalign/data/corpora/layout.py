"""The layout of a named corpus: where its files are, what its protocol means, and the columns of its data set."""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import datasets
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, DatasetInfo, Features, Value
from datasets.fingerprint import Hasher

from hf_gradalign.data.arrow import Column, flat
from hf_gradalign.data.corpora.audio_listing import AudioListing
from hf_gradalign.data.labels import LABEL_NAMES, canonical_label
from hf_gradalign.data.request import CorpusError
from hf_gradalign.utils.folder_listing import is_hidden
from hf_gradalign.utils.messages import first_few

METADATA_COLUMNS = ("speaker", "system", "codec", "condition", "language", "gender", "subset")
"""Metadata of a clip; null if the protocol lacks it. `system` is the attack, or `-` for bona fide speech."""

FEATURES = Features(
    {
        "audio": datasets.Audio(decode=False),
        "label": ClassLabel(names=list(LABEL_NAMES)),
        "utterance_id": Value("string"),
        **{column: Value("string") for column in METADATA_COLUMNS},
    }
)
"""The columns of every named corpus. Some corpora have further text columns after these."""

BONA_FIDE_SYSTEM = "-"


def labels_of(keys: Column, source: str) -> pa.Array:
    """Convert a protocol's keys, in any common spelling, to indices into `LABEL_NAMES`.

    Raises:
        CorpusError: If a key means neither class.
    """
    encoded = flat(keys).dictionary_encode()
    names = [canonical_label(name) if name is not None else None for name in encoded.dictionary.to_pylist()]
    unknown = [str(key) for key, name in zip(encoded.dictionary.to_pylist(), names, strict=True) if name is None]
    if unknown or encoded.null_count:
        raise CorpusError(
            f"{source}: the keys must be bonafide or spoof; found {', '.join(unknown[:10]) or 'empty keys'}."
        )
    numbers = pa.array([LABEL_NAMES.index(name) for name in names], pa.int64())
    return numbers.take(encoded.indices)


def make_dataset(
    paths: Column, labels: pa.Array, utterance_ids: Column, metadata: Mapping[str, Any], identity: object
) -> Dataset:
    """Make a data set with the columns of `FEATURES`, in memory (about 150 bytes per clip).

    Args:
        paths: The audio files.
        labels: Indices into `LABEL_NAMES`.
        utterance_ids: Unique names.
        metadata: Columns of `METADATA_COLUMNS`, null if missing, and further columns. `system` becomes `-` for bona
            fide speech; some protocols repeat the key there.
        identity: A value that identifies the contents, for the fingerprint. By default, `datasets` would hash all
            contents.
    """
    n_clips = len(labels)
    path_column = flat(paths).cast(pa.string())
    audio = pa.StructArray.from_arrays([pa.nulls(n_clips, pa.binary()), path_column], names=["bytes", "path"])
    columns = {"audio": audio, "label": labels, "utterance_id": flat(utterance_ids).cast(pa.string())}
    further = [column for column in metadata if column not in METADATA_COLUMNS]
    for column in (*METADATA_COLUMNS, *further):
        values = metadata.get(column)
        columns[column] = pa.nulls(n_clips, pa.string()) if values is None else flat(values).cast(pa.string())
    is_bona_fide = pc.equal(labels, LABEL_NAMES.index("bonafide"))
    columns["system"] = pc.if_else(is_bona_fide, BONA_FIDE_SYSTEM, columns["system"])
    features = Features({**FEATURES, **{column: Value("string") for column in further}})
    table = pa.table([columns[name] for name in features], schema=features.arrow_schema)
    return Dataset(table, info=DatasetInfo(features=features), fingerprint=Hasher.hash(identity))


MAX_DEPTH = 7
"""How deep to search for a corpus: enough for keys/LA/CM/ in an archive within another one."""

# A wrong path, such as / or a home folder, should fail quickly.
_MAX_FOLDERS = 20_000

# These folders contain hundreds of thousands of files, and are listed only when their split is read.
_AUDIO_FOLDERS = re.compile(r"flac|wavs?|flac_(T|D|E_eval|E_prog)|real", re.IGNORECASE)
_TEXT_SUFFIXES = {".txt", ".tsv", ".csv", ".trn", ".trl", ".yaml"}


@dataclass(frozen=True)
class Located:
    """Where a split is on disk.

    Attributes:
        protocol: The split's protocol; None if the folder names say everything.
        folders: The folders with its audio.
        undescribed: Folders next to them that should contain no audio, because no metadata describes it.
    """

    protocol: Path | None
    folders: tuple[Path, ...]
    undescribed: tuple[Path, ...] = ()

    @property
    def protocol_path(self) -> Path:
        """The protocol, for layouts that have one."""
        assert self.protocol is not None
        return self.protocol


@dataclass(frozen=True)
class SplitClips:
    """A split's clips, as columns of equal length.

    Attributes:
        labels: Indices into `LABEL_NAMES`.
        utterance_ids: Unique names.
        paths: The audio files; null for missing files.
        expected: The file names that should be on disk, with extensions, for messages.
        metadata: Columns of `METADATA_COLUMNS`, and the layout's `further_columns`.
    """

    labels: pa.Array
    utterance_ids: Column
    paths: pa.Array
    expected: Column
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def select(self, chosen: pa.Array) -> SplitClips:
        """Return the clips where the mask `chosen` is true."""
        return SplitClips(
            labels=pc.filter(self.labels, chosen),
            utterance_ids=pc.filter(self.utterance_ids, chosen),
            paths=pc.filter(self.paths, chosen),
            expected=pc.filter(self.expected, chosen),
            metadata={name: pc.filter(values, chosen) for name, values in self.metadata.items()},
        )


class Layout(ABC):
    """The layout of a corpus as it is distributed. One subclass per layout.

    To add a corpus, write a subclass in its own file and add it to `LAYOUTS` in `registry.py`.

    Attributes:
        name: The corpus' name for `load_corpus`.
        aliases: Other names.
        title: The corpus' title.
        home: Where to download it, for messages.
        page: The corpus' page in `docs/corpora/`.
        expects: The files that identify the layout, by split, for messages.
        splits: The corpus' own name of each split.
        is_partitioned: False if the corpus has no partition. Then all of it is `test`, and `train` or `validation` on
            request.
        is_scattered: Whether a split's files may be at different depths, in which case all folders must be searched.
        subsets: The subsets of a split, the default first.
        further_columns: Columns of the protocol beyond `METADATA_COLUMNS`.
    """

    name: ClassVar[str]
    aliases: ClassVar[tuple[str, ...]] = ()
    title: ClassVar[str]
    home: ClassVar[str]
    page: ClassVar[str]
    expects: ClassVar[Mapping[str, str]]
    splits: ClassVar[Mapping[str, str]]
    is_partitioned: ClassVar[bool] = True
    is_scattered: ClassVar[bool] = False
    subsets: ClassVar[tuple[str, ...]] = ()
    further_columns: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def locate(self, tree: FolderTree, split: str) -> Located | None:
        """Find a split among the files listed so far; None if it is missing or incomplete."""

    @abstractmethod
    def read(self, located: Located, split: str, subset: str | None) -> SplitClips:
        """Read a split.

        Raises:
            CorpusError: If the protocol cannot be read.
        """

    def split_of(self, name: str) -> str | None:
        """Return the project's name of a split, given that name or the corpus' own name; None for unknown splits."""
        key = name.lower()
        if key in self.splits:
            return key
        if not self.is_partitioned and key in ("train", "validation"):
            return "test"
        return next((split for split, own in self.splits.items() if own.lower() == key), None)

    def audio_folders(self, tree: FolderTree, pattern: str, *inside: str) -> tuple[Path, ...]:
        """Return the audio folders of an archive.

        Args:
            tree: The folders listed so far.
            pattern: A regular expression for the archive's folder name, ignoring case.
            inside: Subfolders that may contain the audio, in addition to `flac` and `wav`. If there are none, the
                folder itself contains it.
        """
        matches = [path for path in tree.folders if re.fullmatch(pattern, path.name, re.IGNORECASE)]
        subfolders = ("flac", "wav", *inside)
        audio = [next((path / name for name in subfolders if (path / name).is_dir()), path) for path in matches]
        return tuple(dict.fromkeys(audio))


class FolderTree:
    """Lists the folders and text files below a folder, each folder once, but not the contents of audio folders.

    Args:
        root: The folder, or a file in it.

    Attributes:
        root: The folder.
        files: Text files listed so far, nearest to the root first.
        folders: Folders listed so far, the root first.
    """

    def __init__(self, root: Path) -> None:
        self.root = root if root.is_dir() else root.parent
        self.files: list[Path] = []
        self.folders: list[Path] = [self.root]
        self._next = [self.root]
        self.depth = 0
        self.deepen()

    def deepen(self) -> bool:
        """List the next level. Return False if there is none or the search has reached its limits."""
        if not self._next or self.depth == MAX_DEPTH or len(self.folders) > _MAX_FOLDERS:
            return False
        level, self._next = self._next, []
        for folder in level:
            for name, is_folder in _entries(folder):
                if is_folder:
                    path = folder / name
                    self.folders.append(path)
                    if not _AUDIO_FOLDERS.fullmatch(name) and not is_hidden(name) and not _links_to_parent(path):
                        self._next.append(path)
                elif os.path.splitext(name)[1].lower() in _TEXT_SUFFIXES:
                    self.files.append(folder / name)
        self.depth += 1
        return True

    def file(self, *names: str) -> Path | None:
        """Return the first file with one of these names, ignoring case. Earlier names win."""
        by_name: dict[str, Path] = {}
        for path in self.files:
            by_name.setdefault(path.name.lower(), path)
        return next((by_name[name.lower()] for name in names if name.lower() in by_name), None)

    def describe(self) -> str:
        """Describe the contents of the root, for messages."""
        if not self.root.is_dir():
            return "no such folder"
        names = sorted(name + ("/" if is_folder else "") for name, is_folder in _entries(self.root))
        return first_few(names, 8) or "nothing"


def find_files(located: Located, names: Column, *, all_named: bool = False) -> pa.Array:
    """Return the audio files with these names (without extension) in a split's folders; null for missing files.

    Args:
        located: The split's folders.
        names: The names in its protocol.
        all_named: Whether the protocol should name all files in the folders. Then others cause a warning.

    Raises:
        CorpusError: If files of the same name in different folders differ.
    """
    listing = AudioListing(located.folders)
    if all_named:
        listing.warn_about_others(names, str(located.protocol))
    return listing.find(names)


def flac_names(names: Column) -> Column:
    """Return the names of the files in the official archives."""
    return pc.binary_join_element_wise(names, ".flac", "")


def _links_to_parent(path: Path) -> bool:
    """Return whether a folder is a link to one of its parents."""
    return path.is_symlink() and Path(os.path.realpath(path.parent)).is_relative_to(os.path.realpath(path))


def _entries(folder: Path) -> list[tuple[str, bool]]:
    try:
        with os.scandir(folder) as entries:
            return sorted((entry.name, entry.is_dir()) for entry in entries)
    except OSError:
        return []
