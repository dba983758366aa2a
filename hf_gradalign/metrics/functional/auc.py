"""The area under the receiver operating characteristic."""

from numpy.typing import ArrayLike

from hf_gradalign.metrics.functional.ranked_scores import CountedScores, RankedScores
from hf_gradalign.metrics.functional.score_problems import warn_of_problems


def roc_auc(scores: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """Area under the ROC curve: the chance that a bona fide clip scores higher than a spoofed one, equals half.

    That is the Mann-Whitney U statistic over the number of pairs, as in scikit-learn's `roc_auc_score`.

    Args:
        scores: One number a clip, higher for bona fide, shape (clips,).
        labels: One label a clip, 1 bona fide and 0 spoof, shape (clips,).

    Returns:
        `roc_auc`, in [0, 1]; 1 is perfect, 0.5 chance.

    Raises:
        ValueError: As `equal_error_rate`.
    """
    counted = RankedScores(scores, labels).counted()
    warn_of_problems(counted)
    return {"roc_auc": area_under_curve(counted)}


def area_under_curve(counted: CountedScores) -> float:
    """The area of counted scores: pairs in the right order, and half the equal ones, over all pairs."""
    starts = counted.ranked.edges
    bonafide, spoof = counted.rejected_bonafide[starts], counted.rejected_spoof[starts]
    n_bonafide_here = bonafide[1:] - bonafide[:-1]
    # Twice the pairs, so that halves stay whole numbers.
    pairs = int((n_bonafide_here * (spoof[1:] + spoof[:-1])).sum())
    return pairs / (2 * counted.n_bonafide * counted.n_spoof)
