"""ASVspoof 2019, 2021 and 5."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from hf_gradalign.data.corpora.audio_listing import AudioListing
from hf_gradalign.data.corpora.layout import FolderTree, Layout, Located, SplitClips, find_files, flac_names, labels_of
from hf_gradalign.data.corpora.protocol_file import first_words, read_words
from hf_gradalign.data.labels import canonical_label
from hf_gradalign.data.request import CorpusError

_PROTOCOLS_2019 = {"train": "train.trn", "validation": "dev.trl", "test": "eval.trl"}
_SPLITS_2019 = {"train": "train", "validation": "dev", "test": "eval"}
_COLUMNS_2019 = {"speaker": 0, "utterance_id": 1, "environment": 2, "attack": 3, "key": 4}


def _expected(track: str) -> dict[str, str]:
    """Return the files that identify a track's layout, by split."""
    return {
        split: f"ASVspoof2019_{track}_cm_protocols/ASVspoof2019.{track}.cm.{_PROTOCOLS_2019[split]}.txt and "
        f"ASVspoof2019_{track}_{own}/flac/"
        for split, own in _SPLITS_2019.items()
    }


class _ASVspoof2019(Layout):
    """Protocol lines: `speaker utterance environment attack key`, with `-` for the environment of logical access."""

    track: ClassVar[str]
    splits: ClassVar[Mapping[str, str]] = _SPLITS_2019

    def locate(self, tree: FolderTree, split: str) -> Located | None:
        """See `Layout`."""
        protocol = tree.file(f"ASVspoof2019.{self.track}.cm.{_PROTOCOLS_2019[split]}.txt")
        folders = self.audio_folders(tree, f"ASVspoof2019_{self.track}_{self.splits[split]}")
        return Located(protocol, folders) if protocol and folders else None

    def read(self, located: Located, split: str, subset: str | None) -> SplitClips:
        """See `Layout`."""
        table = read_words(located.protocol_path, _columns_2019)
        known = {"speaker": table["speaker"], "system": table["attack"], "environment": table["environment"]}
        return SplitClips(
            labels=labels_of(table["key"], str(located.protocol_path)),
            utterance_ids=table["utterance_id"],
            # The folders of the other splits also contain enrollment recordings of speakers.
            paths=find_files(located, table["utterance_id"], all_named=split == "train"),
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


def _columns_2019(path: Path, words: list[str]) -> dict[str, int]:
    if len(words) != 5:
        raise CorpusError(
            f"{path}: its first line is {' '.join(words)!r}, but a countermeasure protocol of ASVspoof "
            "2019 has five words, speaker utterance - attack key (an environment instead of - for physical access)."
        )
    return _COLUMNS_2019


_KEYS = "trial_metadata.txt"
# In the deepfake track, further words name the attack's vocoder.
_COLUMNS_2021 = {
    "speaker": 0,
    "utterance_id": 1,
    "codec": 2,
    "condition": 3,
    "system": 4,
    "key": 5,
    "subset": 7,
}
PHYSICAL_ACCESS = {
    "asv_room": 2,
    "asv_mic": 3,
    "distance_to_asv": 4,
    "attacker_room": 5,
    "attacker_mic": 6,
    "replay_device": 7,
    "distance_to_talker": 8,
}
"""Words in the keys of physical access, which has no names of attacks: the verifier's room, microphone and distance to
the talker or replay device, then the attacker's room, microphone, replay device and distance to the talker."""

_PHYSICAL_COLUMNS = {"speaker": 0, "utterance_id": 1, **PHYSICAL_ACCESS, "key": 9, "trim": 10, "subset": 11}


class _ASVspoof2021(Layout):
    """Lines of the keys: `speaker utterance codec transmission|source attack key trim subset ...`.

    All tracks use the same file name for their keys, and the first release has them in `keys/CM/` instead of
    `keys/LA/CM/`. The name of the first utterance shows the track. The deepfake and physical access tracks consist of
    several archives, whose audio may be in several folders.
    """

    track: ClassVar[str]
    columns: ClassVar[Mapping[str, int]] = _COLUMNS_2021
    words: ClassVar[str] = "at least eight words, speaker utterance codec transmission attack key trim subset"
    splits: ClassVar[Mapping[str, str]] = {"test": "eval"}
    subsets = ("eval", "progress", "hidden", "all")

    def locate(self, tree: FolderTree, split: str) -> Located | None:
        """See `Layout`."""
        folder = f"ASVspoof2021_{self.track}_eval"
        folders = self.audio_folders(tree, rf"{folder}(_part\d+)?", f"{folder}/flac", f"{folder}/wav", folder)
        keys = next((path for path in tree.files if self._has_keys_of_track(path)), None)
        return Located(keys, folders) if keys and folders else None

    def read(self, located: Located, split: str, subset: str | None) -> SplitClips:
        """See `Layout`."""
        table = read_words(located.protocol_path, self._columns)
        listing = AudioListing(located.folders)
        listing.warn_about_others(table["utterance_id"], str(located.protocol))
        subset = subset or self.subsets[0]
        if subset != "all":
            available = pc.unique(table["subset"]).to_pylist()
            # The first release names the hidden subsets hidden_track, hidden_track_1 and hidden_track_2.
            own = [name for name in available if name == subset or name.startswith(f"{subset}_track")]
            table = table.filter(pc.is_in(table["subset"], pa.array(own, pa.string())))
            if table.num_rows == 0:
                raise CorpusError(f"{located.protocol_path} has no subset {subset!r}, only {', '.join(available)}.")
        return SplitClips(
            labels=labels_of(table["key"], str(located.protocol_path)),
            utterance_ids=table["utterance_id"],
            paths=listing.find(table["utterance_id"]),
            expected=flac_names(table["utterance_id"]),
            metadata={name: table[name] for name in table.column_names if name not in ("utterance_id", "key")},
        )

    def _columns(self, path: Path, words: list[str]) -> Mapping[str, int]:
        if len(words) <= max(self.columns.values()):
            raise CorpusError(
                f"{path}: its first line is {' '.join(words)!r}, but the keys of {self.title} have {self.words}."
            )
        return self.columns

    def _has_keys_of_track(self, path: Path) -> bool:
        if path.name != _KEYS or path.parent.name == "ASV":  # the keys of speaker verification
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


class ASVspoof2021PA(_ASVspoof2021):
    """The physical access track: speech replayed in real rooms. The untrimmed hidden subset is simulated."""

    name = "asvspoof2021_pa"
    aliases = ("asvspoof21_pa",)
    title = "ASVspoof 2021 PA"
    home = (
        "ASVspoof2021_PA_eval_part00.tar.gz to part06.tar.gz from https://zenodo.org/record/4834716 and "
        "PA-keys-full.tar.gz from https://www.asvspoof.org/index2021.html"
    )
    page = "asvspoof2021_pa.md"
    track = "PA"
    columns: ClassVar[Mapping[str, int]] = _PHYSICAL_COLUMNS
    words = (
        "twelve words, speaker utterance and, of the ASV, room microphone distance, of the attacker, room microphone "
        "device distance, then key trim subset (PA-keys-full; those of stage 1 have fewer)"
    )
    further_columns = (*PHYSICAL_ACCESS, "trim")
    expects: ClassVar[Mapping[str, str]] = {
        "test": "ASVspoof2021_PA_eval/flac/ (or ASVspoof2021_PA_eval_part00/ to part06/) and "
        "keys/PA/CM/trial_metadata.txt"
    }


_FOLDERS_5 = {"train": "flac_T", "validation": "flac_D", "test": "flac_E_eval"}
# The second names are from the challenge's first release.
_PROTOCOLS_5 = {
    "train": ("ASVspoof5.train.tsv", "ASVspoof5.train.metadata.txt"),
    "validation": ("ASVspoof5.dev.track_1.tsv", "ASVspoof5.dev.metadata.txt"),
    "test": ("ASVspoof5.eval.track_1.tsv", "ASVspoof5.eval.metadata.txt"),
}
_GENDERS = ("M", "F")
_WORDS_WITH_CODEC = 9


class ASVspoof5(Layout):
    """Lines of the protocols: `speaker utterance gender codec codec_q codec_seed attack_tag attack key tmp`.

    Despite the extension .tsv, words are separated by spaces. Shorter lines of other releases are supported: the key is
    the last word bonafide or spoof, and the attack is the word before it.
    """

    name = "asvspoof5"
    title = "ASVspoof 5"
    home = "flac_T_*.tar, flac_D_*.tar, flac_E_*.tar and ASVspoof5_protocols.tar.gz from https://zenodo.org/records/14498691"
    page = "asvspoof5.md"
    splits: ClassVar[Mapping[str, str]] = {"train": "train", "validation": "dev", "test": "eval"}
    expects: ClassVar[Mapping[str, str]] = {
        split: f"{_PROTOCOLS_5[split][0]} and {folder}/" for split, folder in _FOLDERS_5.items()
    }

    def locate(self, tree: FolderTree, split: str) -> Located | None:
        """See `Layout`."""
        protocol = tree.file(*_PROTOCOLS_5[split])
        folder = _FOLDERS_5[split]
        # The archives are called flac_T_aa.tar and so on. Some programs unpack them without their inner folder.
        folders = self.audio_folders(tree, f"{folder}|{folder[:6]}_[a-z][a-z]", folder)
        return Located(protocol, folders) if protocol and folders else None

    def read(self, located: Located, split: str, subset: str | None) -> SplitClips:
        """See `Layout`."""
        table = read_words(located.protocol_path, _columns_5)
        metadata = {name: table[name] for name in ("speaker", "gender", "codec") if name in table.column_names}
        return SplitClips(
            labels=labels_of(table["key"], str(located.protocol_path)),
            utterance_ids=table["utterance_id"],
            paths=find_files(located, table["utterance_id"], all_named=split == "train"),
            expected=flac_names(table["utterance_id"]),
            metadata=metadata | {"system": table["attack"]},
        )


def _columns_5(path: Path, words: list[str]) -> dict[str, int]:
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
