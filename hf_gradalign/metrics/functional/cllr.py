"""The cost of log-likelihood ratios: how well calibrated scores are, whatever the threshold."""

import math

from numpy.typing import ArrayLike

from hf_gradalign.metrics.functional.ranked_scores import CountedScores, RankedScores


def log_likelihood_ratio_cost(scores: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """Cllr in bits: the mean of both classes' mean surprise at the truth, at even odds.

    `Cllr = (mean ln(1 + exp(-s)) over bona fide + mean ln(1 + exp(s)) over spoof) / (2 ln 2)` with scores s that are
    natural logarithms of likelihood ratios, bona fide over spoof (Bruemmer and du Preez, "Application-independent
    evaluation of speaker detection", Computer Speech & Language 20, 2006; ASVspoof 5 track 1). Scores of any size are
    taken without overflow.

    Args:
        scores: One log-likelihood ratio a clip, shape (clips,).
        labels: One label a clip, 1 bona fide and 0 spoof, shape (clips,).

    Returns:
        `cllr`, not less than 0: 0 is perfect, 1 is what scores of 0 give, and above 1 the scores do harm.

    Raises:
        ValueError: As `equal_error_rate`.
    """
    return {"cllr": ratio_cost(RankedScores(scores, labels).counted())}


def ratio_cost(counted: CountedScores) -> float:
    """Cllr of counted scores."""
    surprise, is_bonafide = counted.counts * counted.ranked.surprises, counted.ranked.is_bonafide
    of_bonafide = float(surprise[is_bonafide].sum()) / counted.n_bonafide
    of_spoof = float(surprise[~is_bonafide].sum()) / counted.n_spoof
    return 0.5 * (of_bonafide + of_spoof) / math.log(2)
