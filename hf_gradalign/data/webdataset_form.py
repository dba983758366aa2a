"""Clips in the form of WebDataset: files of one name are one clip, `000.flac` with `000.cls` and `000.json`.

Read here and not by the `webdataset` builder, which needs torchcodec and with it FFmpeg.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset, DatasetDict

from hf_gradalign.data.class_folders import by_split
from hf_gradalign.data.errors import CorpusError
from hf_gradalign.data.folder_names import labels_of_paths, splits_of_paths
from hf_gradalign.data.labels import canonical_label
from hf_gradalign.data.table_rows import table_of_rows
from hf_gradalign.data.wanted import Wanted
from hf_gradalign.folder_listing import FolderListing, is_audio

KEY = "__key__"
"""The column with the clips' names, as WebDataset calls it."""

_DEFAULT_LABEL = "label"
# A description is short; what is longer is data of another kind.
_MAX_BYTES = 2**20


def read_webdataset(listing: FolderListing, wanted: Wanted) -> DatasetDict | None:
    """The clips of unpacked shards, or None where no audio file has a file that describes it.

    Labels are in the column that is asked for. Where there is no such column and none was named, they are the content
    of `.cls` files; else the one kind of file or value whose every text is a usual label; else what folders are called.

    Args:
        listing: what lies in the folder: a folder for each shard.
        wanted: what is asked for. Where a clip has several audio files, its `audio_column` is the ending of the one
            that is meant.

    Returns:
        The splits that the shards' names say, with the columns `wanted.audio_column`, `__key__` (the clip's name with
        its folders), the values of `.json` files, and the text of others by their ending (`cls`, `txt`).

    Raises:
        CorpusError: if a clip has several audio files of which `audio_column` names none, or a JSON file is corrupt.
    """
    clips = list(_clips(listing))
    # A clip that lost its audio has the files that others have; a README has not.
    usual = {frozenset(clip.texts) for clip in clips if clip.audio and clip.texts}
    if not usual:
        return None
    clips = [clip for clip in clips if clip.audio or frozenset(clip.texts) in usual]
    audio = [_chosen(clip, wanted.audio_column) for clip in clips]
    reserved = {wanted.audio_column, KEY}
    values = [{name: value for name, value in clip.values().items() if name not in reserved} for clip in clips]
    table = table_of_rows(
        [
            {wanted.audio_column: path, KEY: clip.key, **row}
            for path, clip, row in zip(audio, clips, values, strict=True)
        ]
    )
    paths = [Path(clip.key) for clip in clips]
    if wanted.label_column == _DEFAULT_LABEL and _DEFAULT_LABEL not in table.column_names:
        labels = _labels(table, reserved, wanted) or labels_of_paths(paths, wanted.label_map)
        if any(label is not None for label in labels):
            table = table.append_column(_DEFAULT_LABEL, pa.array(labels))
    read = {file for clip in clips for file in clip.texts.values()}
    listing.tell(read)
    return by_split(Dataset(table), splits_of_paths(paths, wanted.splits))


@dataclass
class _Clip:
    """A clip's files, by the endings that tell them apart.

    Attributes:
        key: its name with its folders, without endings.
        audio: its audio files.
        texts: its other files.
    """

    key: str
    audio: dict[str, Path] = field(default_factory=dict)
    texts: dict[str, Path] = field(default_factory=dict)

    def values(self) -> dict[str, Any]:
        """What the files say that are text.

        Raises:
            CorpusError: if a JSON file is corrupt.
        """
        values: dict[str, Any] = {}
        for ending, file in self.texts.items():
            text = _text(file)
            if text is None:
                continue
            content: Any = text
            if ending.endswith("json"):
                try:
                    content = json.loads(text)
                except ValueError as error:
                    raise CorpusError(f"Cannot read {file}: {error}") from error
            values |= {**content, **values} if isinstance(content, dict) else {ending: content}
        return values


def _clips(listing: FolderListing) -> Iterator[_Clip]:
    """The clips, in the order of their names."""
    groups: dict[Path, list[Path]] = defaultdict(list)
    for file in (*listing.audio, *listing.others):
        groups[file.parent / file.name.partition(".")[0]].append(file)
    for place in sorted(groups):
        files = groups[place]
        audio = [file for file in files if is_audio(file.name)]
        texts = [file for file in files if not is_audio(file.name)]
        # Names with points in them, such as 1.5s.wav, tell clips apart if all else that there is fits to them.
        owners = {text: [file for file in audio if text.name.startswith(f"{file.stem}.")] for text in texts}
        is_one = len({file.stem for file in audio}) < max(len(audio), 1) or not all(owners.values())
        for name, members in [(place.name, files)] if is_one else [(file.stem, [file]) for file in audio]:
            clip = _Clip((place.parent / name).relative_to(listing.folder).as_posix())
            members = members if is_one else [*members, *(text for text in texts if members[0] in owners[text])]
            for file in members:
                ending = file.name[len(name) + 1 :].lower()
                (clip.audio if is_audio(file.name) else clip.texts)[ending] = file
            yield clip


def _chosen(clip: _Clip, audio_column: str) -> str | None:
    if len(clip.audio) < 2:
        return next((str(file) for file in clip.audio.values()), None)
    meant = [ending for ending in clip.audio if ending == audio_column.lower()]
    if len(meant) != 1:
        raise CorpusError(
            f"{clip.key} has several audio files: {', '.join(clip.audio)}. Name the ending of the right one with "
            "--audio_column_name."
        )
    return str(clip.audio[meant[0]])


def _labels(table: pa.Table, reserved: Collection[str], wanted: Wanted) -> list[Any] | None:
    if "cls" in table.column_names:
        return table["cls"].to_pylist()
    found = []
    for name in table.column_names:
        if name not in reserved and pa.types.is_string(table[name].type):
            values = table[name].to_pylist()
            if all(value is not None and canonical_label(value, wanted.label_map) for value in set(values)):
                found.append(values)
    return found[0] if len(found) == 1 else None


def _text(file: Path) -> str | None:
    """A file's text; None if it is none, or too long to describe a clip."""
    if file.stat().st_size > _MAX_BYTES:
        return None
    try:
        text = file.read_text(encoding="utf-8-sig").strip()
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text
