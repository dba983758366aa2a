"""Reads labels by name, never by number, because corpora number the two classes in either order."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, overload

from hf_gradalign.data.request import CorpusError
from hf_gradalign.labels import LABEL_NAMES, Label, canonical_label, normalize_label
from hf_gradalign.utils.messages import first_few
from hf_gradalign.utils.plain_text import stripped_text

# How tables mark a missing label, unless a label map names the value.
_NO_LABEL = {
    *("", "-", "--", "---", "\u2013", "\u2014", "?", "??", "???", ".", "*", "_", "-1"),
    *("unknown", "unk", "<unk>", "unlabeled", "unlabelled", "nolabel", "notlabeled", "notlabelled", "undefined"),
    *("nan", "none", "null", "nil", "na", "n/a", "n.a.", "<na>", "#n/a", "notavailable", "missing", "hidden", "tbd"),
}
# Such labels can mean either class, and another class in another corpus.
_AMBIGUOUS = re.compile(r"[+-]?\d+(\.\d+)?|true|false|yes|no|t|f|y|n|pos|neg|positive|negative")
_EXAMPLE = "--label_map 0=spoof 1=bonafide"
_MAX_LISTED = 20


def is_no_label(name: Label | None, label_map: Mapping[str, str] | None = None) -> bool:
    """Return whether a value stands for a missing label: None, NaN, blank, -1, a dash, `unknown`, `?`, ...

    Values in `label_map` count as labels.
    """
    if name is None:
        return True
    key = normalize_label(name)
    return key in _NO_LABEL and key not in map(normalize_label, label_map or ())


@overload
def map_labels(
    labels: Iterable[Label | None],
    *,
    names: Sequence[str] | None = None,
    label_map: Mapping[str, str] | None = None,
    allow_missing: Literal[False] = False,
) -> list[int]: ...


@overload
def map_labels(
    labels: Iterable[Label | None],
    *,
    names: Sequence[str] | None = None,
    label_map: Mapping[str, str] | None = None,
    allow_missing: bool,
) -> list[int | None]: ...


def map_labels(
    labels: Iterable[Label | None],
    *,
    names: Sequence[str] | None = None,
    label_map: Mapping[str, str] | None = None,
    allow_missing: bool = False,
) -> list[int] | list[int | None]:
    """Map a corpus' labels to 0 (spoof) and 1 (bonafide), by name.

    Args:
        labels: The corpus' labels.
        names: A `ClassLabel`'s names. The labels are then indices into them, with -1 for a missing label.
        label_map: The meaning of the corpus' labels (names, or numbers without names): `spoof` or `bonafide` (see
            `parse_label_map`).
        allow_missing: Whether labels may be missing (see `is_no_label`).

    Returns:
        An index into `LABEL_NAMES` for each label; None for a missing label.

    Raises:
        CorpusError: If a label is missing and `allow_missing` is false, or a label is unknown.
    """
    labels = list(labels)
    if names is not None:
        labels = [None if label is None or int(label) < 0 else names[int(label)] for label in labels]
    # Compare texts, because NaN is not equal to itself.
    texts = [None if label is None else label if isinstance(label, str) else repr(label) for label in labels]
    values = dict(zip(texts, labels, strict=True))
    counts = Counter(texts)
    missing = [text for text in counts if is_no_label(values[text], label_map)]
    known = {
        text: canonical_label(value, label_map)
        for text, value in values.items()
        if value is not None and text not in missing
    }
    if None in known.values():
        raise CorpusError(
            "Cannot tell which labels mean spoof and which mean bonafide. Found: "
            f"{_listed(known, counts, values)}"
            + (f", and for missing labels {_listed(missing, counts, values)}. " if missing else ". ")
            + f"Say what each means with --label_map, for example {_EXAMPLE}."
        )
    if missing and not allow_missing:
        present = [stripped_text(values[text]) for text in missing if values[text] is not None]
        example = next((text for text in present if text), None)
        advice = (
            f"; if {example} is a label, say what it means, as in --label_map all:{example}=spoof." if example else "."
        )
        raise CorpusError(
            f"{sum(counts[text] for text in missing)} of {len(labels)} clips have no label "
            f"({_listed(missing, counts, values)}). Label them or remove their rows{advice}"
        )
    numbers = {text: LABEL_NAMES.index(name) for text, name in known.items()}
    return [numbers.get(text) for text in texts]


def parse_label_map(items: Sequence[str] | None) -> dict[str, str] | None:
    """Parse `0=spoof 1=bonafide` for one corpus. `CorpusOptions` parses it for several.

    Args:
        items: Items of the form `label=meaning`, the meaning in any spelling known to `canonical_label`.

    Returns:
        `spoof` or `bonafide` for each label; None without items.

    Raises:
        CorpusError: If an item has no `=`, a meaning is neither class, or a label is given twice.
    """
    label_map: dict[str, str] = {}
    for item in items or ():
        source, equals, meaning = item.removeprefix("all:").rpartition("=")
        if not equals or not source.strip():
            raise CorpusError(f"--label_map takes items of the form label=meaning, not {item!r}; {_EXAMPLE}.")
        target = canonical_label(meaning)
        if target is None:
            raise CorpusError(f"--label_map: {meaning!r} in {item!r} is neither spoof nor bonafide; {_EXAMPLE}.")
        if normalize_label(source) in map(normalize_label, label_map):
            raise CorpusError(f"--label_map names the label {source.strip()!r} twice.")
        label_map[source.strip()] = target
    return label_map or None


def require_both_classes(labels: Sequence[int], split: str) -> None:
    """Raise a CorpusError unless both classes are among `labels` (indices into `LABEL_NAMES`)."""
    absent = [name for index, name in enumerate(LABEL_NAMES) if index not in set(labels)]
    if absent:
        raise CorpusError(
            f"The split {split!r} has no {' and no '.join(absent)} clips ({len(labels)} clips in all); "
            "training needs both classes."
        )


def is_ambiguous(label: Label) -> bool:
    """Return whether a label is a number, or a word such as yes or no, that may mean either class."""
    return _AMBIGUOUS.fullmatch(normalize_label(label)) is not None


class LabelMap(dict[str, str]):
    """Maps a corpus' labels to their meaning, `spoof` or `bonafide`, and records the use of ambiguous labels.

    Args:
        meanings: The meaning of each label.
        shared: Labels that were given for several corpora at once and may mean either class.

    Attributes:
        shared: The same labels, normalized.
        used: The labels in `shared` that occur in the corpus.
    """

    def __init__(self, meanings: Mapping[str, str], shared: Iterable[str] = ()) -> None:
        super().__init__(meanings)
        self.shared = {normalize_label(label) for label in shared}
        self.used: set[str] = set()

    def record(self, labels: Iterable[Label]) -> None:
        """Record labels of the corpus."""
        self.used |= self.shared & {normalize_label(label) for label in labels}


def _listed(
    texts: Iterable[str | None], counts: Mapping[str | None, int], values: Mapping[str | None, Label | None]
) -> str:
    ordered = sorted(texts, key=lambda text: -counts[text])
    return first_few([f"{values[text]!r} ({counts[text]} clips)" for text in ordered], _MAX_LISTED)
