"""ASVspoof 5, track 1 (Wang et al., ASVspoof 2024 workshop; arXiv 2502.08857)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from hf_gradalign.data.corpora.layout import FolderTree, Layout, Located, SplitClips, find_files, flac_names
from hf_gradalign.data.corpora.protocol_file import read_words
from hf_gradalign.data.corpora.schema import labels_of
from hf_gradalign.data.errors import CorpusError
from hf_gradalign.data.labels import canonical_label

_FOLDERS = {"train": "flac_T", "validation": "flac_D", "test": "flac_E_eval"}
# The second names are from the challenge's first release.
_PROTOCOLS = {
    "train": ("ASVspoof5.train.tsv", "ASVspoof5.train.metadata.txt"),
    "validation": ("ASVspoof5.dev.track_1.tsv", "ASVspoof5.dev.metadata.txt"),
    "test": ("ASVspoof5.eval.track_1.tsv", "ASVspoof5.eval.metadata.txt"),
}
_GENDERS = ("M", "F")
_WORDS_WITH_CODEC = 9


class ASVspoof5(Layout):
    """Lines of the protocols: `speaker utterance gender codec codec_q codec_seed attack_tag attack key tmp`.

    Despite the extension .tsv, words are separated by spaces. Shorter lines of other releases are supported: the key is
    their last bonafide or spoof, and the attack is the word before it.
    """

    name = "asvspoof5"
    title = "ASVspoof 5"
    home = "flac_T_*.tar, flac_D_*.tar, flac_E_*.tar and ASVspoof5_protocols.tar.gz from https://zenodo.org/records/14498691"
    page = "asvspoof5.md"
    splits: ClassVar[Mapping[str, str]] = {"train": "train", "validation": "dev", "test": "eval"}
    expects: ClassVar[Mapping[str, str]] = {
        split: f"{_PROTOCOLS[split][0]} and {folder}/" for split, folder in _FOLDERS.items()
    }

    def locate(self, tree: FolderTree, split: str) -> Located | None:
        """See `Layout`."""
        protocol = tree.file(*_PROTOCOLS[split])
        folders = self.audio_folders(tree, _FOLDERS[split])
        return Located(protocol, folders) if protocol and folders else None

    def read(self, located: Located, split: str, subset: str | None) -> SplitClips:
        """See `Layout`."""
        table = read_words(located.protocol, lambda words: _columns(located.protocol, words))
        metadata = {name: table[name] for name in ("speaker", "gender", "codec") if name in table.column_names}
        return SplitClips(
            labels=labels_of(table["key"], str(located.protocol)),
            utterance_ids=table["utterance_id"],
            paths=find_files(located, table["utterance_id"]),
            expected=flac_names(table["utterance_id"]),
            metadata=metadata | {"system": table["attack"]},
        )


def _columns(path: Path, words: list[str]) -> dict[str, int]:
    keys = [index for index, word in enumerate(words) if canonical_label(word) is not None]
    if not keys or keys[-1] < 3:
        raise CorpusError(
            f"{path}: its first line, {' '.join(words)!r}, has no key (bonafide or spoof), unlike track 1 of ASVspoof "
            "5: is it the protocol of another track, or one without keys?"
        )
    columns = {"speaker": 0, "utterance_id": 1, "attack": keys[-1] - 1, "key": keys[-1]}
    if words[2] in _GENDERS:
        columns["gender"] = 2
    if len(words) >= _WORDS_WITH_CODEC:
        columns["codec"] = 3
    return columns
