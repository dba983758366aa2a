"""The detection cost of ASVspoof 5, track 1: at the best threshold, and at the one that Bayes decisions take."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from hf_gradalign.metrics.functional.ranked_scores import CountedScores, RankedScores
from hf_gradalign.metrics.functional.score_problems import warn_of_problems


@dataclass(frozen=True)
class DetectionCosts:
    """What errors cost, and how common spoofs are taken to be; by default as in ASVspoof 5.

    Attributes:
        p_spoof: Prior probability of a spoof, in (0, 1).
        c_miss: Cost of rejecting a bona fide clip, positive.
        c_fa: Cost of accepting a spoofed one, positive.

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
        """Where log-likelihood ratios are cut: minus the logarithm of the odds that costs and priors make."""
        return -math.log(self.c_miss * (1 - self.p_spoof) / (self.c_fa * self.p_spoof))

    @property
    def default(self) -> float:
        """The lesser cost of accepting all clips and of rejecting all, which costs are divided by."""
        return min(self.c_miss * (1 - self.p_spoof), self.c_fa * self.p_spoof)


def min_detection_cost(
    scores: ArrayLike, labels: ArrayLike, *, p_spoof: float = 0.05, c_miss: float = 1.0, c_fa: float = 10.0
) -> dict[str, float]:
    """The minDCF, that is the normalised detection cost at the threshold that is best for these very clips.

    `min over t of (c_miss (1 - p_spoof) FRR(t) + c_fa p_spoof FAR(t)) / min(c_miss (1 - p_spoof), c_fa p_spoof)` over
    the curve of `detection_error_curve` (evaluation plan of ASVspoof 5, equations 3 and 4). It looks at the order of
    the scores only. Among equals the bona fide clips are rejected first, so ties count against the detector.

    Args:
        scores: One number a clip, higher for bona fide, shape (clips,).
        labels: One label a clip, 1 bona fide and 0 spoof, shape (clips,).
        p_spoof: See `DetectionCosts`.
        c_miss: See `DetectionCosts`.
        c_fa: See `DetectionCosts`.

    Returns:
        `min_dcf`, in [0, 1], and `threshold`, the score up to and including which a clip is rejected there.

    Warns:
        UserWarning: As `equal_error_rate`.

    Raises:
        ValueError: As `equal_error_rate` and `DetectionCosts`.
    """
    costs = DetectionCosts(p_spoof, c_miss, c_fa)
    counted = RankedScores(scores, labels).counted()
    warn_of_problems(counted)
    cost, place = cheapest_threshold(counted, costs)
    return {"min_dcf": cost, "threshold": counted.official_threshold(place)}


def cheapest_threshold(counted: CountedScores, costs: DetectionCosts) -> tuple[float, int]:
    """The minDCF of counted scores, and the number of its threshold."""
    # Products and sums in the official package's order, for the last digit.
    p_bonafide = 1 - costs.p_spoof
    cost = costs.c_miss * counted.false_rejection_rate * p_bonafide
    cost += costs.c_fa * counted.false_acceptance_rate * (1 - p_bonafide)
    place = int(np.argmin(cost))
    return float(cost[place]) / min(costs.c_miss * p_bonafide, costs.c_fa * (1 - p_bonafide)), place


def actual_detection_cost(
    scores: ArrayLike, labels: ArrayLike, *, p_spoof: float = 0.05, c_miss: float = 1.0, c_fa: float = 10.0
) -> dict[str, float]:
    """The actDCF, that is the normalised detection cost at the threshold for log-likelihood ratios.

    Calibration counts: accepted are clips with a score of `-ln(c_miss (1 - p_spoof) / (c_fa p_spoof))` or more, which
    with the defaults is -0.6419. The cost is normalised as that of `min_detection_cost` (ASVspoof 5).

    Args:
        scores: One log-likelihood ratio a clip, shape (clips,).
        labels: One label a clip, 1 bona fide and 0 spoof, shape (clips,).
        p_spoof: See `DetectionCosts`.
        c_miss: See `DetectionCosts`.
        c_fa: See `DetectionCosts`.

    Returns:
        `act_dcf`, not less than 0 and above 1 where deciding without looking would be cheaper, and `threshold`.

    Raises:
        ValueError: As `equal_error_rate` and `DetectionCosts`.
    """
    costs = DetectionCosts(p_spoof, c_miss, c_fa)
    return {"act_dcf": actual_cost(RankedScores(scores, labels).counted(), costs), "threshold": costs.threshold}


def actual_cost(counted: CountedScores, costs: DetectionCosts) -> float:
    """The actDCF of counted scores."""
    rejected_bonafide, rejected_spoof = counted.below(costs.threshold)
    frr = rejected_bonafide / counted.n_bonafide
    far = (counted.n_spoof - rejected_spoof) / counted.n_spoof
    return (costs.c_miss * (1 - costs.p_spoof) * frr + costs.c_fa * costs.p_spoof * far) / costs.default
