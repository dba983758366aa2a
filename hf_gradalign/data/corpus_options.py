"""Options that may speak of one corpus among several: `VALUE` of all, `CORPUS:VALUE` of one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from hf_gradalign.data.corpora import CorpusSpec, parse_corpus
from hf_gradalign.data.errors import CorpusError
from hf_gradalign.data.label_map import LabelMap, says_nothing
from hf_gradalign.data.labels import parse_label_map
from hf_gradalign.data.mixing import unique_names
from hf_gradalign.labels import normalize_label

ALL = "all"
"""In a corpus' place: each of them."""

Words = str | Sequence[str] | None
Corpus = str | None


class CorpusOptions:
    """Reads options of a command that takes several corpora.

    A corpus is called as it was written (`owner/name`, `asvspoof5:/data/5`, `/data/mine.csv`) or by its name
    (`asvspoof5`, `mine`), where no other has it.

    Args:
        corpora: as they were written, None for the demo corpus; one that comes again is one.
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
            option: its name, such as `--label_column_name`.
            words: what was given: `VALUE` of all corpora, `CORPUS:VALUE` of one; None for nothing.
            default: the value where nothing was said.

        Raises:
            CorpusError: if a corpus is not among them, or there are two values for one.
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
        """What the labels of each corpus mean, None where nothing was said.

        Numbers (and yes and no) that were said of no corpus are not read into one of which numbers were said, nor into
        the Arena's, which are known; `check_label_maps` sees that no two other corpora share them.

        Args:
            words: `LABEL=MEANING` of all corpora, `CORPUS:LABEL=MEANING` of one.

        Raises:
            CorpusError: if a corpus is not among them, or as `parse_label_map` does.
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
        """See that no two corpora had their numbers read through what was said of neither.

        Args:
            label_maps: from `label_maps`, after the corpora were loaded.

        Raises:
            CorpusError: if two did; the message says how to say what each means.
        """
        users = {corpus: label_map for corpus, label_map in label_maps.items() if label_map and label_map.used}
        places = {_place(self._specs[corpus]) for corpus in users}
        if len(places) < 2:
            return
        names = [self._name(corpus) for corpus in users]
        first = next(iter(users.values()))
        said = [f"{label}={meaning}" for label, meaning in first.items() if normalize_label(label) in first.shared]
        labels = [item.partition("=")[0] for item in said]
        each = [f"{names[0]}:{item}" for item in said]
        each += [f"{name}:{label}=..." for name in names[1:] for label in labels]
        raise CorpusError(
            f"--label_map {' '.join(said)} names no corpus, and {' and '.join(names)} number their classes. Corpora do "
            f"so either way round: say it of each, as in --label_map {' '.join(each)}, or, if they agree, of all: "
            f"--label_map {' '.join(f'{ALL}:{item}' for item in said)}."
        )

    def _read(self, option: str, word: str) -> tuple[list[Corpus] | None, str]:
        """The corpora that a word speaks of, None where it names none, and what it says."""
        for called in sorted(self._called, key=len, reverse=True):
            if word.startswith(f"{called}:"):
                return self._called[called], word[len(called) + 1 :]
        # A column's name or a label may have a colon in it, and of one corpus nobody need say that it is meant.
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
        said = {normalize_label(label) for label in own}
        meanings = {label: meaning for label, meaning in shared.items() if normalize_label(label) not in said} | own
        return LabelMap(meanings, () if is_alone else bare & set(meanings)) if meanings else None

    def _require_labels(self, spec: CorpusSpec, word: str) -> None:
        if spec.layout is not None and not word.startswith(f"{ALL}:"):
            raise CorpusError(f"--label_map {word}: {spec.layout.title} has labels of its own, whose meaning is known.")

    def _name(self, corpus: Corpus) -> str:
        """The shortest that a corpus is called."""
        return min((called for called, named in self._called.items() if named == [corpus]), key=len)


def _place(spec: CorpusSpec) -> str:
    """The same for one corpus that was written in two ways."""
    return str(Path(spec.path).expanduser().resolve()) if spec.path else spec.text
