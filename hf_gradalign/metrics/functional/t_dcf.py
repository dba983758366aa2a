"""The tandem detection cost (t-DCF) of a countermeasure in front of a speaker verifier (ASVspoof 2019 and 2021)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_gradalign.metrics.functional.eer import official_equal_error, warn_of_problems
from hf_gradalign.metrics.functional.ranked_scores import TRIAL_TYPES, CountedScores, RankedScores, RankedTrials


class AsvErrorRates(NamedTuple):
    """The error rates of a speaker verifier at its operating point, as fractions.

    Attributes:
        miss: Share of target trials rejected.
        false_alarm: Share of bona fide non-target trials accepted.
        spoof_false_alarm: Share of spoofed trials accepted.
    """

    miss: float
    false_alarm: float
    spoof_false_alarm: float


# The organizers' verifier over all conditions, from the ASVspoof 5 evaluation package.
ASVSPOOF5_ASV = AsvErrorRates(
    miss=0.01880141010575793, false_alarm=0.01881016557566423, spoof_false_alarm=0.4607082907604729
)


def asv_error_rates(scores: ArrayLike, trial_types: Sequence[str] | NDArray) -> AsvErrorRates:
    """Compute the error rates of a verifier at its equal error point of targets against non-targets.

    The ASVspoof packages choose the operating point in this way. Trials with a score of the threshold or more are
    accepted.

    Args:
        scores: One number per trial, higher for the claimed speaker, shape (trials,).
        trial_types: "target", "nontarget" or "spoof" for each trial, shape (trials,).

    Raises:
        ValueError: If lengths differ, a score is not finite, a type is unknown, or one of the three types is missing.
    """
    trials = RankedTrials(scores, trial_types)
    target, nontarget, spoof = map(trials.of_type, TRIAL_TYPES)
    both = RankedScores(
        np.concatenate([target, nontarget]), np.concatenate([np.ones(len(target)), np.zeros(len(nontarget))])
    )
    threshold = official_equal_error(both.counted()).threshold
    return AsvErrorRates(
        miss=float(np.mean(target < threshold)),
        false_alarm=float(np.mean(nontarget >= threshold)),
        spoof_false_alarm=float(np.mean(spoof >= threshold)),
    )


TandemForm = Literal["2021", "2019"]


@dataclass(frozen=True)
class TandemCosts:
    """Priors and costs of the tandem. The defaults are from ASVspoof 2019 and 2021.

    Attributes:
        p_target: Prior probability of a target trial.
        p_nontarget: Prior probability of a bona fide trial of another speaker.
        p_spoof: Prior probability of a spoof.
        c_miss: Cost of rejecting a target, by the verifier or by the countermeasure.
        c_fa: Cost of accepting a non-target.
        c_fa_spoof: Cost of accepting a spoof.

    Raises:
        ValueError: If a prior or cost is negative, or the priors do not sum to 1.
    """

    p_target: float = (1 - 0.05) * 0.99
    p_nontarget: float = (1 - 0.05) * 0.01
    p_spoof: float = 0.05
    c_miss: float = 1.0
    c_fa: float = 10.0
    c_fa_spoof: float = 10.0

    def __post_init__(self) -> None:
        priors = (self.p_target, self.p_nontarget, self.p_spoof)
        if min(priors) < 0 or abs(sum(priors) - 1) > 1e-10:
            raise ValueError(f"Priors must not be negative and must sum to 1, but they are {priors}.")
        if min(self.c_miss, self.c_fa, self.c_fa_spoof) < 0:
            raise ValueError(f"Costs must not be negative: {self}.")


def min_tandem_detection_cost(
    scores: ArrayLike,
    labels: ArrayLike,
    asv: AsvErrorRates,
    *,
    form: TandemForm = "2021",
    costs: TandemCosts | None = None,
) -> dict[str, float]:
    """Compute the min t-DCF: the normalized cost of countermeasure and verifier at the best countermeasure threshold.

    With the verifier fixed at `asv`, the cost is linear in both error rates of the countermeasure:

    - `form="2021"` (Kinnunen et al., "Tandem assessment of spoofing countermeasures and automatic speaker
      verification: fundamentals", IEEE/ACM TASLP 28, 2020, equations 10 and 11; ASVspoof 2021 and 5):
      `C0 = p_target c_miss miss + p_nontarget c_fa false_alarm`, `C1 = p_target c_miss - C0`,
      `C2 = p_spoof c_fa_spoof spoof_false_alarm`, cost `(C0 + C1 FRR + C2 FAR) / (C0 + min(C1, C2))`.
    - `form="2019"` (legacy; Kinnunen et al., Odyssey 2018; ASVspoof 2019): without C0,
      `(C1 FRR + C2 FAR) / min(C1, C2)` with the same C1 and C2.

    The rates are those of `detection_error_curve`: among equal scores, bona fide clips are rejected first.

    Args:
        scores: One countermeasure score per clip, higher for bona fide, shape (clips,).
        labels: One label per clip, 1 bona fide and 0 spoof, shape (clips,).
        asv: The verifier's error rates (`asv_error_rates`, `ASVSPOOF5_ASV`).
        form: "2021" or "2019".
        costs: Priors and costs.

    Returns:
        `min_tdcf`, in [0, 1], and `threshold`, the score up to and including which a clip is rejected.

    Warns:
        UserWarning: As for `equal_error_rate`.

    Raises:
        ValueError: If the verifier's rates are not fractions, or leave no cost to normalize by; if `form` is unknown;
            as `equal_error_rate`.
    """
    weights = tandem_weights(asv, form, costs)
    counted = RankedScores(scores, labels).counted()
    warn_of_problems(counted)
    cost, index = cheapest_tandem(counted, weights)
    return {"min_tdcf": cost, "threshold": counted.official_threshold(index)}


def tandem_weights(
    asv: AsvErrorRates, form: TandemForm = "2021", costs: TandemCosts | None = None
) -> tuple[float, float, float]:
    """Return C0, C1 and C2 of the cost `C0 + C1 FRR + C2 FAR`; C0 is 0 in the legacy form."""
    costs = costs or TandemCosts()
    if form not in ("2021", "2019"):
        raise ValueError(f"There is no form {form!r} of the t-DCF. Choose '2021' or '2019'.")
    if not all(0 <= rate <= 1 for rate in asv):
        raise ValueError(f"The verifier's error rates must be fractions between 0 and 1, not percentages: {asv}.")
    c0 = costs.p_target * costs.c_miss * asv.miss + costs.p_nontarget * costs.c_fa * asv.false_alarm
    c2 = costs.p_spoof * costs.c_fa_spoof * asv.spoof_false_alarm
    if form == "2021":
        c1 = costs.p_target * costs.c_miss - c0
    else:
        # The same number, summed in the order of the legacy package.
        c1 = (
            costs.p_target * (costs.c_miss - costs.c_miss * asv.miss) - costs.p_nontarget * costs.c_fa * asv.false_alarm
        )
        c0 = 0.0
    if c1 < 0 or c0 + min(c1, c2) <= 0:
        raise ValueError(
            f"With {asv} there is no cost to normalize the t-DCF by (C0 {c0:g}, C1 {c1:g}, C2 {c2:g}). The t-DCF is "
            "undefined for a verifier that accepts no spoof, or that costs more than rejecting every trial."
        )
    return c0, c1, c2


def cheapest_tandem(counted: CountedScores, weights: tuple[float, float, float]) -> tuple[float, int]:
    """Compute the min t-DCF of counted scores, and the index of its threshold."""
    c0, c1, c2 = weights
    cost = c0 + c1 * counted.false_rejection_rate + c2 * counted.false_acceptance_rate
    index = int(np.argmin(cost))
    return float(cost[index] / (c0 + min(c1, c2))), index
