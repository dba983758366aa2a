"""The layout of a named corpus: where its files are, what its protocol means, and how its folders are listed."""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from hf_gradalign.utils.folder_listing import AUDIO_SUFFIXES, is_hidden

MAX_DEPTH = 7
"""The depth of the search for a corpus: enough for keys/LA/CM/ in an archive inside another one."""

# A wrong path, such as / or a home folder, should fail quickly.
_MAX_FOLDERS = 20_000

# These hold hundreds of thousands of files, and are listed only when their split is read.
_AUDIO_FOLDERS = re.compile(r"flac|wavs?|flac_(T|D|E_eval|E_prog)|real", re.IGNORECASE)
_TEXT_SUFFIXES = {".txt", ".tsv", ".csv", ".trn", ".trl", ".yaml"}


@dataclass(frozen=True)
class Located:
    """Where a split is.

    Attributes:
        protocol: Its protocol; None if the folders tell everything.
        folders: The folders with its audio.
    """

    protocol: Path | None
    folders: tuple[Path, ...]


@dataclass(frozen=True)
class SplitClips:
    """A split's clips, columns of equal length.

    Attributes:
        labels: Indices into `LABEL_NAMES`.
        utterance_ids: Unique names.
        paths: The audio files; null for missing files.
        expected: The files' names in the protocol.
        metadata: Columns of `METADATA_COLUMNS`, and the layout's `further_columns`.
    """

    labels: pa.Array
    utterance_ids: pa.Array | pa.ChunkedArray
    paths: pa.Array
    expected: pa.Array | pa.ChunkedArray
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def only(self, chosen: pa.Array) -> SplitClips:
        """The clips where the mask `chosen` is true."""
        return SplitClips(
            labels=pc.filter(self.labels, chosen),
            utterance_ids=pc.filter(self.utterance_ids, chosen),
            paths=pc.filter(self.paths, chosen),
            expected=pc.filter(self.expected, chosen),
            metadata={name: pc.filter(values, chosen) for name, values in self.metadata.items()},
        )


class Layout(ABC):
    """The layout of a corpus as it is distributed. One subclass per layout.

    To add a corpus, write a subclass in a file of its own and add it to `LAYOUTS` in `registry.py`.

    Attributes:
        name: Its name for `load_corpus`.
        aliases: Other names.
        title: The corpus' title.
        home: Where to download it, for messages.
        page: Its page in `docs/corpora/`.
        expects: The files that identify the layout, by split, for messages.
        splits: The corpus' own name of each split.
        is_partitioned: False if the corpus has no partition. All of it is then `test`, and also `train` or `validation`
            on request.
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
        """The project's name of a split, given by that name or the corpus' own; None for unknown splits."""
        key = name.lower()
        if key in self.splits:
            return key
        if not self.is_partitioned and key in ("train", "validation"):
            return "test"
        return next((split for split, own in self.splits.items() if own.lower() == key), None)

    def audio_folders(self, tree: FolderTree, pattern: str, *inside: str) -> tuple[Path, ...]:
        """The audio folders of an archive.

        Args:
            tree: The folders listed so far.
            pattern: A regular expression for the archive's folder name, ignoring case.
            inside: Subfolders that may hold the audio, besides `flac` and `wav`. Otherwise the folder itself does.
        """
        found = [path for path in tree.folders if re.fullmatch(pattern, path.name, re.IGNORECASE)]
        subfolders = ("flac", "wav", *inside)
        audio = [next((path / name for name in subfolders if (path / name).is_dir()), path) for path in found]
        return tuple(dict.fromkeys(audio))


class FolderTree:
    """Lists the folders and text files below a folder, each folder once. Does not list folders of audio.

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
        """List the next level. Returns False if there is none, or the search has reached its limits."""
        if not self._next or self.depth == MAX_DEPTH or len(self.folders) > _MAX_FOLDERS:
            return False
        level, self._next = self._next, []
        for folder in level:
            for name, is_folder in _entries(folder):
                if is_folder:
                    path = folder / name
                    self.folders.append(path)
                    if not _AUDIO_FOLDERS.fullmatch(name) and not is_hidden(name) and not _leads_back(path):
                        self._next.append(path)
                elif os.path.splitext(name)[1].lower() in _TEXT_SUFFIXES:
                    self.files.append(folder / name)
        self.depth += 1
        return True

    def file(self, *names: str) -> Path | None:
        """The first file with one of these names, ignoring case. Earlier names win."""
        by_name: dict[str, Path] = {}
        for path in self.files:
            by_name.setdefault(path.name.lower(), path)
        return next((by_name[name.lower()] for name in names if name.lower() in by_name), None)

    def described(self) -> str:
        """The content of the root, for messages."""
        if not self.root.is_dir():
            return "no such folder"
        names = sorted(name + ("/" if is_folder else "") for name, is_folder in _entries(self.root))
        listed = ", ".join(names[:8]) or "nothing"
        return listed + (f" and {len(names) - 8} more" if len(names) > 8 else "")


class AudioListing:
    """Lists the audio files in folders, without subfolders, to find them by name. Checking single files takes minutes.

    Args:
        folders: The folders. Files in earlier folders win over files of the same name in later ones.

    Attributes:
        names: The files' names without extension.
        paths: The files.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        self.folders = list(folders)
        names, paths = [], []
        for folder in self.folders:
            found = _list_audio(folder)
            prefix = f"{folder}{os.sep}"
            names.append(pc.replace_substring_regex(found, r"\.[^.]*$", ""))
            paths.append(pc.binary_join_element_wise(prefix, found, ""))
        self.names = pa.concat_arrays(names) if names else pa.array([], pa.string())
        self.paths = pa.concat_arrays(paths) if paths else pa.array([], pa.string())

    def __len__(self) -> int:
        return len(self.paths)

    def find(self, names: pa.Array | pa.ChunkedArray) -> pa.Array:
        """The files of these names; null for missing files."""
        names = names.combine_chunks() if isinstance(names, pa.ChunkedArray) else names
        indices = pc.index_in(names, value_set=self.names)
        if indices.null_count:
            # In Unicode's composed form: macOS decomposes characters.
            composed = pc.utf8_normalize(self.names, form="NFC")
            others = pc.index_in(pc.utf8_normalize(names, form="NFC"), value_set=composed)
            indices = pc.coalesce(indices, others)
        return self.paths.take(indices)


def find_files(located: Located, names: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The audio files of these names (without extension) in a split's folders; null for missing files."""
    return AudioListing(located.folders).find(names)


def flac_names(names: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """The names of files in the official archives."""
    return pc.binary_join_element_wise(names, ".flac", "")


def _list_audio(folder: Path) -> pa.Array:
    """The sorted names of the audio files in a folder, preferred extensions first. Empty if it cannot be listed."""
    by_suffix: dict[str, list[str]] = {suffix: [] for suffix in AUDIO_SUFFIXES}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                found = by_suffix.get(os.path.splitext(entry.name)[1].lower())
                if found is not None and not is_hidden(entry.name):
                    found.append(entry.name)
    except OSError:
        pass
    return pa.array([name for names in by_suffix.values() for name in sorted(names)], pa.string())


def _leads_back(path: Path) -> bool:
    """Whether a folder is a link to one of its parents."""
    return path.is_symlink() and Path(os.path.realpath(path.parent)).is_relative_to(os.path.realpath(path))


def _entries(folder: Path) -> list[tuple[str, bool]]:
    try:
        with os.scandir(folder) as entries:
            return sorted((entry.name, entry.is_dir()) for entry in entries)
    except OSError:
        return []
