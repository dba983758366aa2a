"""Reads audio files whose folders name the class (`real/`, `Fake_audio/`) and the split (`dev/`)."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset
from datasets.data_files import SPLIT_KEYWORDS

from hf_gradalign.data.labels import canonical_label
from hf_gradalign.data.request import NO_COLUMN, CorpusError, CorpusRequest
from hf_gradalign.utils.folder_listing import FolderListing
from hf_gradalign.utils.messages import first_few

logger = logging.getLogger(__name__)

_TABLES = (".csv", ".tsv", ".jsonl")
_SPLITS = {word: str(split) for split, words in SPLIT_KEYWORDS.items() for word in words} | {"trn": "train"}
# Words next to a class or split in a folder's name that do not change its meaning.
_NEUTRAL_WORDS = """
    audio audios class clip clips data dataset file files flac folder mp3 part recording recordings sample samples set
    shard sound sounds speech split utterance utterances voice voices wav wavs
"""
_NEUTRAL = frozenset(_NEUTRAL_WORDS.split())
SHARD = re.compile(r"[-_.]?\d+(-of-\d+(-[0-9a-f]{8,64})?|-[0-9a-f]{16})?$")
"""The number of a shard at the end of a file name, perhaps with a hash: `-00000-of-00012`."""

# How many of a corpus' folder names are read, those with the most files first. There may be a folder per clip.
_MOST_NAMES = 2000


def read_class_folders(listing: FolderListing, request: CorpusRequest) -> dict[str, Dataset]:
    """Read the audio files of a folder without metadata, with labels and splits from the names of its folders.

    Args:
        listing: The folder's files.
        request: What to load.

    Returns:
        The splits. If no folder names a class and labels are not required, all files are in the first split, without
        labels.

    Raises:
        CorpusError: If labels are required and missing, or folders contradict each other.
    """
    paths = sorted(path.as_posix() for path in listing.audio)
    below = [Path(path).relative_to(listing.folder) for path in paths]
    labels = labels_of_paths(below, request.label_map, may_contradict=request.label_column == NO_COLUMN)
    unlabeled = [str(path) for path, label in zip(below, labels, strict=True) if label is None]
    if unlabeled and request.require_labels:
        raise CorpusError(_unlabeled_message(listing, unlabeled))
    if len(unlabeled) == len(paths):
        return {request.split_names[0]: Dataset.from_dict({request.audio_column: paths})}
    columns = {request.audio_column: paths}
    if request.label_column != NO_COLUMN:
        columns[request.label_column] = labels
    clips = Dataset.from_dict(columns)
    return divide_by_split(clips, splits_of_paths(below, request.split_names))


def warn_about_contradicting_folders(corpus: Mapping[str, Dataset], folder: Path, request: CorpusRequest) -> None:
    """Warn about files whose labels in the metadata contradict the names of their folders, as inverted labels do.

    Folders that mean both classes are ignored. For files outside of the corpus' folder, only folders that not all of
    them share are considered.

    Args:
        corpus: The splits, with the columns of the metadata.
        folder: The corpus' folder.
        request: What to load.
    """
    tables = [
        _folders_and_labels(clips, request) for clips in corpus.values() if request.label_column in clips.column_names
    ]
    if not tables:
        return
    clips = pa.concat_tables(tables).drop_null().combine_chunks()
    counts = clips.group_by(["folder", "label"], use_threads=False).aggregate([([], "count_all")])
    words = _class_words(counts, f"{folder.as_posix()}/", request.label_map)
    counts = counts.append_column("words", words).group_by(["words", "label"], use_threads=False)
    rows = counts.aggregate([("count_all", "sum"), ("folder", "first")]).to_pylist()
    folders = [
        [word for name in row["words"].split("/") if (word := label_word(name, request.label_map))] for row in rows
    ]
    _remove_shared(folders)
    others = []
    for row, of_folder in zip(rows, folders, strict=True):
        classes = {canonical_label(word, request.label_map) for word in of_folder}
        if len(classes) == 1 and canonical_label(row["label"], request.label_map) not in {None, *classes}:
            others.append(row)
    if others:
        logger.warning(
            "%d files have labels that contradict the names of their folders, such as those in %s (%s). The labels are "
            "used. Check that they are not inverted.",
            *(sum(row["count_all_sum"] for row in others), others[0]["folder_first"].rstrip("/"), others[0]["label"]),
        )


def _folders_and_labels(clips: Dataset, request: CorpusRequest) -> pa.Table:
    table = clips.select_columns([request.audio_column, request.label_column]).with_format("arrow")[:]
    labels = table[request.label_column]
    if not (pa.types.is_string(labels.type) or pa.types.is_primitive(labels.type)):  # lists are refused later
        labels = pa.nulls(len(table))
    folders = pc.replace_substring_regex(table[request.audio_column], "[^/]+$", "")
    return pa.table({"folder": folders, "label": labels.cast(pa.string())})


def _class_words(counts: pa.Table, corpus: str, label_map: Mapping[str, str] | None) -> pa.Array:
    """Return each folder's path below the corpus or their common parent. Names that mean no class are empty.

    Args:
        counts: The columns `folder`, with a slash at the end, and `count_all`, the number of its files.
        corpus: The corpus' folder, with a slash at the end.
        label_map: The meaning of further labels.
    """
    folders = counts["folder"].combine_chunks()
    is_below = pc.starts_with(folders, corpus)
    elsewhere = folders.filter(pc.invert(is_below)).to_pylist()
    n_shared = os.path.commonprefix(elsewhere).rfind("/") + 1  # noqa: RUF071 (cut at a slash)
    below = pc.if_else(
        is_below, pc.utf8_slice_codeunits(folders, len(corpus)), pc.utf8_slice_codeunits(folders, n_shared)
    )
    parts = pc.split_pattern(below, "/")
    names = parts.flatten()
    n_files = counts["count_all"].combine_chunks().take(pc.list_parent_indices(parts))
    totals = pa.table({"name": names, "files": n_files}).group_by("name").aggregate([("files", "sum")])
    frequent = totals.sort_by([("files_sum", "descending")])["name"][:_MOST_NAMES].to_pylist()
    of_classes = pa.array([name for name in frequent if label_word(name, label_map)], pa.string())
    names = pc.if_else(pc.is_in(names, of_classes), names, "")
    return pc.binary_join(pa.ListArray.from_arrays(parts.offsets, names), "/")


def divide_by_split(clips: Dataset, splits: Sequence[str]) -> dict[str, Dataset]:
    """Divide a data set by the name of each row's split."""
    rows: dict[str, list[int]] = {}
    for row, split in enumerate(splits):
        rows.setdefault(split, []).append(row)
    return {split: clips.select(chosen) for split, chosen in rows.items()}


def split_word(name: str, wanted: Collection[str] = ()) -> str | None:
    """Return the split that a folder's name means: `train` for `Train_wavs` or `train-00000`; None for other names.

    Args:
        name: The folder's name.
        wanted: Names that always mean a split.
    """
    if name in wanted:
        return name
    return _words(name, None)[0]


def label_word(name: str, label_map: Mapping[str, str] | None = None) -> str | None:
    """Return the label that a folder's name means, in a spelling known to `canonical_label`; None for other names.

    `real` for `real`, `Real_audio` or `train_real`; `bona fide` for `bona-fide`.

    Args:
        name: The folder's name.
        label_map: The meaning of further labels.
    """
    if canonical_label(name, label_map) is not None:
        return name
    return _words(name, label_map)[1]


def labels_of_paths(
    paths: Sequence[Path], label_map: Mapping[str, str] | None, *, may_contradict: bool = False
) -> list[str | None]:
    """Return the label that each file's folders mean; None if they mean none.

    Args:
        paths: The files, relative to the corpus.
        label_map: The meaning of further labels.
        may_contradict: If folders mean both classes, use the class of the outermost.

    Raises:
        CorpusError: If the folders of a file mean both classes, unless `may_contradict`.
    """
    words = _by_folder(paths, lambda name: label_word(name, label_map))
    labels: list[str | None] = []
    for path, of_file in zip(paths, words, strict=True):
        meanings = {canonical_label(word, label_map) for word in of_file}
        if len(meanings) > 1 and not may_contradict:
            inner = path.parts[max(index for index, name in enumerate(path.parts[:-1]) if label_word(name, label_map))]
            raise CorpusError(
                f"The folders of {path} mean both classes ({', '.join(of_file)}). Give the meaning of the inner "
                f"folder, as in --label_map '{inner}={canonical_label(of_file[0], label_map)}', or write a "
                "metadata.csv with the columns file_name, label and, if you like, split."
            )
        labels.append(of_file[0] if of_file else None)
    return labels


def splits_of_paths(paths: Sequence[Path], wanted: Sequence[str]) -> list[str]:
    """Return the split that each file's folders mean: its wanted name or, for other splits, the folder's name.

    A folder `dev` is the split `validation` if that is wanted and no folder has this name. Other common names work in
    the same way. If no folder means a split, all files belong to the first wanted split.

    Args:
        paths: The files, relative to the corpus.
        wanted: The names of the wanted splits.

    Raises:
        CorpusError: If the folders of a file mean two splits, or only some files are in the folder of a split.
    """
    words = _by_folder(paths, lambda name: split_word(name, wanted))
    for path, of_file in zip(paths, words, strict=True):
        if len(set(of_file)) > 1:
            raise CorpusError(
                f"The folders of {path} mean more than one split ({', '.join(of_file)}). Write a metadata.csv with the "
                "columns file_name, label and split."
            )
    unlabeled = [str(path) for path, of_file in zip(paths, words, strict=True) if not of_file]
    if len(unlabeled) == len(paths):
        return [wanted[0]] * len(paths)
    if unlabeled:
        raise CorpusError(
            f"{len(unlabeled)} of {len(paths)} audio files are not in the folder of a split: {first_few(unlabeled)}. "
            "Move them into one, or write a metadata.csv with the columns file_name, label and split."
        )
    names = _split_names({of_file[0] for of_file in words}, wanted)
    return [names[of_file[0]] for of_file in words]


def _unlabeled_message(listing: FolderListing, unlabeled: Sequence[str]) -> str:
    ways = (
        "Write a metadata.csv with the columns file_name (relative to it), label and, if you like, split; or sort the "
        "files into class folders such as real/ and fake/, and explain other names with --label_map "
        "(--label_map vocoded=spoof studio=bonafide)."
    )
    if tables := [str(file) for file in listing.others if file.suffix.lower() in _TABLES]:
        ways += f" If a table in the folder labels them, give that table as the corpus: {first_few(tables)}."
    if len(unlabeled) < len(listing.audio):
        return (
            f"{listing.folder}: {len(unlabeled)} of {len(listing.audio)} audio files are not in a class folder "
            f"({first_few(unlabeled)}), and there is no metadata.csv or metadata.jsonl that labels them. {ways}"
        )
    return f"{listing.folder} contains audio files but no metadata.csv or metadata.jsonl that labels them. {ways}"


def _words(name: str, label_map: Mapping[str, str] | None) -> tuple[str | None, str | None]:
    """Return the split and the label in a name; neither if it has a word that means something else."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", SHARD.sub("", name))
    words = re.findall(r"[^\W\d_]+\d?", name)
    words = [word for word in words if word.lower() not in _NEUTRAL]
    splits = {word.lower() for word in words if word.lower() in _SPLITS}
    rest = " ".join(word for word in words if word.lower() not in _SPLITS)
    label = next((text for text in (rest, rest.removesuffix("s")) if text and canonical_label(text, label_map)), None)
    if len(splits) > 1 or (rest and label is None):
        return None, None
    return next(iter(splits), None), label


def _split_names(words: Collection[str], wanted: Sequence[str]) -> dict[str, str]:
    names = {word: word for word in words}
    for split in wanted:
        synonyms = [word for word in words if _SPLITS.get(word) == split]
        if split not in words and len(synonyms) == 1 and synonyms[0] not in wanted:
            names[synonyms[0]] = split
    return names


def _by_folder(paths: Sequence[Path], word_of: Callable[[str], str | None]) -> list[list[str]]:
    """Return the words of each file's folders, outermost first, without the leading words that all files share."""
    of_name: dict[str, str | None] = {}
    of_folder: dict[Path, list[str]] = {}
    for path in paths:
        if path.parent not in of_folder:
            for name in path.parent.parts:
                of_name.setdefault(name, word_of(name))
            of_folder[path.parent] = [word for name in path.parent.parts if (word := of_name[name]) is not None]
    _remove_shared(list(of_folder.values()))
    return [of_folder[path.parent] for path in paths]


def _remove_shared(folders: Sequence[list[str]]) -> None:
    """Remove the leading words that all folders share, except for a folder's last word."""
    while folders and all(len(words) > 1 and words[0] == folders[0][0] for words in folders):
        for words in folders:
            del words[0]
