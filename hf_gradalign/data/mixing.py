"""Mix corpora for training, by weights, and optionally with balanced classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from datasets import Dataset, IterableDataset, Value, concatenate_datasets, interleave_datasets

from hf_gradalign.data.corpora.schema import FEATURES, METADATA_COLUMNS
from hf_gradalign.data.errors import CorpusError
from hf_gradalign.data.labels import LABEL_NAMES
from hf_gradalign.data.streaming import STREAM_FEATURES, HasLabel, Prefixed

CORPUS_COLUMN = "corpus"
"""The column of a mix with the corpus of each clip."""

Source = tuple[str, int | None]
"""A corpus' name, and one of its classes, or None for both."""


def mix_corpora(
    parts: Mapping[str, Dataset],
    *,
    weights: Sequence[float] | None = None,
    balance_classes: bool = False,
    seed: int = 0,
) -> Dataset:
    """Mix the training splits of corpora.

    Without weights and balancing, every clip comes once. Otherwise corpora (and classes) are drawn at random with
    `datasets.interleave_datasets`. Each keeps its order and restarts at its end, until every clip has come at least
    once.

    Args:
        parts: The splits by the corpora's names, with the standard columns.
        weights: How often each corpus comes, in any unit. Defaults to the corpora's sizes.
        balance_classes: Whether both classes come equally often. Weights then apply within each class, to the corpora
            that have it.
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
        sources |= {(name, label): clips for label, clips in _by_class(dataset, balance_classes).items()}
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

    The sizes of streams are unknown: without weights all corpora come equally often, until each has ended. With
    balanced classes this holds within each class. Balancing reads everything twice, since each class becomes a stream.

    Args:
        parts: The streams by the corpora's names, from `stream_corpus`.
        weights: How often each corpus comes, in any unit.
        balance_classes: Whether both classes come equally often.
        seed: Seed of the draws.

    Raises:
        CorpusError: If the weights are invalid, or a class to balance is missing.
    """
    check_weights(weights, len(parts))
    if len(parts) > 1:
        parts = {name: stream.map(Prefixed(name), features=STREAM_FEATURES) for name, stream in parts.items()}
    sources: dict[tuple[str, int | None], IterableDataset] = {}
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
    """The probability of each source. If sources are classes, both classes are equally likely.

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
        raise CorpusError(f"--balance_classes: there are no {absent} clips to balance the others with.")
    totals = {label: sum(share for (_, other), share in shares.items() if other == label) for label in labels}
    return [share / totals[label] / len(labels) for (_, label), share in shares.items()]


def check_weights(weights: Sequence[float] | None, n_corpora: int) -> None:
    """Raise a CorpusError unless each corpus has a positive weight, or `weights` is None."""
    if weights is None:
        return
    if len(weights) != n_corpora:
        raise CorpusError(
            f"--corpus_weights takes a number for each corpus: there are {n_corpora}, not {len(weights)}."
        )
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
    # Not by cast_column, which would copy the audio.
    dataset = dataset.remove_columns([column for column in added if column in columns])
    for column, values in added.items():
        dataset = dataset.add_column(column, values, feature=Value("string"))
    return dataset.select_columns([*FEATURES, CORPUS_COLUMN])


def unique_names(names: Sequence[str]) -> list[str]:
    """Make the names of corpora unique: repeated names get a number."""
    seen: dict[str, int] = {}
    result = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        result.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return result


def _by_class(dataset: Dataset, separate: bool) -> dict[int | None, Dataset]:
    if not separate:
        return {None: dataset}
    labels = np.asarray(dataset["label"][:])
    return {int(label): dataset.select(np.flatnonzero(labels == label)) for label in np.unique(labels)}
