"""Labels by name, never by number: corpora number the two classes either way round."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from hf_gradalign.data.errors import CorpusError

LABEL_NAMES: tuple[str, str] = ("spoof", "bonafide")
"""The project's two classes; the index is the label's number."""

_ALIASES = {
    "bonafide": "bonafide",
    "genuine": "bonafide",
    "real": "bonafide",
    "human": "bonafide",
    "spoof": "spoof",
    "spoofed": "spoof",
    "fake": "spoof",
    "deepfake": "spoof",
}
_EXAMPLE = "--label_map 0=spoof 1=bonafide"
_SHOWN = 20

Label = str | int | float | bool


def canonical_label(name: Label, label_map: Mapping[str, str] | None = None) -> str | None:
    """`spoof` or `bonafide` for a label's name in any of its usual spellings; None for any other.

    Case, spaces, hyphens and underscores do not matter. `label_map` is asked first.
    """
    mapped = {_normalise(source): target for source, target in (label_map or {}).items()}
    key = _normalise(name)
    return _ALIASES.get(_normalise(mapped.get(key, key)))


def map_labels(
    labels: Iterable[Label | None],
    *,
    names: Sequence[str] | None = None,
    label_map: Mapping[str, str] | None = None,
) -> list[int]:
    """Map a corpus' labels to 0 (spoof) and 1 (bonafide), by name.

    Args:
        labels: the labels as the corpus has them.
        names: a `ClassLabel`'s names; the labels are then indices into it, -1 standing for no label.
        label_map: what a label of the corpus (its name, or its number where it has none) means, `spoof` or `bonafide`
            (see `parse_label_map`).

    Returns:
        An index into `LABEL_NAMES` for each label.

    Raises:
        CorpusError: if a label is missing, or is not known by name; the message lists what was found.
    """
    labels = list(labels)
    if names is not None:
        labels = [None if label is None or int(label) < 0 else names[int(label)] for label in labels]
    missing = sum(label is None or label == "" for label in labels)
    if missing:
        raise CorpusError(
            f"{missing} of {len(labels)} clips have no label. Leave them out of the corpus or label them."
        )
    counts = Counter(labels)
    known = {label: canonical_label(label, label_map) for label in counts if label is not None}
    if None in known.values():
        found = ", ".join(f"{label!r} ({count} clips)" for label, count in counts.most_common(_SHOWN))
        more = f" and {len(counts) - _SHOWN} more" if len(counts) > _SHOWN else ""
        raise CorpusError(
            f"Cannot tell which labels mean spoof and which bonafide. Found: {found}{more}. "
            f"Say what each means with --label_map, for example {_EXAMPLE}."
        )
    return [LABEL_NAMES.index(known[label]) for label in labels]


def parse_label_map(items: Sequence[str] | None) -> dict[str, str] | None:
    """Read the command line's `0=spoof 1=bonafide`.

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
        source, equals, meaning = item.rpartition("=")
        if not equals or not source.strip():
            raise CorpusError(f"--label_map takes items of the form label=meaning, not {item!r}; {_EXAMPLE}.")
        target = canonical_label(meaning)
        if target is None:
            raise CorpusError(f"--label_map: {meaning!r} in {item!r} is neither spoof nor bonafide; {_EXAMPLE}.")
        if _normalise(source) in map(_normalise, label_map):
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


def _normalise(name: Label) -> str:
    if isinstance(name, float) and name.is_integer():
        name = int(name)  # A column with gaps turns 1 into 1.0 on its way through pandas.
    # Between letters only: a minus sign is no hyphen.
    return re.sub(r"(?<=[^\W\d])[-_\s]+(?=[^\W\d])", "", str(name).strip().lower())
