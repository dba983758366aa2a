"""Renaming of a state dict's keys by templates, forward and back."""

import re
from collections.abc import Sequence

_NUMBER = "{n}"


class KeyNames:
    """Pairs of templates, each the start of a key in one layout and in the other; `{n}` is a number kept as it is.

    A template matches whole components: `encoder.layer_norm` is no start of `encoder.layer_norms.weight`. Where several
    match, the longest counts.

    Args:
        pairs: (theirs, ours), where every template of either side is of its own kind.
    """

    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        self._to_ours = _Renaming([(theirs, ours) for theirs, ours in pairs])
        self._to_theirs = _Renaming([(ours, theirs) for theirs, ours in pairs])

    def to_ours(self, key: str) -> str | None:
        """The key in our layout, None if no template matches."""
        return self._to_ours(key)

    def to_theirs(self, key: str) -> str | None:
        """The key in their layout, None if no template matches."""
        return self._to_theirs(key)


class _Renaming:
    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        longest_first = sorted(pairs, key=lambda pair: len(pair[0]), reverse=True)
        self._rules = [
            (re.compile(re.escape(start).replace(re.escape(_NUMBER), r"(\d+)") + r"(?=\.|$)"), end)
            for start, end in longest_first
        ]

    def __call__(self, key: str) -> str | None:
        for pattern, end in self._rules:
            match = pattern.match(key)
            if match:
                for number in match.groups():
                    end = end.replace(_NUMBER, number, 1)
                return end + key[match.end() :]
        return None
