"""Train on several corpora at once, each as often as its weight says, and on both classes equally often if asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from datasets import Dataset, Value, concatenate_datasets, interleave_datasets

from hf_gradalign.data.corpora.schema import FEATURES, METADATA_COLUMNS
from hf_gradalign.data.errors import CorpusError
from hf_gradalign.data.labels import LABEL_NAMES

CORPUS_COLUMN = "corpus"
"""The column of a mix that says which corpus a clip is from."""

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

    Without weights and balance every clip comes once. Else the corpora (and classes) are drawn from at random with
    `datasets.interleave_datasets`, each in its own order and from its start again when it is through, until every clip
    has come at least once.

    Args:
        parts: the splits by the corpora's names, in the common form.
        weights: how often each corpus comes, in any unit; by default as often as it has clips.
        balance_classes: whether both classes come equally often. With weights these hold within each class, among the
            corpora that have it.
        seed: of the draws.

    Returns:
        A data set; of several corpora with the columns of the schema and `corpus`, the utterance ids being
        `corpus/utterance`.

    Raises:
        CorpusError: if the weights do not fit, or a class to be balanced is in no corpus.
    """
    check_weights(weights, len(parts))
    if len(parts) > 1:
        parts = {name: in_mixed_form(dataset, name) for name, dataset in parts.items()}
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


def source_probabilities(sizes: Mapping[Source, int], weights: Mapping[str, float] | None) -> list[float]:
    """How likely a clip is to come from each source; both classes equally likely, where sources are classes.

    Args:
        sizes: clips of each source.
        weights: of the corpora; by default each counts as much as it has clips.

    Raises:
        CorpusError: if sources are classes and one of them is missing.
    """
    shares = {source: float(size if weights is None else weights[source[0]]) for source, size in sizes.items()}
    labels = {label for _, label in sizes}
    if labels != {None} and len(labels) < len(LABEL_NAMES):
        absent = next(name for label, name in enumerate(LABEL_NAMES) if label not in labels)
        raise CorpusError(f"--balance_classes: there are no {absent} clips to balance the others with.")
    totals = {label: sum(share for (_, other), share in shares.items() if other == label) for label in labels}
    return [share / totals[label] / len(labels) for (_, label), share in shares.items()]


def check_weights(weights: Sequence[float] | None, n_corpora: int) -> None:
    """Raise CorpusError unless there is a positive weight for each corpus, or none at all."""
    if weights is None:
        return
    if len(weights) != n_corpora:
        raise CorpusError(
            f"--corpus_weights takes a number for each corpus: there are {n_corpora}, not {len(weights)}."
        )
    if not all(0 < weight < float("inf") for weight in weights):
        raise CorpusError(f"--corpus_weights must be positive numbers, not {' '.join(map(str, weights))}.")


def in_mixed_form(dataset: Dataset, corpus: str) -> Dataset:
    """The columns that all corpora of a mix have, all text but audio and label, and the corpus' name."""
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
    # Not by cast_column, which would copy the audio too.
    dataset = dataset.remove_columns([column for column in added if column in columns])
    for column, values in added.items():
        dataset = dataset.add_column(column, values, feature=Value("string"))
    return dataset.select_columns([*FEATURES, CORPUS_COLUMN])


def unique_names(names: Sequence[str]) -> list[str]:
    """Names that tell corpora apart: a number is appended to those that come again."""
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
