"""Predicted labels in score files: never the truth, and their confidence is no score until it is made one.

A classification pipeline's best class is a label with the probability of that label. Such probabilities are high for
both classes, so they rank nothing; p for bona fide and 1 - p for spoof is the score that they come from.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hf_gradalign.score_files.clips import Clips, Verdicts
from hf_gradalign.score_files.errors import ScoreFileError

ScoreIs = Literal["score", "confidence"]

# Of the labels in a score file that differ from the keys', beyond which they are the system's and no slips of the pen.
_FEW = 0.01
_ROUNDING = 1e-6
_DECISIONS = ({0.0, 1.0}, {-1.0, 1.0}, {1.0, 2.0})
# Clips from which on two different scores among them are no accident.
_SOME = 4
_OPTIONS = "--score_is confidence if each score is the probability of its label, --score_is score if it is of bona fide"


def refuse_decisions(scores: NDArray[np.float64], source: str) -> None:
    """Raise ScoreFileError if scores are decisions, which have no order to speak of."""
    first = np.unique(scores[:1000])  # most files need no more to show that they are none
    values = np.unique(scores) if len(first) <= 2 else first
    if len(scores) >= _SOME and set(values.tolist()) in _DECISIONS:
        low, high = values
        raise ScoreFileError(
            f"All scores of {source} are {low:g} or {high:g}: these are decisions, and error rates need scores that "
            "rank clips. Write the model's logits or probabilities, or say --score_is score to rank the decisions."
        )


def is_confidence(scores: NDArray[np.float64]) -> bool:
    """Whether scores may be the probability, or the percentage, of the likelier of two classes."""
    return _scale(scores) is not None


def from_confidence(scores: NDArray[np.float64], verdicts: Verdicts, source: str) -> NDArray[np.float64]:
    """The probability of bona fide from that of the predicted label.

    Raises:
        ScoreFileError: If it is not known what the labels mean, or scores are no probabilities of the likelier class.
    """
    scale = _scale(scores)
    if scale is None:
        raise ScoreFileError(
            f"{source}: scores go from {scores.min():g} to {scores.max():g}, and the probability of the likelier of "
            "two labels goes from 0.5 to 1. Write the score of bona fide instead."
        )
    if not verdicts.are_known:
        raise ScoreFileError(
            f"{source}: scores are the confidence of labels, and what these mean is not clear. Say it with "
            "--label_map, for example --label_map 0=spoof 1=bonafide."
        )
    probabilities = scores / scale
    return np.where(verdicts.labels == 1, probabilities, 1.0 - probabilities)


def settle_named(clips: Clips) -> Clips:
    """Scores next to labels whose name says that they are predictions.

    Raises:
        ScoreFileError: If they cannot be a score of bona fide.
    """
    if is_confidence(clips.scores):
        return _converted(clips, "")
    order = _order(clips.scores, clips.verdicts)
    if order == "reversed" and not clips.verdicts.is_direction_given:
        raise ScoreFileError(_reversed(clips.source))
    if order == "mixed":
        raise ScoreFileError(_of_label(clips.source))
    return clips


def refuse_confidence(clips: Clips) -> None:
    """Raise ScoreFileError if the scores may be of the labels in the file, and no keys tell."""
    if is_confidence(clips.scores):
        raise ScoreFileError(_ambiguous(clips.source, "and without keys nothing tells: give KEYS, or say"))
    # Logits of the likelier class are positive, those of a pair's difference or of bona fide are not all.
    if clips.scores.min() > 0 and clips.scores.max() > 1 and _order(clips.scores, clips.verdicts) == "mixed":
        raise ScoreFileError(_of_label(clips.source))


def settle_with_keys(own: Clips, labels: NDArray[np.int64], keys_source: str) -> tuple[NDArray[np.float64], list[str]]:
    """Scores of bona fide, and what should be told of the labels in the score file.

    Args:
        own: Clips of a score file.
        labels: The true labels of the same clips.
        keys_source: What has these.

    Raises:
        ScoreFileError: If the scores belong to predicted labels, or may.
    """
    verdicts = own.verdicts
    if verdicts is None:
        return own.scores, [_no_low_score(own)] if _lacks_low_scores(own.scores, labels) else []
    n_other = _n_other(verdicts, labels)
    are_predictions = n_other > _FEW * len(labels)
    if is_confidence(own.scores):
        if not are_predictions:
            raise ScoreFileError(_ambiguous(own.source, f"and its labels are those of {keys_source}: say"))
        found = f" ({n_other} of {len(labels)} are not those of {keys_source})"
        converted = _converted(own, found)
        return converted.scores, list(converted.notes[len(own.notes) :])
    order = _order(own.scores, verdicts)
    if are_predictions and order == "mixed":
        raise ScoreFileError(_of_label(own.source))
    if are_predictions and order == "reversed" and not verdicts.is_direction_given:
        raise ScoreFileError(_reversed(own.source))
    return own.scores, []


def with_own_labels(clips: Clips) -> Clips:
    """A score file's clips, for an evaluation with the labels that are in it.

    Raises:
        ScoreFileError: If it has none, or they look like predictions.
    """
    if clips.labels is None:
        raise ScoreFileError(
            f"{clips.source} has no labels in it: give KEYS, the file that has them, after it. Predictions are no "
            "labels."
        )
    if clips.verdicts is None:
        return clips
    follows = _order(clips.scores, clips.verdicts) in ("ordered", "reversed")
    if follows or is_confidence(clips.scores):
        why = (
            "follow from its scores without exception"
            if follows
            else "stand next to scores that are all above one half"
        )
        raise ScoreFileError(
            f"The labels in {clips.source} {why}, as predictions do: they may not be the truth. Give KEYS, the file "
            "that has the true labels, or name the column of true labels with --label_column."
        )
    note = f"The labels in {clips.source} were taken for the truth; if they are predictions, give KEYS."
    return replace(clips, verdicts=None, notes=(*clips.notes, note))


def _scale(scores: NDArray[np.float64]) -> float | None:
    for scale in (1.0, 100.0):
        if scores.min() >= (0.5 - _ROUNDING) * scale and scores.max() <= (1.0 + _ROUNDING) * scale:
            return scale
    return None


def _order(
    scores: NDArray[np.float64], verdicts: Verdicts
) -> Literal["ordered", "reversed", "either", "mixed", "one class"]:
    """How scores lie: all of one label above all of the other, or mixed."""
    if (verdicts.labels < 0).any():
        return "mixed"
    ones, zeros = scores[verdicts.labels == 1], scores[verdicts.labels == 0]
    if not len(ones) or not len(zeros):
        return "one class"
    is_ordered, is_reversed = ones.min() >= zeros.max(), zeros.min() >= ones.max()
    if not is_ordered and not is_reversed:
        return "mixed"
    if not verdicts.are_known:
        return "either"
    return "ordered" if is_ordered else "reversed"


def _n_other(verdicts: Verdicts, labels: NDArray[np.int64]) -> int:
    n_other = int(np.count_nonzero(verdicts.labels != labels))
    # Where it is not known which is which, it is what fits better.
    return n_other if verdicts.are_known else min(n_other, int(np.count_nonzero(1 - verdicts.labels != labels)))


def _lacks_low_scores(scores: NDArray[np.float64], labels: NDArray[np.int64]) -> bool:
    return is_confidence(scores) and min(np.count_nonzero(labels == 1), np.count_nonzero(labels == 0)) >= _SOME


def _converted(clips: Clips, found: str) -> Clips:
    scores = from_confidence(clips.scores, clips.verdicts, clips.source)
    note = (
        f"The labels in {clips.source} are predictions{found} and its scores the confidence of these: p was taken for "
        "bonafide and 1 - p for spoof."
    )
    return replace(clips, scores=scores, notes=(*clips.notes, note))


def _ambiguous(source: str, why: str) -> str:
    return (
        f"No score of {source} is below one half, as where scores are the confidence of predicted labels, {why} "
        f"{_OPTIONS}."
    )


def _of_label(source: str) -> str:
    return (
        f"The labels in {source} seem to be predictions, and its scores each label's own, such as its logit: these "
        "cannot be compared. Write the score of bona fide for each clip, or say --score_is score if it is that."
    )


def _reversed(source: str) -> str:
    return (
        f"The clips of {source} that are labeled spoof have the higher scores. Say --higher_is spoof if a high score "
        "means spoof, or --higher_is bonafide."
    )


def _no_low_score(clips: Clips) -> str:
    return (
        f"No score of {clips.source} is below one half. If they are the confidence of predicted labels, the figures "
        "are wrong: write the probability of bona fide."
    )
