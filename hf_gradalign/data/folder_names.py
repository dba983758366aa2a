"""What the names of folders say about the clips in them: their class (`real/`, `Fake_audio/`), their split (`dev/`)."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from datasets.data_files import SPLIT_KEYWORDS

from hf_gradalign.data.errors import CorpusError
from hf_gradalign.data.labels import canonical_label

_SPLITS = {word: str(split) for split, words in SPLIT_KEYWORDS.items() for word in words} | {"trn": "train"}
# What may stand with a class or a split in a name without changing what is meant.
_NEUTRAL_WORDS = """
    audio audios class clip clips data dataset file files flac folder mp3 part recording recordings sample samples set
    shard sound sounds speech split utterance utterances voice voices wav wavs
"""
_NEUTRAL = frozenset(_NEUTRAL_WORDS.split())
SHARD = re.compile(r"[-_.]?\d+(-of-\d+)?(-[0-9a-f]{16})?$")
"""The number of one of several files, at the end of its name: `-00000-of-00012`."""

_SHOWN = 5


def split_word(name: str, wanted: Collection[str] = ()) -> str | None:
    """The split that a folder's name says: `train` for `train`, `Train_wavs` or `train-00000`; None if it says none.

    Args:
        name: the folder's name.
        wanted: names that are splits, whatever they look like.
    """
    if name in wanted:
        return name
    return _words(name, None)[0]


def label_word(name: str, label_map: Mapping[str, str] | None = None) -> str | None:
    """The label that a folder's name says, as `canonical_label` takes it; None if it says none.

    `real` for `real`, `Real_audio` or `train_real`, `bona fide` for `bona-fide`.

    Args:
        name: the folder's name.
        label_map: what other labels mean.
    """
    if canonical_label(name, label_map) is not None:
        return name
    return _words(name, label_map)[1]


def _words(name: str, label_map: Mapping[str, str] | None) -> tuple[str | None, str | None]:
    """Split and label; neither where there is a word in the name that means something else."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", SHARD.sub("", name))
    words = re.findall(r"[^\W\d_]+\d?", name)
    words = [word for word in words if word.lower() not in _NEUTRAL]
    splits = {word.lower() for word in words if word.lower() in _SPLITS}
    rest = " ".join(word for word in words if word.lower() not in _SPLITS)
    label = next((text for text in (rest, rest.removesuffix("s")) if text and canonical_label(text, label_map)), None)
    if len(splits) > 1 or (rest and label is None):
        return None, None
    return next(iter(splits), None), label


def labels_of_paths(
    paths: Sequence[Path], label_map: Mapping[str, str] | None, *, may_contradict: bool = False
) -> list[str | None]:
    """The label that each file's folders say, None where they say nothing.

    Args:
        paths: the files, relative to the corpus.
        label_map: what other labels mean.
        may_contradict: take the outermost folder's word for it where they say both classes.

    Raises:
        CorpusError: if the folders of a file say both classes, unless they may.
    """
    words = _by_folder(paths, lambda name: label_word(name, label_map))
    labels: list[str | None] = []
    for path, found in zip(paths, words, strict=True):
        meanings = {canonical_label(word, label_map) for word in found}
        if len(meanings) > 1 and not may_contradict:
            inner = path.parts[max(place for place, name in enumerate(path.parts[:-1]) if label_word(name, label_map))]
            raise CorpusError(
                f"The folders of {path} say both classes ({', '.join(found)}). Say what the inner one means, as in "
                f"--label_map '{inner}={canonical_label(found[0], label_map)}', or write a metadata.csv with the "
                "columns file_name, label and, if you like, split."
            )
        labels.append(found[0] if found else None)
    return labels


def splits_of_paths(paths: Sequence[Path], wanted: Sequence[str]) -> list[str]:
    """The split that each file's folders say: by the name that is asked for, else by the folder's.

    A folder `dev` is the split `validation` where that is wanted and no folder is called so, likewise with the other
    usual names. Where no folder says a split, everything is what is wanted first.

    Args:
        paths: the files, relative to the corpus.
        wanted: the names of the splits that will be asked for.

    Raises:
        CorpusError: if the folders of a file say two splits, or those of some files say none.
    """
    words = _by_folder(paths, lambda name: split_word(name, wanted))
    for path, found in zip(paths, words, strict=True):
        if len(set(found)) > 1:
            raise CorpusError(
                f"The folders of {path} say more than one split ({', '.join(found)}). Write a metadata.csv with the "
                "columns file_name, label and split."
            )
    lacking = [str(path) for path, found in zip(paths, words, strict=True) if not found]
    if len(lacking) == len(paths):
        return [wanted[0]] * len(paths)
    if lacking:
        raise CorpusError(
            f"{len(lacking)} of {len(paths)} audio files lie in no folder of a split: {listed(lacking)}. Move them "
            "into one, or write a metadata.csv with the columns file_name, label and split."
        )
    names = _split_names({found[0] for found in words}, wanted)
    return [names[found[0]] for found in words]


def _split_names(words: Collection[str], wanted: Sequence[str]) -> dict[str, str]:
    names = {word: word for word in words}
    for split in wanted:
        meant = [word for word in words if _SPLITS.get(word) == split]
        if split not in words and len(meant) == 1 and meant[0] not in wanted:
            names[meant[0]] = split
    return names


def _by_folder(paths: Sequence[Path], word_of: Callable[[str], str | None]) -> list[list[str]]:
    """The words that the folders of each file say, the outermost first; not those that all say above others."""
    of_name: dict[str, str | None] = {}
    of_folder: dict[Path, list[str]] = {}
    for path in paths:
        if path.parent not in of_folder:
            for name in path.parent.parts:
                of_name.setdefault(name, word_of(name))
            of_folder[path.parent] = [of_name[name] for name in path.parent.parts if of_name[name] is not None]
    found = list(of_folder.values())
    while found and all(len(words) > 1 and words[0] == found[0][0] for words in found):
        for words in found:
            del words[0]
    return [of_folder[path.parent] for path in paths]


def listed(names: Sequence[str]) -> str:
    """The first of some names, for messages."""
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
