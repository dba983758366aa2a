"""Bootstrap draws: how often each clip is in a sample."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

_NO_NAME = ("", "-")


class Draws(Protocol):
    """Bootstrap samples of clips."""

    def __call__(self, number: int) -> NDArray[np.int64]:
        """How often each clip is in sample `number`, shape (clips,); the same number gives the same sample."""


class UtteranceDraws:
    """Draws as many clips of each class as there are, with replacement.

    Each class keeps its size, which is the corpus' choice and not chance.

    Args:
        labels: Each clip's class, of any kind, shape (clips,).
        seed: Samples depend on it and on their number alone.
    """

    def __init__(self, labels: NDArray, seed: int) -> None:
        self._seed = seed
        self._classes = [np.flatnonzero(labels == value) for value in np.unique(labels)]
        self._n_clips = len(labels)

    def __call__(self, number: int) -> NDArray[np.int64]:
        """How often each clip is in sample `number`, shape (clips,)."""
        generator = np.random.default_rng([self._seed, number])
        counts = np.empty(self._n_clips, dtype=np.int64)
        for clips in self._classes:
            counts[clips] = _draw(generator, len(clips))
        return counts


class ClusterDraws:
    """Draws as many speakers as there are, with replacement, and takes all clips of each.

    Clips of a speaker are alike, so that intervals from single clips are too narrow where speakers are few. Classes
    are as large as it happens. A clip without a speaker (None, NaN, empty or "-") is drawn on its own.

    Args:
        clusters: The name of each clip's speaker, or of whatever else clips come in, `clips` of them.
        seed: Samples depend on it and on their number alone.

    Attributes:
        n_clusters: How many there are to draw from.

    Raises:
        ValueError: If there are fewer than two of them.
    """

    def __init__(self, clusters: Sequence[Any] | NDArray, seed: int) -> None:
        self._seed = seed
        names = np.array([None if _is_missing(name) else str(name) for name in clusters], dtype=object)
        missing = np.array([name is None for name in names], dtype=bool)
        self._cluster_of = np.empty(len(names), dtype=np.intp)
        found, self._cluster_of[~missing] = np.unique(names[~missing].astype(str), return_inverse=True)
        self._cluster_of[missing] = len(found) + np.arange(np.count_nonzero(missing))
        self.n_clusters = len(found) + int(np.count_nonzero(missing))
        if len(found) < 2:
            raise ValueError(
                f"There are {len(found)} speakers (or other clusters) among {len(names)} clips: a bootstrap over them "
                "needs two or more. Leave them out to draw single clips."
            )

    def __call__(self, number: int) -> NDArray[np.int64]:
        """How often each clip is in sample `number`, shape (clips,)."""
        generator = np.random.default_rng([self._seed, number])
        return _draw(generator, self.n_clusters)[self._cluster_of]


def draw_order(scores: NDArray[np.float64], labels: NDArray) -> NDArray[np.intp]:
    """The clips class by class and by score: the order to draw in.

    Samples then do not depend on the order that the clips came in, and counting them is several times as fast, since
    what belongs together lies together in memory.
    """
    return np.lexsort((scores, labels))


def make_draws(labels: NDArray, clusters: Sequence[Any] | NDArray | None, seed: int, order: NDArray[np.intp]) -> Draws:
    """Draws of clusters where they are given, or else of clips; either way of the clips in `order`.

    Raises:
        ValueError: If there is not one cluster a clip, or as `ClusterDraws`.
    """
    if clusters is None:
        return UtteranceDraws(labels[order], seed)
    if len(clusters) != len(labels):
        raise ValueError(f"There are {len(labels)} clips but {len(clusters)} speakers: give one of each a clip.")
    return ClusterDraws([clusters[place] for place in order], seed)


def _draw(generator: np.random.Generator, n: int) -> NDArray[np.int64]:
    return np.bincount(generator.integers(0, n, n), minlength=n)


def _is_missing(name: Any) -> bool:
    return name is None or name != name or str(name).strip() in _NO_NAME
