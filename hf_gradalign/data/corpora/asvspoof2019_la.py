"""ASVspoof 2019, logical access (Wang et al., Computer Speech & Language 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from hf_gradalign.data.corpora.folder_tree import FolderTree
from hf_gradalign.data.corpora.layout import Clips, Layout, Located, find_files, flac_names
from hf_gradalign.data.corpora.protocol_file import read_words
from hf_gradalign.data.corpora.schema import labels_of
from hf_gradalign.data.errors import CorpusError

_PROTOCOLS = {"train": "train.trn", "validation": "dev.trl", "test": "eval.trl"}
_COLUMNS = {"speaker": 0, "utterance_id": 1, "attack": 3, "key": 4}


class ASVspoof2019LA(Layout):
    """Lines of the protocols: `speaker utterance - attack key`."""

    name = "asvspoof2019_la"
    aliases = ("asvspoof19_la", "asvspoof2019")
    title = "ASVspoof 2019 LA"
    home = "LA.zip from https://datashare.ed.ac.uk/handle/10283/3336"
    page = "asvspoof2019_la.md"
    splits: ClassVar[Mapping[str, str]] = {"train": "train", "validation": "dev", "test": "eval"}
    expects: ClassVar[Mapping[str, str]] = {
        split: f"ASVspoof2019_LA_cm_protocols/ASVspoof2019.LA.cm.{ending}.txt and ASVspoof2019_LA_{own}/flac/"
        for (split, own), ending in zip(splits.items(), _PROTOCOLS.values(), strict=True)
    }

    def locate(self, tree: FolderTree, split: str) -> Located | None:
        """See `Layout`."""
        protocol = tree.file(f"ASVspoof2019.LA.cm.{_PROTOCOLS[split]}.txt")
        folders = self.audio_folders(tree, f"ASVspoof2019_LA_{self.splits[split]}")
        return Located(protocol, folders) if protocol and folders else None

    def read(self, located: Located, split: str, subset: str | None) -> Clips:
        """See `Layout`."""
        table = read_words(located.protocol, lambda words: _columns(located, words))
        return Clips(
            labels=labels_of(table["key"], str(located.protocol)),
            utterance_ids=table["utterance_id"],
            paths=find_files(located, table["utterance_id"]),
            expected=flac_names(table["utterance_id"]),
            metadata={"speaker": table["speaker"], "system": table["attack"]},
        )


def _columns(located: Located, words: list[str]) -> dict[str, int]:
    if len(words) != 5:
        raise CorpusError(
            f"{located.protocol}: its first line is {' '.join(words)!r}, where a countermeasure protocol of ASVspoof "
            "2019 has five words, speaker utterance - attack key."
        )
    return _COLUMNS
