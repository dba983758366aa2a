"""The area under the receiver operating characteristic curve."""

from numpy.typing import ArrayLike

from hf_gradalign.metrics.functional.eer import warn_of_problems
from hf_gradalign.metrics.functional.ranked_scores import CountedScores, RankedScores


def roc_auc(scores: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """Compute the area under the ROC curve: the probability that a bona fide clip scores higher than a spoofed one.

    Equal scores count half. This is the Mann-Whitney U statistic divided by the number of pairs, as in scikit-learn's
    `roc_auc_score`.

    Args:
        scores: One number per clip, higher for bona fide, shape (clips,).
        labels: One label per clip, 1 bona fide and 0 spoof, shape (clips,).

    Returns:
        `roc_auc`, in [0, 1]: 1 is perfect, and 0.5 is chance.

    Raises:
        ValueError: As for `equal_error_rate`.
    """
    counted = RankedScores(scores, labels).counted()
    warn_of_problems(counted)
    return {"roc_auc": area_under_curve(counted)}


def area_under_curve(counted: CountedScores) -> float:
    """Compute the area for counted scores: pairs in the right order plus half of the equal ones, over all pairs."""
    starts = counted.ranked.edges
    bonafide, spoof = counted.rejected_bonafide[starts], counted.rejected_spoof[starts]
    n_bonafide_per_score = bonafide[1:] - bonafide[:-1]
    # Twice the number of pairs, so that halves are whole numbers.
    pairs = int((n_bonafide_per_score * (spoof[1:] + spoof[:-1])).sum())
    return pairs / (2 * counted.n_bonafide * counted.n_spoof)
