"""Labels by name, never by number: corpora number the two classes either way round."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from hf_gradalign.data.errors import CorpusError
from hf_gradalign.labels import LABEL_NAMES, Label, canonical_label, normalize_label
from hf_gradalign.plain_text import stripped_text

# What stands in tables where there is no label; a label map that names one of them goes first.
_NO_LABEL = {
    *("", "-", "--", "---", "\u2013", "\u2014", "?", "??", "???", ".", "*", "_", "-1"),
    *("unknown", "unk", "<unk>", "unlabeled", "unlabelled", "nolabel", "notlabeled", "notlabelled", "undefined"),
    *("nan", "none", "null", "nil", "na", "n/a", "n.a.", "<na>", "#n/a", "notavailable", "missing", "hidden", "tbd"),
}
_EXAMPLE = "--label_map 0=spoof 1=bonafide"
_SHOWN = 20


def is_no_label(name: Label | None, label_map: Mapping[str, str] | None = None) -> bool:
    """Whether a value says that a clip has no label: None, NaN, blank, -1, a dash, `unknown`, `?`, ...

    `label_map` is asked first: what it names is a label.
    """
    if name is None:
        return True
    key = normalize_label(name)
    return key in _NO_LABEL and key not in map(normalize_label, label_map or ())


def map_labels(
    labels: Iterable[Label | None],
    *,
    names: Sequence[str] | None = None,
    label_map: Mapping[str, str] | None = None,
    allow_missing: bool = False,
) -> list[int | None]:
    """Map a corpus' labels to 0 (spoof) and 1 (bonafide), by name.

    Args:
        labels: the labels as the corpus has them.
        names: a `ClassLabel`'s names; the labels are then indices into it, -1 standing for no label.
        label_map: what a label of the corpus (its name, or its number where it has none) means, `spoof` or `bonafide`
            (see `parse_label_map`).
        allow_missing: whether clips may have no label (`is_no_label`).

    Returns:
        An index into `LABEL_NAMES` for each label, None where there is none.

    Raises:
        CorpusError: if a label is missing and may not be, or is not known by name; the message lists what was found.
    """
    labels = list(labels)
    if names is not None:
        labels = [None if label is None or int(label) < 0 else names[int(label)] for label in labels]
    # By their text: NaN is not equal to itself.
    texts = [None if label is None else label if isinstance(label, str) else repr(label) for label in labels]
    values = dict(zip(texts, labels, strict=True))
    counts = Counter(texts)
    missing = [text for text in counts if is_no_label(values[text], label_map)]
    known = {text: canonical_label(values[text], label_map) for text in counts if text not in missing}
    if None in known.values():
        raise CorpusError(
            "Cannot tell which labels mean spoof and which bonafide. Found: "
            f"{_listed({text: counts[text] for text in known}, values)}"
            + (f", and for no label {_listed({text: counts[text] for text in missing}, values)}. " if missing else ". ")
            + f"Say what each means with --label_map, for example {_EXAMPLE}."
        )
    if missing and not allow_missing:
        said = [stripped_text(values[text]) for text in missing if values[text] is not None]
        example = next((text for text in said if text), None)
        raise CorpusError(
            f"{sum(counts[text] for text in missing)} of {len(labels)} clips have no label "
            f"({_listed({text: counts[text] for text in missing}, values)}). Label them or remove their rows"
            + (
                f"; if {example} is a label, say what it means, as in --label_map all:{example}=spoof."
                if example
                else "."
            )
        )
    numbers = {text: LABEL_NAMES.index(name) for text, name in known.items()}
    return [numbers.get(text) for text in texts]


def parse_label_map(items: Sequence[str] | None) -> dict[str, str] | None:
    """Read the command line's `0=spoof 1=bonafide`, of one corpus (of several: `CorpusOptions`).

    Args:
        items: one `label=meaning` each; the meaning in any spelling that `canonical_label` knows. None or nothing
            gives None.

    Returns:
        The corpus' label to `spoof` or `bonafide`.

    Raises:
        CorpusError: if an item has no `=`, a meaning is neither class, or a label is given twice.
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
    """Raise CorpusError unless both classes are among `labels` (indices into `LABEL_NAMES`)."""
    absent = [name for index, name in enumerate(LABEL_NAMES) if index not in set(labels)]
    if absent:
        raise CorpusError(
            f"The split {split!r} has no {' and no '.join(absent)} clips ({len(labels)} clips in all); "
            "training needs both classes."
        )


def _listed(counts: Mapping[str | None, int], values: Mapping[str | None, Label | None]) -> str:
    most = sorted(counts, key=lambda text: -counts[text])
    found = ", ".join(f"{values[text]!r} ({counts[text]} clips)" for text in most[:_SHOWN])
    return found + (f" and {len(most) - _SHOWN} more" if len(most) > _SHOWN else "")
