"""A folder of audio files whose folders name the classes: `real/` and `fake/`, above or below folders of splits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datasets import Dataset, DatasetDict

from hf_gradalign.data.errors import CorpusError
from hf_gradalign.data.folder_names import labels_of_paths, listed, splits_of_paths
from hf_gradalign.data.wanted import Wanted
from hf_gradalign.folder_listing import FolderListing

_TABLES = (".csv", ".jsonl")


def read_class_folders(listing: FolderListing, wanted: Wanted) -> DatasetDict:
    """The audio files of a folder that has no metadata, with the labels and splits that the folders in it say.

    Args:
        listing: what lies in the folder.
        wanted: what is asked for.

    Returns:
        The splits; without labels, all in the first split, where labels are not required and no folder says any.

    Raises:
        CorpusError: if labels are required and files have none, or if folders contradict each other.
    """
    paths = sorted(map(str, listing.audio))
    below = [Path(path).relative_to(listing.folder) for path in paths]
    labels = labels_of_paths(below, wanted.label_map, may_contradict=wanted.label_column is None)
    lacking = [str(path) for path, label in zip(below, labels, strict=True) if label is None]
    if lacking and wanted.requires_labels:
        raise CorpusError(_unlabelled(listing, lacking))
    if len(lacking) == len(paths):
        return DatasetDict({wanted.splits[0]: Dataset.from_dict({wanted.audio_column: paths})})
    columns = {wanted.audio_column: paths}
    if wanted.label_column is not None:
        columns[wanted.label_column] = labels
    clips = Dataset.from_dict(columns)
    return by_split(clips, splits_of_paths(below, wanted.splits))


def by_split(clips: Dataset, splits: Sequence[str]) -> DatasetDict:
    """A data set divided by the name of each row's split."""
    rows: dict[str, list[int]] = {}
    for row, split in enumerate(splits):
        rows.setdefault(split, []).append(row)
    return DatasetDict({split: clips.select(chosen) for split, chosen in rows.items()})


def _unlabelled(listing: FolderListing, lacking: Sequence[str]) -> str:
    ways = (
        "Write one, with the columns file_name (relative to it), label and, if you like, split; or sort the files into "
        "class folders such as real/ and fake/, whose names --label_map explains where they are others "
        "(--label_map vocoded=spoof studio=bonafide)."
    )
    if tables := [str(file) for file in listing.others if file.suffix.lower() in _TABLES]:
        ways += f" If a table in the folder labels them, name it as the corpus: {listed(tables)}."
    if len(lacking) < len(listing.audio):
        return (
            f"{listing.folder}: {len(lacking)} of {len(listing.audio)} audio files lie in no class folder "
            f"({listed(lacking)}), and there is no metadata.csv or metadata.jsonl that labels them. {ways}"
        )
    return f"{listing.folder} holds audio files but no metadata.csv or metadata.jsonl that labels them. {ways}"
