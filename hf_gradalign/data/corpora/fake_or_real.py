"""Fake-or-Real (Reimao and Tzerpos, SpeD 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from hf_gradalign.data.corpora.audio_listing import AudioListing
from hf_gradalign.data.corpora.layout import FolderTree, Layout, Located, SplitClips
from hf_gradalign.data.labels import LABEL_NAMES
from hf_gradalign.data.request import CorpusError

# The published version comes first. Some archives unpack into folders with other names.
_VERSIONS = ("for-norm", "for-2sec", "for-2seconds", "for-rerec", "for-rerecorded", "for-original")
_CLASSES = ("real", "fake")


class FakeOrReal(Layout):
    """One folder per version with `{training,validation,testing}/{real,fake}/*.wav`, and no protocol.

    The given folder selects the version. If it contains several versions, for-norm is used first.
    """

    name = "for"
    aliases = ("fake_or_real",)
    title = "Fake-or-Real"
    home = "for-norm.tar.gz (or for-2sec, for-rerec) from https://bil.eecs.yorku.ca/datasets/"
    page = "for.md"
    splits: ClassVar[Mapping[str, str]] = {"train": "training", "validation": "validation", "test": "testing"}
    expects: ClassVar[Mapping[str, str]] = {
        split: f"for-norm/{own}/real/ and for-norm/{own}/fake/" for split, own in splits.items()
    }

    def locate(self, tree: FolderTree, split: str) -> Located | None:
        """See `Layout`."""
        own = self.splits[split]
        folders = set(tree.folders)
        roots = [path for path in tree.folders if path.name == own and all(path / name in folders for name in _CLASSES)]
        if not roots:
            return None
        root = min(roots, key=lambda path: (_rank(path), len(path.parts)))
        return Located(None, tuple(root / name for name in _CLASSES))

    def read(self, located: Located, split: str, subset: str | None) -> SplitClips:
        """See `Layout`."""
        names, paths, labels = [], [], []
        for folder in located.folders:
            listing = AudioListing([folder])
            if not len(listing):
                raise CorpusError(f"{folder} holds no audio files.")
            # The same names are used in several classes and splits.
            prefix = f"{self.splits[split]}/{folder.name}/"
            names.append(pc.binary_join_element_wise(prefix, listing.names, ""))
            paths.append(listing.paths)
            label = LABEL_NAMES.index("bonafide" if folder.name == "real" else "spoof")
            labels.append(pa.repeat(label, len(listing)).cast(pa.int64()))
        all_paths = pa.concat_arrays(paths)
        names = pc.replace_substring_regex(pa.concat_arrays(names), r"\s+", "_")
        return SplitClips(pa.concat_arrays(labels), names, all_paths, all_paths)


def _rank(path: Path) -> int:
    return next((rank for rank, name in enumerate(_VERSIONS) if name in path.parts), len(_VERSIONS))
