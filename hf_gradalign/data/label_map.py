"""What the labels of one corpus mean, and which of its numbers are read through what was said of no corpus."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from hf_gradalign.labels import Label, normalize_label

# Either class may have either of them: what one corpus means by it says nothing of another.
_SAYS_NOTHING = re.compile(r"[+-]?\d+(\.\d+)?|true|false|yes|no|t|f|y|n|pos|neg|positive|negative")


def says_nothing(label: Label) -> bool:
    """Whether a label is a number, yes or no: either class, from corpus to corpus."""
    return _SAYS_NOTHING.fullmatch(normalize_label(label)) is not None


class LabelMap(dict[str, str]):
    """A corpus' labels to `spoof` or `bonafide`.

    Args:
        meanings: labels to meanings.
        shared: those of them that were said of no corpus in particular and say nothing by themselves.

    Attributes:
        shared: the same, as they are compared.
        used: those of `shared` that the corpus has, as far as it has been read.
    """

    def __init__(self, meanings: Mapping[str, str], shared: Iterable[str] = ()) -> None:
        super().__init__(meanings)
        self.shared = {normalize_label(label) for label in shared}
        self.used: set[str] = set()

    def note(self, labels: Iterable[Label]) -> None:
        """Note labels that the corpus has."""
        self.used |= self.shared & {normalize_label(label) for label in labels}
