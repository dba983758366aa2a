"""The detection cost of ASVspoof 5, track 1: at the best threshold (minDCF) and at the Bayes threshold (actDCF)."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from hf_gradalign.metrics.functional.cllr import warn_of_no_ratios
from hf_gradalign.metrics.functional.eer import warn_of_problems
from hf_gradalign.metrics.functional.ranked_scores import CountedScores, RankedScores


@dataclass(frozen=True)
class DetectionCosts:
    """The costs of errors and the prior of spoofs. The defaults are from ASVspoof 5.

    Attributes:
        p_spoof: Prior probability of a spoof, in (0, 1).
        c_miss: Cost of rejecting a bona fide clip, positive.
        c_fa: Cost of accepting a spoofed clip, positive.

    Raises:
        ValueError: If a value is out of its range.
    """

    p_spoof: float = 0.05
    c_miss: float = 1.0
    c_fa: float = 10.0

    def __post_init__(self) -> None:
        if not 0 < self.p_spoof < 1:
            raise ValueError(f"p_spoof must be a probability between 0 and 1, not {self.p_spoof}.")
        if not (self.c_miss > 0 and self.c_fa > 0):
            raise ValueError(f"Costs must be positive, but c_miss is {self.c_miss} and c_fa is {self.c_fa}.")

    @property
    def threshold(self) -> float:
        """The Bayes threshold of log-likelihood ratios, which follows from costs and priors."""
        return -math.log(self.c_miss * (1 - self.p_spoof) / (self.c_fa * self.p_spoof))

    @property
    def default(self) -> float:
        """The smaller cost of accepting all clips or rejecting all clips, by which costs are normalized."""
        return min(self.c_miss * (1 - self.p_spoof), self.c_fa * self.p_spoof)


def min_detection_cost(
    scores: ArrayLike, labels: ArrayLike, *, p_spoof: float = 0.05, c_miss: float = 1.0, c_fa: float = 10.0
) -> dict[str, float]:
    """Compute the minDCF: the normalized detection cost at the best threshold for these clips.

    `min over t of (c_miss (1 - p_spoof) FRR(t) + c_fa p_spoof FAR(t)) / min(c_miss (1 - p_spoof), c_fa p_spoof)` over
    the curve of `detection_error_curve` (evaluation plan of ASVspoof 5, equations 3 and 4). It depends only
    on the order of the scores. Among equal scores, bona fide clips are rejected first, so ties count against the
    detector.

    Args:
        scores: One number per clip, higher for bona fide, shape (clips,).
        labels: One label per clip, 1 bona fide and 0 spoof, shape (clips,).
        p_spoof: See `DetectionCosts`.
        c_miss: See `DetectionCosts`.
        c_fa: See `DetectionCosts`.

    Returns:
        `min_dcf`, in [0, 1], and `threshold`, the score up to and including which a clip is rejected.

    Warns:
        UserWarning: As for `equal_error_rate`.

    Raises:
        ValueError: As for `equal_error_rate` and `DetectionCosts`.
    """
    costs = DetectionCosts(p_spoof, c_miss, c_fa)
    counted = RankedScores(scores, labels).counted()
    warn_of_problems(counted)
    cost, index = cheapest_threshold(counted, costs)
    return {"min_dcf": cost, "threshold": counted.official_threshold(index)}


def cheapest_threshold(counted: CountedScores, costs: DetectionCosts) -> tuple[float, int]:
    """Compute the minDCF of counted scores, and the index of its threshold."""
    # Products and sums are in the order of the official package, which keeps the last digit.
    p_bonafide = 1 - costs.p_spoof
    cost = costs.c_miss * counted.false_rejection_rate * p_bonafide
    cost += costs.c_fa * counted.false_acceptance_rate * (1 - p_bonafide)
    index = int(np.argmin(cost))
    return float(cost[index]) / min(costs.c_miss * p_bonafide, costs.c_fa * (1 - p_bonafide)), index


def actual_detection_cost(
    scores: ArrayLike, labels: ArrayLike, *, p_spoof: float = 0.05, c_miss: float = 1.0, c_fa: float = 10.0
) -> dict[str, float]:
    """Compute the actDCF: the normalized detection cost at the Bayes threshold of log-likelihood ratios.

    It depends on calibration: clips with a score of `-ln(c_miss (1 - p_spoof) / (c_fa p_spoof))` or more are accepted
    (-0.6419 with the defaults). The cost is normalized as in `min_detection_cost` (ASVspoof 5).

    Args:
        scores: One log-likelihood ratio per clip, shape (clips,).
        labels: One label per clip, 1 bona fide and 0 spoof, shape (clips,).
        p_spoof: See `DetectionCosts`.
        c_miss: See `DetectionCosts`.
        c_fa: See `DetectionCosts`.

    Returns:
        `act_dcf`, 0 or more, and above 1 if accepting or rejecting all clips would cost less; and `threshold`.

    Warns:
        UserWarning: If all scores lie on one side of 0, as probabilities do.

    Raises:
        ValueError: As for `equal_error_rate` and `DetectionCosts`.
    """
    costs = DetectionCosts(p_spoof, c_miss, c_fa)
    counted = RankedScores(scores, labels).counted()
    warn_of_no_ratios(counted)
    return {"act_dcf": actual_cost(counted, costs), "threshold": costs.threshold}


def actual_cost(counted: CountedScores, costs: DetectionCosts) -> float:
    """Compute the actDCF of counted scores."""
    rejected_bonafide, rejected_spoof = counted.below(costs.threshold)
    frr = rejected_bonafide / counted.n_bonafide
    far = (counted.n_spoof - rejected_spoof) / counted.n_spoof
    return (costs.c_miss * (1 - costs.p_spoof) * frr + costs.c_fa * costs.p_spoof * far) / costs.default
