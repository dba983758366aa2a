"""Scores clips with models that were not fitted on them: cross-validation that holds out whole speakers."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from hf_gradalign.metrics.stats.bootstrap import is_missing
from hf_gradalign.score_files.clips import Clips, ScoreFileError
from hf_gradalign.score_files.results import UTTERANCE, column_of

SPEAKER = "speaker"
N_FOLDS = 5

ScoreFunction = Callable[[NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True)
class Folds:
    """A partition of clips into folds, each of which is held out once.

    Attributes:
        numbers: The fold of each clip, from 0, shape (clips,).
        over: The unit that is held out as a whole: "utterance", or a column such as "speaker".
    """

    numbers: NDArray[np.int64]
    over: str

    @property
    def n_folds(self) -> int:
        """The number of folds."""
        return int(self.numbers.max()) + 1

    def describe(self) -> str:
        """Describe the folds as part of a sentence."""
        what = "stratified by class" if self.over == UTTERANCE else f"no {self.over} is in two of them"
        return f"{self.n_folds} folds, {what}"


def make_folds(clips: Clips, *, over: str | None = None, n_folds: int = N_FOLDS, seed: int = 0) -> Folds:
    """Divide clips into folds that have about the same share of each class.

    Folds depend on the seed and on the names of the clips, not on their order. Clips without a value in the column
    (None, empty or "-") are held out one by one.

    Args:
        clips: Clips with labels.
        over: The unit that is held out as a whole: "utterance", or the values of a column. The default is "speaker" if
            the clips have speakers, otherwise "utterance". If a class has fewer than two speakers, the default is
            "utterance" too, with a warning.
        n_folds: The number of folds, at least 2. There are fewer if a class has fewer clips, or if there are fewer
            speakers.
        seed: The same seed gives the same folds.

    Raises:
        ScoreFileError: If there are no labels, there is no such column, or such folds are not possible.
        ValueError: If `n_folds` is less than 2, or the seed is negative.
    """
    if n_folds < 2:
        raise ValueError(f"Cross-validation needs at least 2 folds, not {n_folds}.")
    if seed < 0:
        raise ValueError(f"The seed must be 0 or more, not {seed}.")
    if clips.labels is None:
        raise ScoreFileError(f"{clips.source} has no labels. Combine scores and labels with match_keys.")
    sizes = np.bincount(clips.labels, minlength=2)
    if sizes.min() < 2:
        raise ScoreFileError(
            f"{clips.source} has {sizes[1]} bona fide and {sizes[0]} spoofed clips with a label, but cross-validation "
            "needs at least 2 of each class. Use keys with more clips."
        )
    order = pc.sort_indices(clips.utterance_ids).to_numpy()
    labels = clips.labels[order]
    n_folds = min(n_folds, int(sizes.min()))
    generator = np.random.default_rng(seed)
    column = over or (SPEAKER if _has_speakers(clips) else UTTERANCE)
    numbers = None
    if column != UTTERANCE:
        groups = np.array(column_of(clips, column, "--hold_out"), dtype=object)[order]
        numbers = _fold_groups(groups, labels, n_folds, generator)
        if numbers is None:
            reason = f"{clips.source}: no {column} can be held out, because a class has fewer than two of them."
            if over:
                raise ScoreFileError(f"{reason} Hold out single clips, with --hold_out utterance.")
            warnings.warn(
                f"{reason} Single clips are held out instead, so the results are those for known speakers.",
                UserWarning,
                stacklevel=2,
            )
            column = UTTERANCE
    if numbers is None:
        numbers = _fold_clips(labels, n_folds, generator)
    as_given = np.empty_like(numbers)
    as_given[order] = numbers
    return Folds(as_given, column)


def held_out_scores(
    fit: Callable[[NDArray[np.float64], NDArray[np.int64]], ScoreFunction],
    features: NDArray[np.float64],
    labels: NDArray[np.int64],
    folds: Folds,
) -> NDArray[np.float64]:
    """Score each clip with a model that was fitted on the other folds.

    Args:
        fit: Function that takes features and labels, and returns a function from features to scores.
        features: The scores to fit on, shape (clips,), or those of several systems, shape (clips, systems).
        labels: 1 bona fide and 0 spoof, shape (clips,).
        folds: The folds of the clips.

    Returns:
        Scores, shape (clips,).
    """
    scores = np.empty(len(labels))
    for number in range(folds.n_folds):
        is_held_out = folds.numbers == number
        model = fit(features[~is_held_out], labels[~is_held_out])
        scores[is_held_out] = model(features[is_held_out])
    return scores


def _has_speakers(clips: Clips) -> bool:
    return SPEAKER in clips.columns and not all(map(is_missing, clips.columns[SPEAKER].to_pylist()))


def _fold_clips(labels: NDArray[np.int64], n_folds: int, generator: np.random.Generator) -> NDArray[np.int64]:
    numbers = np.empty(len(labels), dtype=np.int64)
    for label in (0, 1):
        clips = generator.permutation(np.flatnonzero(labels == label))
        # Classes start at opposite ends, so that no fold has one more clip of each.
        numbers[clips] = np.arange(len(clips)) % n_folds if label else n_folds - 1 - np.arange(len(clips)) % n_folds
    return numbers


def _fold_groups(
    groups: NDArray[np.object_], labels: NDArray[np.int64], n_folds: int, generator: np.random.Generator
) -> NDArray[np.int64] | None:
    """Return the fold of each clip; None if a class would be missing without one of the folds."""
    from sklearn.model_selection import StratifiedGroupKFold  # slow to import

    numbers = _fold_clips(labels, n_folds, generator)
    named = np.flatnonzero([not is_missing(group) for group in groups])
    names = groups[named].astype(str)
    # Random numbers replace names, because the splitter's own shuffling works only from scikit-learn 1.8 on.
    each, places = np.unique(names, return_inverse=True)
    shuffled = generator.permutation(len(each))[places]
    n_folds = min(n_folds, len(each))
    if n_folds < 2:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class may have no clip in a fold
        splits = StratifiedGroupKFold(n_folds).split(named, labels[named], shuffled)
        for number, (_, held_out) in enumerate(splits):
            numbers[named[held_out]] = number
    numbers = np.unique(numbers, return_inverse=True)[1]  # a fold may be empty
    in_folds = np.bincount(2 * numbers + labels, minlength=2 * numbers.max() + 2).reshape(-1, 2)
    others_have_both_classes = bool((in_folds.sum(axis=0) > in_folds).all())
    return numbers if others_have_both_classes else None
