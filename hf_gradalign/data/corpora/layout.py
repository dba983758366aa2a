"""What the layout of a named corpus says: where its files are, and what its protocol means."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from hf_gradalign.data.corpora.audio_listing import AudioListing
from hf_gradalign.data.corpora.folder_tree import FolderTree


@dataclass(frozen=True)
class Located:
    """Where a split is.

    Attributes:
        protocol: its protocol, None where the folders say it all.
        folders: the folders with its audio.
    """

    protocol: Path | None
    folders: tuple[Path, ...]


@dataclass(frozen=True)
class Clips:
    """A split's clips, columns of equal length.

    Attributes:
        labels: indices into `LABEL_NAMES`.
        utterance_ids: unique names.
        paths: the audio files, null for those that are not there.
        expected: the files as the protocol names them.
        metadata: columns of `METADATA_COLUMNS`, and the layout's `further_columns`.
    """

    labels: pa.Array
    utterance_ids: pa.Array | pa.ChunkedArray
    paths: pa.Array
    expected: pa.Array | pa.ChunkedArray
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def only(self, chosen: pa.Array) -> Clips:
        """The clips where `chosen`, booleans, is true."""
        return Clips(
            labels=pc.filter(self.labels, chosen),
            utterance_ids=pc.filter(self.utterance_ids, chosen),
            paths=pc.filter(self.paths, chosen),
            expected=pc.filter(self.expected, chosen),
            metadata={name: pc.filter(values, chosen) for name, values in self.metadata.items()},
        )


class Layout(ABC):
    """A corpus as it is distributed; one subclass a layout.

    Attributes:
        name: what `load_corpus` calls it.
        aliases: other names.
        title: the corpus' own name.
        home: where to download what, for people.
        page: its page in `docs/corpora/`.
        expects: the files that tell the layout, for people, by split.
        splits: the project's names of the splits there are, to the corpus' own.
        is_partitioned: False if the corpus has no partition of its own; all of it is then `test`, and all of it is
            what one gets that asks for `train` or `validation`.
        subsets: parts of a split that may be asked for, the default first.
        further_columns: what the protocol knows of a clip that is none of `METADATA_COLUMNS`.
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
        """Find a split among the files listed so far, None if it is not, or not all, among them."""

    @abstractmethod
    def read(self, located: Located, split: str, subset: str | None) -> Clips:
        """Read a split.

        Raises:
            CorpusError: if the protocol cannot be read.
        """

    def split_of(self, name: str) -> str | None:
        """The project's name of a split, from that or the corpus' own; None if there is no such split."""
        key = name.lower()
        if key in self.splits:
            return key
        if not self.is_partitioned and key in ("train", "validation"):
            return "test"
        return next((split for split, own in self.splits.items() if own.lower() == key), None)

    def audio_folders(self, tree: FolderTree, pattern: str, *inside: str) -> tuple[Path, ...]:
        """The audio folders of an archive.

        Args:
            tree: what has been listed so far.
            pattern: a regular expression for the archive's whole folder name, case aside.
            inside: where the audio may lie in it, beside `flac` and `wav`; else it is in the folder itself.
        """
        found = [path for path in tree.folders if re.fullmatch(pattern, path.name, re.IGNORECASE)]
        places = ("flac", "wav", *inside)
        audio = [next((path / place for place in places if (path / place).is_dir()), path) for path in found]
        return tuple(dict.fromkeys(audio))


def find_files(located: Located, names: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The audio files of these names (without ending) in a split's folders, null where there is none."""
    return AudioListing(located.folders).find(names)


def flac_names(names: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Names with the ending that they have in the official archives."""
    return pc.binary_join_element_wise(names, ".flac", "")
