"""Options for several corpora: `VALUE` for all of them, `CORPUS:VALUE` for one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from hf_gradalign.data.corpora import CorpusSpec, parse_corpus
from hf_gradalign.data.errors import CorpusError
from hf_gradalign.data.labels import LabelMap, parse_label_map, says_nothing
from hf_gradalign.data.mixing import unique_names
from hf_gradalign.labels import normalize_label

ALL = "all"
"""Stands for every corpus."""

Words = str | Sequence[str] | None
Corpus = str | None


class CorpusOptions:
    """Parses options of commands that take several corpora.

    Options refer to a corpus as it was written (`owner/name`, `asvspoof5:/data/5`, `/data/mine.csv`) or by its name
    (`asvspoof5`, `mine`), if that is unique.

    Args:
        corpora: The corpora as written, None for the demo corpus. Repetitions count once.
    """

    def __init__(self, corpora: Iterable[Corpus]) -> None:
        self._specs = {corpus: parse_corpus(corpus) for corpus in corpora}
        self._called: dict[str, list[Corpus]] = {ALL: list(self._specs)}
        names = [spec.name for spec in self._specs.values()]
        for corpus, numbered in zip(self._specs, unique_names(names), strict=True):
            spec = self._specs[corpus]
            for called in {spec.text, spec.name, numbered}:
                if called != spec.name or names.count(called) == 1:
                    self._called[called] = [corpus]

    def values(self, option: str, words: Words, default: str | None = None) -> dict[Corpus, str | None]:
        """An option's value for each corpus.

        Args:
            option: Its name, such as `--label_column_name`.
            words: The given values: `VALUE` for all corpora, `CORPUS:VALUE` for one.
            default: The value of other corpora.

        Raises:
            CorpusError: If a corpus is unknown, or has two values.
        """
        of_all: list[str] = []
        of_one: dict[Corpus, str] = {}
        for word in [words] if isinstance(words, str) else words or ():
            corpora, value = self._read(option, word)
            if corpora is None or len(corpora) != 1 or len(self._specs) == 1:
                of_all.append(value)
            elif corpora[0] in of_one:
                raise CorpusError(f"{option} names two values for {self._specs[corpora[0]].text}: {' '.join(words)}.")
            else:
                of_one[corpora[0]] = value
        if len(of_all) > 1:
            raise CorpusError(
                f"{option} takes one value, not {' and '.join(of_all)}; one corpus of several is named as in "
                f"{option} {self._name(next(iter(self._specs)))}:VALUE."
            )
        common = of_all[0] if of_all else default
        return {corpus: of_one.get(corpus, common) for corpus in self._specs}

    def label_maps(self, words: Words) -> dict[Corpus, LabelMap | None]:
        """The label map of each corpus; None without one.

        The meaning of numbers (and of yes and no) given for all corpora does not apply to a corpus with numbers of its
        own, nor to the Arena, whose numbers are known. `check_label_maps` refuses that other corpora share them.

        Args:
            words: `LABEL=MEANING` for all corpora, `CORPUS:LABEL=MEANING` for one.

        Raises:
            CorpusError: If a corpus is unknown, and like `parse_label_map`.
        """
        common: list[str] = []
        own: dict[Corpus, list[str]] = {corpus: [] for corpus in self._specs}
        for word in [words] if isinstance(words, str) else words or ():
            corpora, item = self._read("--label_map", word)
            if corpora is None:
                common.append(item)
            for corpus in corpora or ():
                self._require_labels(self._specs[corpus], word)
                own[corpus].append(item)
        shared = parse_label_map(common) or {}
        return {corpus: self._label_map(self._specs[corpus], shared, items) for corpus, items in own.items()}

    def check_label_maps(self, label_maps: Mapping[Corpus, LabelMap | None]) -> None:
        """Check that no two corpora share a meaning of numbers that was given for neither of them.

        Args:
            label_maps: From `label_maps`, after the corpora were loaded.

        Raises:
            CorpusError: If two do. The message says how to give the meaning per corpus.
        """
        users = {corpus: label_map for corpus, label_map in label_maps.items() if label_map and label_map.used}
        locations = {_location(self._specs[corpus]) for corpus in users}
        if len(locations) < 2:
            return
        names = [self._name(corpus) for corpus in users]
        first = next(iter(users.values()))
        shared = [f"{label}={meaning}" for label, meaning in first.items() if normalize_label(label) in first.shared]
        labels = [item.partition("=")[0] for item in shared]
        each = [f"{names[0]}:{item}" for item in shared]
        each += [f"{name}:{label}=..." for name in names[1:] for label in labels]
        raise CorpusError(
            f"--label_map {' '.join(shared)} names no corpus, and {' and '.join(names)} number their classes, which "
            f"corpora do either way: give the meaning for each, as in --label_map {' '.join(each)}, or, if they agree, "
            f"for all: --label_map {' '.join(f'{ALL}:{item}' for item in shared)}."
        )

    def _read(self, option: str, word: str) -> tuple[list[Corpus] | None, str]:
        """The corpora that a word names, None without a name, and its value."""
        for called in sorted(self._called, key=len, reverse=True):
            if word.startswith(f"{called}:"):
                return self._called[called], word[len(called) + 1 :]
        # Columns and labels may contain colons, and a single corpus need not be named.
        if ":" not in word or len(self._specs) == 1:
            return None, word
        raise CorpusError(
            f"{option} {word}: none of the corpora, or more than one, is called {word.partition(':')[0]!r}; they are "
            f"called {', '.join(called for called in self._called if called != ALL)}. A value with a colon of its own "
            f"takes {ALL}: before it."
        )

    def _label_map(self, spec: CorpusSpec, shared: Mapping[str, str], items: Sequence[str]) -> LabelMap | None:
        own = parse_label_map(items) or {}
        is_alone = len(self._specs) == 1
        bare = {label for label in shared if says_nothing(label)}
        if not is_alone and (spec.is_arena or any(says_nothing(label) for label in own)):
            shared, bare = {label: meaning for label, meaning in shared.items() if label not in bare}, set()
        given = {normalize_label(label) for label in own}
        meanings = {label: meaning for label, meaning in shared.items() if normalize_label(label) not in given} | own
        return LabelMap(meanings, () if is_alone else bare & set(meanings)) if meanings else None

    def _require_labels(self, spec: CorpusSpec, word: str) -> None:
        if spec.layout is not None and not word.startswith(f"{ALL}:"):
            raise CorpusError(f"--label_map {word}: {spec.layout.title} has labels of its own, whose meaning is known.")

    def _name(self, corpus: Corpus) -> str:
        """The shortest name of a corpus."""
        return min((called for called, named in self._called.items() if named == [corpus]), key=len)


def _location(spec: CorpusSpec) -> str:
    """An identifier that is equal for two spellings of the same corpus."""
    return str(Path(spec.path).expanduser().resolve()) if spec.path else spec.text
