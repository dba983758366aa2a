"""Turns the scores of a file into one bona fide score per clip.

Some files have a score for each class. Others have predicted labels, which are never the ground truth, with the
confidence of each label. A classification pipeline writes its best class with the probability of that class. These
probabilities are high for both classes and rank nothing. The bona fide score is p for bona fide and 1 - p for spoof.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hf_gradalign.score_files.clips import Clips, ScoreFileError, ScoreForm, Verdicts

ScoreIs = Literal["score", "confidence"]
Order = Literal["ordered", "reversed", "either", "mixed", "one class"]

# If more than this share of labels differ from the keys, they are the system's predictions, not typing errors.
_FEW = 0.01
_ROUNDING = 1e-6
_ROUNDING_OF_PAIRS = 2e-3  # probabilities with three decimals
_DECISIONS = ({0.0, 1.0}, {-1.0, 1.0}, {1.0, 2.0})
# With at least this many clips, having only two different scores is not a coincidence.
_MIN_CLIPS = 4
_FORMS = {
    "as written": "as in the file",
    "negated": "those of spoof with the sign changed",
    "probability": "the probability of bona fide from the columns of both classes",
    "difference": "the scores of bona fide minus those of spoof",
    "confidence": "the probability of bona fide from the confidence of predicted labels",
}
_OPTIONS = "--score_is confidence if each score is the probability of its label, --score_is score if it is of bona fide"


def combine_classes(
    bonafide: NDArray[np.float64], spoof: NDArray[np.float64], source: str
) -> tuple[NDArray[np.float64], ScoreForm]:
    """Combine the scores of both classes into one.

    The result is the probability of bona fide if both scores sum to 1 (or 100), otherwise bona fide minus spoof, as for
    logits.

    Args:
        bonafide: One score per clip, shape (clips,).
        spoof: One score per clip, shape (clips,).
        source: The name of the file, for messages.

    Returns:
        One score per clip, shape (clips,), and its form.

    Raises:
        ScoreFileError: If most scores are probabilities that sum to 1, but not all.
    """
    for whole in (1.0, 100.0):
        are_shares = np.abs(bonafide + spoof - whole) <= _ROUNDING_OF_PAIRS * whole
        if min(bonafide.min(), spoof.min()) < 0 or are_shares.sum() <= len(bonafide) / 2:
            continue
        if not are_shares.all():
            first = int(np.argmin(are_shares))
            raise ScoreFileError(
                f"{source}: the scores of both classes sum to {whole:g} for most clips, but not for "
                f"{np.count_nonzero(~are_shares)} of {len(bonafide)}; the first is number {first + 1}, with "
                f"{bonafide[first]:g} and {spoof[first]:g}. Correct them, or choose one column with --score_column."
            )
        return bonafide / whole, "probability"
    return bonafide - spoof, "difference"


def require_same_form(clips: Clips, form: str | None, fitted_on: str) -> None:
    """Check that scores were made in the same way as others, so that a threshold or a fit is valid for them.

    Args:
        clips: Clips with scores.
        form: The form of the other scores; None if it is unknown.
        fitted_on: The name of the other file, for messages.

    Raises:
        ScoreFileError: If they were not.
    """
    if form not in (None, clips.score_form):
        raise ScoreFileError(
            f"The scores of {clips.source} are {_FORMS[clips.score_form]}, but those of {fitted_on} were "
            f"{_FORMS.get(form, form)}, so a fit on these is not valid. Use files of the same kind, or describe them "
            "with --score_column, --higher_is and --score_is."
        )


def combine_pairs(clips: Clips) -> Clips | None:
    """Combine the lines of a file with two lines per utterance, one for each class; None for any other file.

    Args:
        clips: Clips with scores, and with verdicts that say which class each line's score belongs to.
    """
    scores, verdicts = clips.scores_and_verdicts()
    n_clips = len(clips) // 2
    labels = verdicts.labels
    if len(clips) % 2 or np.count_nonzero(labels == 1) != n_clips or not verdicts.are_known:
        return None
    codes = clips.utterance_ids.dictionary_encode().indices.to_numpy(zero_copy_only=False)
    order = np.lexsort((labels, codes))  # for each utterance, spoof and then bona fide
    spoof, bonafide = order[0::2], order[1::2]
    if (codes[spoof] != codes[bonafide]).any() or labels[spoof].any() or len(np.unique(codes)) != n_clips:
        return None
    order = np.argsort(np.minimum(spoof, bonafide))  # the order of the file
    spoof, bonafide = spoof[order], bonafide[order]
    combined, form = combine_classes(scores[bonafide], scores[spoof], clips.source)
    note = f"{clips.source} has one line per class for each utterance. They were combined into one score."
    paired = clips.take(bonafide)
    notes = (*clips.notes, note)
    return replace(paired, scores=combined, labels=None, verdicts=None, notes=notes, score_form=form)


def refuse_decisions(scores: NDArray[np.float64], source: str) -> None:
    """Raise ScoreFileError if scores are decisions, which do not rank clips."""
    first = np.unique(scores[:1000])  # enough to rule out decisions in most files
    values = np.unique(scores) if len(first) <= 2 else first
    if len(scores) >= _MIN_CLIPS and set(values.tolist()) in _DECISIONS:
        low, high = values
        raise ScoreFileError(
            f"All scores of {source} are {low:g} or {high:g}. These are decisions, but error rates need scores that "
            "rank clips. Write the model's logits or probabilities, or use --score_is score to rank the decisions."
        )


def is_confidence(scores: NDArray[np.float64]) -> bool:
    """Return whether scores may be the probability, or percentage, of the likelier of two classes."""
    return _scale(scores) is not None


def from_confidence(scores: NDArray[np.float64], verdicts: Verdicts, source: str) -> NDArray[np.float64]:
    """Convert the probability of the predicted label to the probability of bona fide.

    Raises:
        ScoreFileError: If the meaning of the labels is unknown, or scores are not probabilities of the likelier class.
    """
    scale = _scale(scores)
    if scale is None:
        raise ScoreFileError(
            f"{source}: scores range from {scores.min():g} to {scores.max():g}, but the probability of the likelier of "
            "two labels ranges from 0.5 to 1. Write the score of bona fide instead."
        )
    if not verdicts.are_known:
        raise ScoreFileError(
            f"{source}: scores are the confidence of labels, but the meaning of these labels is unclear. Specify it "
            "with --label_map, for example --label_map 0=spoof 1=bonafide."
        )
    probabilities = scores / scale
    return np.where(verdicts.labels == 1, probabilities, 1.0 - probabilities)


def resolve_named_predictions(clips: Clips) -> Clips:
    """Return bona fide scores for a file with labels whose name says that they are predictions.

    Raises:
        ScoreFileError: If the scores cannot be those of bona fide.
    """
    scores, verdicts = clips.scores_and_verdicts()
    if is_confidence(scores):
        return _converted(clips, "")
    order = _order(scores, verdicts)
    if order == "reversed" and not verdicts.is_direction_given:
        raise ScoreFileError(_reversed_message(clips.source))
    if order == "mixed":
        raise ScoreFileError(_own_scores_message(clips.source))
    return clips


def refuse_confidence(clips: Clips) -> None:
    """Raise ScoreFileError if the scores may belong to the labels in the file, and no keys can tell."""
    scores, verdicts = clips.scores_and_verdicts()
    if is_confidence(scores):
        raise ScoreFileError(_confidence_message(clips.source, "Only keys can tell: add KEYS, or use"))
    # Logits of the likelier class are all positive. Bona fide logits, or differences of logits, are not.
    if scores.min() > 0 and scores.max() > 1 and _order(scores, verdicts) == "mixed":
        raise ScoreFileError(_own_scores_message(clips.source))


def unlabeled_scores(clips: Clips) -> NDArray[np.float64]:
    """Return the scores of a file that needs no labels.

    Raises:
        ScoreFileError: If there are no scores, or they may be the confidence of predicted labels.
    """
    if clips.scores is None:
        raise ScoreFileError(f"{clips.source} has no scores. Pass a score file.")
    if clips.verdicts is not None:
        refuse_confidence(clips)
    return clips.scores


def resolve_with_keys(
    clips: Clips, labels: NDArray[np.int64], keys_source: str
) -> tuple[NDArray[np.float64], list[str]]:
    """Return bona fide scores, and notes on the labels in the score file.

    Args:
        clips: Clips of a score file, with scores.
        labels: The true labels of the same clips.
        keys_source: The name of the file with the true labels.

    Raises:
        ScoreFileError: If the scores belong to predicted labels, or may belong to them.
    """
    if clips.verdicts is None:
        assert clips.scores is not None, "the clips are those of a score file"
        lacks_low_scores = is_confidence(clips.scores) and np.bincount(labels, minlength=2).min() >= _MIN_CLIPS
        return clips.scores, [_no_low_score_note(clips)] if lacks_low_scores else []
    scores, verdicts = clips.scores_and_verdicts()
    n_different = _n_different(verdicts, labels)
    are_predictions = n_different > _FEW * len(labels)
    if is_confidence(scores):
        if not are_predictions:
            raise ScoreFileError(_confidence_message(clips.source, f"Its labels agree with {keys_source}. Use"))
        converted = _converted(clips, f" ({n_different} of {len(labels)} differ from {keys_source})")
        return converted.scores_and_verdicts()[0], list(converted.notes[len(clips.notes) :])
    order = _order(scores, verdicts)
    if are_predictions and order == "mixed":
        raise ScoreFileError(_own_scores_message(clips.source))
    if are_predictions and order == "reversed" and not verdicts.is_direction_given:
        raise ScoreFileError(_reversed_message(clips.source))
    return scores, []


def with_own_labels(clips: Clips) -> Clips:
    """Return the clips of a score file for an evaluation with the labels in it.

    Raises:
        ScoreFileError: If the file has no labels, or they look like predictions.
    """
    if clips.labels is None:
        raise ScoreFileError(
            f"{clips.source} contains no true labels: add KEYS, a file with them, after it. Predictions do not count "
            "as labels."
        )
    if clips.verdicts is None:
        return clips
    scores, verdicts = clips.scores_and_verdicts()
    follows = _order(scores, verdicts) in ("ordered", "reversed")
    if follows or is_confidence(scores):
        why = "follow exactly from its scores" if follows else "come with scores that are all above one half"
        raise ScoreFileError(
            f"The labels in {clips.source} {why}, as predictions do, so they may not be the ground truth. Add KEYS, a "
            "file with the true labels, or name the column of true labels with --label_column."
        )
    note = f"The labels in {clips.source} count as the ground truth. If they are predictions, add KEYS."
    return replace(clips, verdicts=None, notes=(*clips.notes, note))


def _scale(scores: NDArray[np.float64]) -> float | None:
    for scale in (1.0, 100.0):
        if scores.min() >= (0.5 - _ROUNDING) * scale and scores.max() <= (1.0 + _ROUNDING) * scale:
            return scale
    return None


def _order(scores: NDArray[np.float64], verdicts: Verdicts) -> Order:
    """Return whether all scores of one label are above all scores of the other, or they are mixed."""
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


def _n_different(verdicts: Verdicts, labels: NDArray[np.int64]) -> int:
    """Count the verdicts that differ from the labels."""
    n_different = int(np.count_nonzero(verdicts.labels != labels))
    if verdicts.are_known:
        return n_different
    # It is unknown which label is which, so take the better fit.
    return min(n_different, int(np.count_nonzero(1 - verdicts.labels != labels)))


def _converted(clips: Clips, evidence: str) -> Clips:
    scores, verdicts = clips.scores_and_verdicts()
    note = (
        f"The labels in {clips.source} are predictions{evidence} and its scores their confidence. The score is p for "
        "bonafide and 1 - p for spoof."
    )
    converted = from_confidence(scores, verdicts, clips.source)
    return replace(clips, scores=converted, notes=(*clips.notes, note), score_form="confidence")


def _confidence_message(source: str, what_to_do: str) -> str:
    return (
        f"No score of {source} is below one half, so they may be the confidence of predicted labels. {what_to_do} "
        f"{_OPTIONS}."
    )


def _own_scores_message(source: str) -> str:
    return (
        f"The labels in {source} seem to be predictions, and each score belongs to its own label, such as a logit. "
        "Such scores cannot be compared. Write the bona fide score for each clip, or use --score_is score if it is "
        "that."
    )


def _reversed_message(source: str) -> str:
    return (
        f"The clips of {source} that are labeled spoof have the higher scores. Use --higher_is spoof if a high score "
        "means spoof, or --higher_is bonafide if not."
    )


def _no_low_score_note(clips: Clips) -> str:
    return (
        f"No score of {clips.source} is below one half. If they are the confidence of predicted labels, the results "
        "are wrong: write the probability of bona fide."
    )
