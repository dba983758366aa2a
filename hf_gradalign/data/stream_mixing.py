"""Train on several streams at once: `mix_corpora` for what has no length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from datasets import IterableDataset, interleave_datasets

from hf_gradalign.data.labels import LABEL_NAMES
from hf_gradalign.data.mixing import check_weights, source_probabilities
from hf_gradalign.data.stream_rows import STREAM_FEATURES, HasLabel, Prefixed


def mix_streams(
    parts: Mapping[str, IterableDataset],
    *,
    weights: Sequence[float] | None = None,
    balance_classes: bool = False,
    seed: int = 0,
) -> IterableDataset:
    """Mix streams, as `mix_corpora` mixes data sets.

    How many clips a stream has is not known: without weights the corpora come equally often, until each is through,
    and with balanced classes the corpora of a class do. To balance classes, each class is a stream of its own, and
    everything is read twice.

    Args:
        parts: the streams by the corpora's names, from `stream_corpus`.
        weights: how often each corpus comes, in any unit.
        balance_classes: whether both classes come equally often.
        seed: of the draws.

    Raises:
        CorpusError: if the weights do not fit, or a class to be balanced is in no stream.
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
