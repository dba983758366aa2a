"""The cost of log-likelihood ratios (Cllr), which measures calibration, and warnings if scores are not such ratios."""

import math
import warnings

from numpy.typing import ArrayLike

from hf_gradalign.metrics.functional.ranked_scores import CountedScores, RankedScores


def log_likelihood_ratio_cost(scores: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """Compute Cllr in bits: the mean surprise at the true class, averaged over both classes.

    `Cllr = (mean ln(1 + exp(-s)) over bona fide + mean ln(1 + exp(s)) over spoof) / (2 ln 2)` with scores s that are
    natural logarithms of likelihood ratios, bona fide over spoof (Bruemmer and du Preez, "Application-independent
    evaluation of speaker detection", Computer Speech & Language 20, 2006; ASVspoof 5 track 1). Large scores do not
    overflow.

    Args:
        scores: One log-likelihood ratio per clip, shape (clips,).
        labels: One label per clip, 1 bona fide and 0 spoof, shape (clips,).

    Returns:
        `cllr`, 0 or more: 0 is perfect, scores of 0 give 1, and above 1 the scores do harm.

    Warns:
        UserWarning: If all scores lie on one side of 0, as probabilities do.

    Raises:
        ValueError: As for `equal_error_rate`.
    """
    counted = RankedScores(scores, labels).counted()
    warn_of_no_ratios(counted)
    return {"cllr": ratio_cost(counted)}


def ratio_cost(counted: CountedScores) -> float:
    """Compute Cllr for counted scores."""
    surprise, is_bonafide = counted.counts * counted.ranked.surprises, counted.ranked.is_bonafide
    of_bonafide = float(surprise[is_bonafide].sum()) / counted.n_bonafide
    of_spoof = float(surprise[~is_bonafide].sum()) / counted.n_spoof
    return 0.5 * (of_bonafide + of_spoof) / math.log(2)


def ratio_problems(counted: CountedScores) -> list[str]:
    """Return warnings about scores that are not log-likelihood ratios.

    A detector's ratios lie on both sides of 0. Probabilities and percentages do not.

    Returns:
        A sentence or two if all scores lie on one side of 0.
    """
    lowest, highest = counted.lowest_score, counted.highest_score
    if lowest == highest or lowest < 0 < highest:
        return []
    likeness = ", as probabilities do" if lowest >= 0 and highest <= 1 else ""
    return [
        f"All scores lie on one side of 0 ({lowest:.3g} to {highest:.3g}){likeness}, but actDCF and Cllr are only "
        "meaningful for log-likelihood ratios. Calibrate the scores (hf-gradalign calibrate), or do not report these "
        "two metrics."
    ]


def warn_of_no_ratios(counted: CountedScores) -> None:
    """Issue a `UserWarning` for each of the `ratio_problems`, at the line that called the metric."""
    for problem in ratio_problems(counted):
        warnings.warn(problem, UserWarning, stacklevel=3)
