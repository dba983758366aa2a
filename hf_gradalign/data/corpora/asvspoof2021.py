"""ASVspoof 2021, logical access and deepfake (Liu et al., IEEE/ACM TASLP 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import pyarrow.compute as pc

from hf_gradalign.data.corpora.folder_tree import FolderTree
from hf_gradalign.data.corpora.layout import Clips, Layout, Located, find_files, flac_names
from hf_gradalign.data.corpora.protocol_file import first_words, read_words
from hf_gradalign.data.corpora.schema import labels_of
from hf_gradalign.data.errors import CorpusError

_KEYS = "trial_metadata.txt"
# Further words of the deepfake track say which vocoder an attack has.
_COLUMNS = {
    "speaker": 0,
    "utterance_id": 1,
    "codec": 2,
    "condition": 3,
    "attack": 4,
    "key": 5,
    "subset": 7,
}


class _ASVspoof2021(Layout):
    """Lines of the keys: `speaker utterance codec transmission|source attack key trim subset ...`.

    The archives of both tracks name their keys alike, and those of the first release lie in `keys/CM/` instead of
    `keys/LA/CM/`; so which is which is read from the first utterance's name. The deepfake track comes in four
    archives, whose audio may lie in four folders.
    """

    track: str
    splits: ClassVar[Mapping[str, str]] = {"test": "eval"}
    subsets = ("eval", "progress", "hidden", "all")

    def locate(self, tree: FolderTree, split: str) -> Located | None:
        """See `Layout`."""
        folder = f"ASVspoof2021_{self.track}_eval"
        folders = self.audio_folders(tree, rf"{folder}(_part\d+)?", f"{folder}/flac", f"{folder}/wav", folder)
        keys = next((path for path in tree.files if self._has_my_keys(path)), None)
        return Located(keys, folders) if keys and folders else None

    def read(self, located: Located, split: str, subset: str | None) -> Clips:
        """See `Layout`."""
        table = read_words(located.protocol, lambda words: _columns(located.protocol, words))
        subset = subset or self.subsets[0]
        if subset != "all":
            there = pc.unique(table["subset"]).to_pylist()
            table = table.filter(pc.equal(table["subset"], subset))
            if table.num_rows == 0:
                raise CorpusError(f"{located.protocol} has no subset {subset!r}, only {', '.join(there)}.")
        metadata = {name: table[name] for name in ("speaker", "codec", "condition", "subset")}
        return Clips(
            labels=labels_of(table["key"], str(located.protocol)),
            utterance_ids=table["utterance_id"],
            paths=find_files(located, table["utterance_id"]),
            expected=flac_names(table["utterance_id"]),
            metadata=metadata | {"system": table["attack"]},
        )

    def _has_my_keys(self, path: Path) -> bool:
        if path.name != _KEYS or path.parent.name == "ASV":  # the keys of speaker verification lie beside
            return False
        words = first_words(path)
        return len(words) > 1 and words[1].startswith(f"{self.track}_E_")


class ASVspoof2021LA(_ASVspoof2021):
    """The logical access track: telephone transmission."""

    name = "asvspoof2021_la"
    aliases = ("asvspoof21_la",)
    title = "ASVspoof 2021 LA"
    home = (
        "ASVspoof2021_LA_eval.tar.gz from https://zenodo.org/record/4837263 and LA-keys-full.tar.gz from "
        "https://www.asvspoof.org/index2021.html"
    )
    page = "asvspoof2021_la.md"
    track = "LA"
    expects: ClassVar[Mapping[str, str]] = {"test": "ASVspoof2021_LA_eval/flac/ and keys/LA/CM/trial_metadata.txt"}


class ASVspoof2021DF(_ASVspoof2021):
    """The deepfake track: lossy compression, three sources."""

    name = "asvspoof2021_df"
    aliases = ("asvspoof21_df",)
    title = "ASVspoof 2021 DF"
    home = (
        "ASVspoof2021_DF_eval_part00.tar.gz to part03.tar.gz from https://zenodo.org/record/4835108 and "
        "DF-keys-full.tar.gz from https://www.asvspoof.org/index2021.html"
    )
    page = "asvspoof2021_df.md"
    track = "DF"
    expects: ClassVar[Mapping[str, str]] = {
        "test": "ASVspoof2021_DF_eval/flac/ (or ASVspoof2021_DF_eval_part00/ to part03/) and "
        "keys/DF/CM/trial_metadata.txt"
    }


def _columns(path: Path, words: list[str]) -> dict[str, int]:
    if len(words) <= max(_COLUMNS.values()):
        raise CorpusError(
            f"{path}: its first line is {' '.join(words)!r}, where the keys of ASVspoof 2021 have at least eight "
            "words, speaker utterance codec transmission attack key trim subset."
        )
    return _COLUMNS
