"""Mixes several corpora for training, and parses options per corpus."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from datasets import Dataset, IterableDataset, Value, concatenate_datasets, interleave_datasets

from hf_gradalign.data.corpora import CorpusSpec, parse_corpus
from hf_gradalign.data.corpora.layout import FEATURES, METADATA_COLUMNS
from hf_gradalign.data.labels import LABEL_NAMES, LabelMap, is_ambiguous, parse_label_map
from hf_gradalign.data.request import CorpusError
from hf_gradalign.data.streaming import STREAM_FEATURES, AddCorpusPrefix, HasLabel
from hf_gradalign.labels import normalize_label

CORPUS_COLUMN = "corpus"
"""The column in a mix with each clip's corpus."""

Source = tuple[str, int | None]
"""A corpus' name, and one of its classes or None for both."""


def mix_corpora(
    parts: Mapping[str, Dataset],
    *,
    weights: Sequence[float] | None = None,
    balance_classes: bool = False,
    seed: int = 0,
) -> Dataset:
    """Mix the training splits of corpora.

    Without weights and balancing, every clip occurs once. Otherwise corpora (and classes) are drawn at random with
    `datasets.interleave_datasets`. Each keeps its order and starts again at its end, until every clip has occurred at
    least once.

    Args:
        parts: The splits by the corpora's names, with the standard columns.
        weights: How often each corpus is drawn, in any unit. Defaults to the corpora's sizes.
        balance_classes: Whether both classes are drawn equally often. Weights then apply within each class, to the
            corpora that have it.
        seed: Seed of the draws.

    Returns:
        A data set. Mixes of several corpora have the columns of `FEATURES` and `corpus`, and utterance ids of the form
        `corpus/utterance`.

    Raises:
        CorpusError: If the weights are invalid, or a class to balance is missing.
    """
    check_weights(weights, len(parts))
    if len(parts) > 1:
        parts = {name: _to_mixed_columns(dataset, name) for name, dataset in parts.items()}
    if weights is None and not balance_classes:
        return concatenate_datasets(list(parts.values()))
    sources: dict[Source, Dataset] = {}
    for name, dataset in parts.items():
        sources |= {(name, label): clips for label, clips in _split_by_class(dataset, balance_classes).items()}
    sizes = {source: len(clips) for source, clips in sources.items()}
    by_name = dict(zip(parts, weights, strict=True)) if weights is not None else None
    return interleave_datasets(
        list(sources.values()),
        probabilities=source_probabilities(sizes, by_name),
        seed=seed,
        stopping_strategy="all_exhausted",
    )


def mix_streams(
    parts: Mapping[str, IterableDataset],
    *,
    weights: Sequence[float] | None = None,
    balance_classes: bool = False,
    seed: int = 0,
) -> IterableDataset:
    """Mix streams, like `mix_corpora`.

    The sizes of streams are unknown, so without weights all corpora are drawn equally often until each has ended. With
    balanced classes, this holds within each class. Balancing reads everything twice, because each class becomes a
    stream.

    Args:
        parts: The streams by the corpora's names, from `stream_corpus`.
        weights: How often each corpus is drawn, in any unit.
        balance_classes: Whether both classes are drawn equally often.
        seed: Seed of the draws.

    Raises:
        CorpusError: If the weights are invalid, or a class to balance is missing.
    """
    check_weights(weights, len(parts))
    if len(parts) > 1:
        parts = {name: stream.map(AddCorpusPrefix(name), features=STREAM_FEATURES) for name, stream in parts.items()}
    sources: dict[Source, IterableDataset] = {}
    for name, stream in parts.items():
        for label in range(len(LABEL_NAMES)) if balance_classes else (None,):
            source = stream if label is None else stream.filter(HasLabel(label))
            if label is None or next(iter(source), None) is not None:
                sources[name, label] = source
    by_name = dict(zip(parts, weights, strict=True)) if weights is not None else None
    probabilities = source_probabilities(dict.fromkeys(sources, 1), by_name)
    if len(sources) == 1:
        return next(iter(sources.values()))
    each_once = weights is None and not balance_classes
    return interleave_datasets(
        list(sources.values()),
        probabilities=probabilities,
        seed=seed,
        stopping_strategy="all_exhausted_without_replacement" if each_once else "all_exhausted",
    )


def source_probabilities(sizes: Mapping[Source, int], weights: Mapping[str, float] | None) -> list[float]:
    """Return the probability of each source. If sources are classes, both classes are equally likely.

    Args:
        sizes: Number of clips of each source.
        weights: Weights of the corpora. Default to the sizes.

    Raises:
        CorpusError: If sources are classes and one class is missing.
    """
    shares = {source: float(size if weights is None else weights[source[0]]) for source, size in sizes.items()}
    labels = {label for _, label in sizes}
    if labels != {None} and len(labels) < len(LABEL_NAMES):
        absent = next(name for label, name in enumerate(LABEL_NAMES) if label not in labels)
        raise CorpusError(f"--balance_classes: there are no {absent} clips, so the classes cannot be balanced.")
    totals = {label: sum(share for (_, other), share in shares.items() if other == label) for label in labels}
    return [share / totals[label] / len(labels) for (_, label), share in shares.items()]


def check_weights(weights: Sequence[float] | None, n_corpora: int) -> None:
    """Raise a CorpusError unless each corpus has a positive weight, or `weights` is None."""
    if weights is None:
        return
    if len(weights) != n_corpora:
        raise CorpusError(f"--corpus_weights takes one number per corpus: expected {n_corpora}, got {len(weights)}.")
    if not all(0 < weight < float("inf") for weight in weights):
        raise CorpusError(f"--corpus_weights must be positive numbers, not {' '.join(map(str, weights))}.")


def _to_mixed_columns(dataset: Dataset, corpus: str) -> Dataset:
    """Reduce a corpus to the columns of `FEATURES`, with metadata as text, and add the column `corpus`."""
    n_clips = len(dataset)
    columns = [column for column in FEATURES if column in dataset.column_names]
    dataset = dataset.with_format(None).select_columns(columns)
    added = {
        "utterance_id": [f"{corpus}/{name}" for name in dataset["utterance_id"]],
        CORPUS_COLUMN: [corpus] * n_clips,
    }
    for column in METADATA_COLUMNS:
        if column not in columns:
            added[column] = [None] * n_clips
        elif dataset.features[column] != Value("string"):
            added[column] = [None if value is None else str(value) for value in dataset[column]]
    # cast_column would copy the audio.
    dataset = dataset.remove_columns([column for column in added if column in columns])
    for column, values in added.items():
        dataset = dataset.add_column(column, values, feature=Value("string"))
    return dataset.select_columns([*FEATURES, CORPUS_COLUMN])


def unique_names(names: Sequence[str]) -> list[str]:
    """Make the names of corpora unique by adding a number to repeated names."""
    seen: dict[str, int] = {}
    result = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        result.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return result


def _split_by_class(dataset: Dataset, separate: bool) -> dict[int | None, Dataset]:
    if not separate:
        return {None: dataset}
    labels = np.asarray(dataset["label"][:])
    return {int(label): dataset.select(np.flatnonzero(labels == label)) for label in np.unique(labels)}


ALL = "all"
"""Stands for every corpus."""

Words = str | Sequence[str] | None
Corpus = str | None


class CorpusOptions:
    """Parses options of commands that take several corpora.

    Options refer to a corpus as it was written (`owner/name`, `asvspoof5:/data/5`, `/data/mine.csv`) or by its name
    (`asvspoof5`, `mine`), if the name is unique.

    Args:
        corpora: The corpora as written, None for the demo corpus. Repetitions count once.
    """

    def __init__(self, corpora: Iterable[Corpus]) -> None:
        self._specs = {corpus: parse_corpus(corpus) for corpus in corpora}
        self._called: dict[str, list[Corpus]] = {ALL: list(self._specs)}
        names = [spec.name for spec in self._specs.values()]
        for corpus, numbered in zip(self._specs, unique_names(names), strict=True):
            spec = self._specs[corpus]
            for called in dict.fromkeys((spec.text, spec.name, numbered)):
                if called != spec.name or names.count(called) == 1:
                    self._called[called] = [corpus]

    def values(self, option: str, words: Words, default: str | None = None) -> dict[Corpus, str | None]:
        """Return an option's value for each corpus.

        Args:
            option: The option, such as `--label_column_name`.
            words: The given values: `VALUE` for all corpora, `CORPUS:VALUE` for one.
            default: The value for other corpora.

        Raises:
            CorpusError: If a corpus is unknown, or has two values.
        """
        of_all: list[str] = []
        of_one: dict[Corpus, str] = {}
        words = [words] if isinstance(words, str) else words or ()
        for word in words:
            corpora, value = self._split_corpus_name(option, word)
            if corpora is None or len(corpora) != 1 or len(self._specs) == 1:
                of_all.append(value)
            elif corpora[0] in of_one:
                raise CorpusError(f"{option} has two values for {self._specs[corpora[0]].text}: {' '.join(words)}.")
            else:
                of_one[corpora[0]] = value
        if len(of_all) > 1:
            raise CorpusError(
                f"{option} takes one value, not {' and '.join(of_all)}; to set it for one of several corpora, use "
                f"{option} {self._shortest_name(next(iter(self._specs)))}:VALUE."
            )
        common = of_all[0] if of_all else default
        return {corpus: of_one.get(corpus, common) for corpus in self._specs}

    def label_maps(self, words: Words) -> dict[Corpus, LabelMap | None]:
        """Return the label map of each corpus; None without one.

        A meaning of numbers (or of yes and no) that is given for all corpora does not apply to a corpus with its own
        meaning, nor to the Arena, whose numbers are known. `check_label_maps` refuses it if other corpora share it.

        Args:
            words: `LABEL=MEANING` for all corpora, `CORPUS:LABEL=MEANING` for one.

        Raises:
            CorpusError: If a corpus is unknown, or as for `parse_label_map`.
        """
        common: list[str] = []
        own: dict[Corpus, list[str]] = {corpus: [] for corpus in self._specs}
        for word in [words] if isinstance(words, str) else words or ():
            corpora, item = self._split_corpus_name("--label_map", word)
            if corpora is None:
                common.append(item)
            for corpus in corpora or ():
                self._require_labels(self._specs[corpus], word)
                own[corpus].append(item)
        shared = parse_label_map(common) or {}
        return {corpus: self._label_map(self._specs[corpus], shared, items) for corpus, items in own.items()}

    def check_label_maps(self, label_maps: Mapping[Corpus, LabelMap | None]) -> None:
        """Check that no two corpora share a meaning of numbers that was given without naming a corpus.

        Args:
            label_maps: From `label_maps`, after the corpora were loaded.

        Raises:
            CorpusError: If two corpora do. The message says how to give the meaning per corpus.
        """
        users = {corpus: label_map for corpus, label_map in label_maps.items() if label_map and label_map.used}
        locations = {_location(self._specs[corpus]) for corpus in users}
        if len(locations) < 2:
            return
        names = [self._shortest_name(corpus) for corpus in users]
        first = next(iter(users.values()))
        shared = [f"{label}={meaning}" for label, meaning in first.items() if normalize_label(label) in first.shared]
        labels = [item.partition("=")[0] for item in shared]
        each = [f"{names[0]}:{item}" for item in shared]
        each += [f"{name}:{label}=..." for name in names[1:] for label in labels]
        raise CorpusError(
            f"--label_map {' '.join(shared)} names no corpus, but {' and '.join(names)} may number their classes "
            f"differently: give the meaning for each, as in --label_map {' '.join(each)}, or, if they agree, for "
            f"all: --label_map {' '.join(f'{ALL}:{item}' for item in shared)}."
        )

    def _split_corpus_name(self, option: str, word: str) -> tuple[list[Corpus] | None, str]:
        """Return the corpora that a word names (None without a name), and its value."""
        for called in sorted(self._called, key=len, reverse=True):
            if word.startswith(f"{called}:"):
                return self._called[called], word[len(called) + 1 :]
        # Columns and labels may contain colons, and a single corpus need not be named.
        if ":" not in word or len(self._specs) == 1:
            return None, word
        raise CorpusError(
            f"{option} {word}: the name {word.partition(':')[0]!r} does not mean exactly one corpus; the names are "
            f"{', '.join(called for called in self._called if called != ALL)}. Put {ALL}: before a value that contains "
            "a colon."
        )

    def _label_map(self, spec: CorpusSpec, shared: Mapping[str, str], items: Sequence[str]) -> LabelMap | None:
        own = parse_label_map(items) or {}
        is_alone = len(self._specs) == 1
        bare = {label for label in shared if is_ambiguous(label)}
        if not is_alone and (spec.is_arena or any(is_ambiguous(label) for label in own)):
            shared, bare = {label: meaning for label, meaning in shared.items() if label not in bare}, set()
        given = {normalize_label(label) for label in own}
        meanings = {label: meaning for label, meaning in shared.items() if normalize_label(label) not in given} | own
        return LabelMap(meanings, () if is_alone else bare & set(meanings)) if meanings else None

    def _require_labels(self, spec: CorpusSpec, word: str) -> None:
        if spec.layout is not None and not word.startswith(f"{ALL}:"):
            raise CorpusError(f"--label_map {word}: the meaning of {spec.layout.title}'s labels is known; remove it.")

    def _shortest_name(self, corpus: Corpus) -> str:
        """Return the shortest name of a corpus."""
        return min((called for called, named in self._called.items() if named == [corpus]), key=len)


def _location(spec: CorpusSpec) -> str:
    """Return an identifier that is the same for two spellings of the same corpus."""
    return str(Path(spec.path).expanduser().resolve()) if spec.path else spec.text
