"""In-the-Wild (Müller et al., Interspeech 2022; arXiv 2203.16263)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import pyarrow.compute as pc

from hf_gradalign.data.corpora.layout import FolderTree, Layout, Located, SplitClips, find_files, labels_of
from hf_gradalign.data.corpora.protocol_file import first_words, read_delimited

_HEADER = {"file", "speaker", "label"}


class InTheWild(Layout):
    """`meta.csv` with the columns `file,speaker,label`, in the same folder as the audio."""

    name = "in_the_wild"
    aliases = ("itw",)
    title = "In-the-Wild"
    home = "release_in_the_wild.zip from https://deepfake-total.com/in_the_wild"
    page = "in_the_wild.md"
    splits: ClassVar[Mapping[str, str]] = {"test": "all"}
    is_partitioned = False
    expects: ClassVar[Mapping[str, str]] = {
        "test": "release_in_the_wild/meta.csv (file,speaker,label), in the same folder as the audio"
    }

    def locate(self, tree: FolderTree, split: str) -> Located | None:
        """See `Layout`."""
        for path in tree.files:
            if path.name == "meta.csv" and set("".join(first_words(path)).replace('"', "").split(",")) >= _HEADER:
                subfolders = (path.parent / name for name in ("wav", "wavs"))
                return Located(path, (path.parent, *(folder for folder in subfolders if folder.is_dir())))
        return None

    def read(self, located: Located, split: str, subset: str | None) -> SplitClips:
        """See `Layout`."""
        table = read_delimited(located.protocol_path, ",")
        names = pc.replace_substring_regex(table["file"], r"^.*/|\.[^./]*$", "")
        return SplitClips(
            labels=labels_of(table["label"], str(located.protocol_path)),
            utterance_ids=names,
            paths=find_files(located, names, all_named=True),
            expected=table["file"],
            metadata={"speaker": table["speaker"]},
        )
