"""ASVspoof 2019, logical and physical access (Wang et al., Computer Speech & Language 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from hf_gradalign.data.corpora.layout import FolderTree, Layout, Located, SplitClips, find_files, flac_names
from hf_gradalign.data.corpora.protocol_file import read_words
from hf_gradalign.data.corpora.schema import labels_of
from hf_gradalign.data.errors import CorpusError

_PROTOCOLS = {"train": "train.trn", "validation": "dev.trl", "test": "eval.trl"}
_SPLITS = {"train": "train", "validation": "dev", "test": "eval"}
_COLUMNS = {"speaker": 0, "utterance_id": 1, "environment": 2, "attack": 3, "key": 4}


def _expected(track: str) -> dict[str, str]:
    """The files that identify a track's layout, by split."""
    return {
        split: f"ASVspoof2019_{track}_cm_protocols/ASVspoof2019.{track}.cm.{_PROTOCOLS[split]}.txt and "
        f"ASVspoof2019_{track}_{own}/flac/"
        for split, own in _SPLITS.items()
    }


class _ASVspoof2019(Layout):
    """Protocol lines: `speaker utterance environment attack key`, with `-` for the environment of logical access."""

    track: ClassVar[str]
    splits: ClassVar[Mapping[str, str]] = _SPLITS

    def locate(self, tree: FolderTree, split: str) -> Located | None:
        """See `Layout`."""
        protocol = tree.file(f"ASVspoof2019.{self.track}.cm.{_PROTOCOLS[split]}.txt")
        folders = self.audio_folders(tree, f"ASVspoof2019_{self.track}_{self.splits[split]}")
        return Located(protocol, folders) if protocol and folders else None

    def read(self, located: Located, split: str, subset: str | None) -> SplitClips:
        """See `Layout`."""
        table = read_words(located.protocol, lambda words: _columns(located, words))
        known = {"speaker": table["speaker"], "system": table["attack"], "environment": table["environment"]}
        return SplitClips(
            labels=labels_of(table["key"], str(located.protocol)),
            utterance_ids=table["utterance_id"],
            paths=find_files(located, table["utterance_id"]),
            expected=flac_names(table["utterance_id"]),
            metadata={name: known[name] for name in ("speaker", "system", *self.further_columns)},
        )


class ASVspoof2019LA(_ASVspoof2019):
    """Logical access: synthesized and converted speech."""

    name = "asvspoof2019_la"
    aliases = ("asvspoof19_la", "asvspoof2019")
    title = "ASVspoof 2019 LA"
    home = "LA.zip from https://datashare.ed.ac.uk/handle/10283/3336"
    page = "asvspoof2019_la.md"
    track = "LA"
    expects: ClassVar[Mapping[str, str]] = _expected(track)


class ASVspoof2019PA(_ASVspoof2019):
    """Physical access: replayed speech in simulated rooms. An attack is the attacker's distance and device (`AA`)."""

    name = "asvspoof2019_pa"
    aliases = ("asvspoof19_pa",)
    title = "ASVspoof 2019 PA"
    home = "PA.zip from https://datashare.ed.ac.uk/handle/10283/3336"
    page = "asvspoof2019_pa.md"
    track = "PA"
    further_columns = ("environment",)
    expects: ClassVar[Mapping[str, str]] = _expected(track)


def _columns(located: Located, words: list[str]) -> dict[str, int]:
    if len(words) != 5:
        raise CorpusError(
            f"{located.protocol}: its first line is {' '.join(words)!r}, but a countermeasure protocol of ASVspoof "
            "2019 has five words, speaker utterance - attack key (an environment instead of - for physical access)."
        )
    return _COLUMNS
