"""The architecture-agnostic detection cost (a-DCF), for one score that must reject other speakers and spoofs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_gradalign.metrics.functional.ranked_scores import RankedTrials

_BELOW_LOWEST = 1e-8  # the first threshold of the published curve is this far below the lowest score


@dataclass(frozen=True)
class AgnosticCosts:
    """Priors and costs; the defaults are a-DCF1 of the paper.

    Attributes:
        p_target: Prior probability of a target trial.
        p_nontarget: Prior probability of a bona fide trial of another speaker.
        p_spoof: Prior probability of a spoof.
        c_miss: Cost of rejecting a target.
        c_fa_nontarget: Cost of accepting a non-target.
        c_fa_spoof: Cost of accepting a spoof.

    Raises:
        ValueError: If a value is negative, the priors do not sum to 1, or the cost to normalize by is 0.
    """

    p_target: float = 0.9
    p_nontarget: float = 0.05
    p_spoof: float = 0.05
    c_miss: float = 1.0
    c_fa_nontarget: float = 10.0
    c_fa_spoof: float = 20.0

    def __post_init__(self) -> None:
        priors = (self.p_target, self.p_nontarget, self.p_spoof)
        if min(priors) < 0 or abs(sum(priors) - 1) > 1e-10:
            raise ValueError(f"Priors must not be negative and must sum to 1, but they are {priors}.")
        if min(self.c_miss, self.c_fa_nontarget, self.c_fa_spoof) < 0 or self.default <= 0:
            raise ValueError(
                f"Costs must not be negative, and accepting or rejecting all trials must cost something: {self}."
            )

    @property
    def default(self) -> float:
        """The smaller cost of accepting all trials or rejecting all trials, by which costs are normalized."""
        accept_all = self.c_fa_nontarget * self.p_nontarget + self.c_fa_spoof * self.p_spoof
        return min(accept_all, self.c_miss * self.p_target)


# Track 2 of ASVspoof 5, as in the current version of its evaluation package.
ASVSPOOF5_AGNOSTIC_COSTS = AgnosticCosts(
    p_target=(1 - 0.05) * 0.99, p_nontarget=(1 - 0.05) * 0.01, p_spoof=0.05, c_fa_spoof=10.0
)


def min_agnostic_detection_cost(
    scores: ArrayLike, trial_types: Sequence[str] | NDArray, *, costs: AgnosticCosts | None = None
) -> dict[str, float]:
    """Compute the minimum a-DCF: the normalized cost of a spoofing-robust speaker verifier at its best threshold.

    `min over t of (c_miss p_target MISS(t) + c_fa_nontarget p_nontarget FA_nontarget(t) + c_fa_spoof p_spoof
    FA_spoof(t)) / min(c_miss p_target, c_fa_nontarget p_nontarget + c_fa_spoof p_spoof)` (Shim et al., "a-DCF: an
    architecture agnostic metric with application to spoofing-robust speaker verification", Odyssey 2024). Trials are
    rejected one by one; among equals, targets come first, then non-targets, then spoofs, as in the published code.

    Args:
        scores: One score of the whole system per trial, higher for the claimed speaker's bona fide speech, shape
            (trials,).
        trial_types: "target", "nontarget" or "spoof" for each trial, shape (trials,).
        costs: Priors and costs; for track 2 of ASVspoof 5, `ASVSPOOF5_AGNOSTIC_COSTS`.

    Returns:
        `a_dcf`, in [0, 1], and `threshold`, the score up to and including which a trial is rejected.

    Raises:
        ValueError: If lengths differ, a score is not finite, a type is unknown, or one of the three types is missing.
    """
    costs = costs or AgnosticCosts()
    trials = RankedTrials(scores, trial_types)
    cost, index = cheapest_agnostic(trials.rejected(), costs)
    threshold = trials.scores[index - 1] if index else trials.scores[0] - _BELOW_LOWEST
    return {"a_dcf": cost, "threshold": float(threshold)}


def cheapest_agnostic(rejected: NDArray[np.int64], costs: AgnosticCosts) -> tuple[float, int]:
    """Compute the minimum a-DCF and the index of its threshold from numbers of rejected trials.

    Args:
        rejected: See `RankedTrials.rejected`; some trials of each type, shape (3, trials + 1).
        costs: Priors and costs.
    """
    n_trials = rejected[:, -1:]
    miss = rejected[0] / n_trials[0]
    accept_nontarget, accept_spoof = (n_trials[1:] - rejected[1:]) / n_trials[1:]
    cost = (
        costs.c_miss * costs.p_target * miss
        + costs.c_fa_nontarget * costs.p_nontarget * accept_nontarget
        + costs.c_fa_spoof * costs.p_spoof * accept_spoof
    ) / costs.default
    index = int(np.argmin(cost))
    return float(cost[index]), index
