"""Error rates of the speaker verifier (ASV) that a countermeasure stands in front of."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_gradalign.metrics.checks import aligned
from hf_gradalign.metrics.equal_error import official_equal_error
from hf_gradalign.metrics.ranked_scores import RankedScores

TRIAL_TYPES = ("target", "nontarget", "spoof")


class AsvErrorRates(NamedTuple):
    """A verifier's operating point, in fractions.

    Attributes:
        miss: Share of target trials rejected.
        false_alarm: Share of bona fide non-target trials accepted.
        spoof_false_alarm: Share of spoofed trials accepted.
    """

    miss: float
    false_alarm: float
    spoof_false_alarm: float


# Of the organisers' verifier over all conditions, as the ASVspoof 5 evaluation package gives them.
ASVSPOOF5_ASV = AsvErrorRates(
    miss=0.01880141010575793, false_alarm=0.01881016557566423, spoof_false_alarm=0.4607082907604729
)


def asv_error_rates(scores: ArrayLike, trial_types: Sequence[str] | NDArray) -> AsvErrorRates:
    """Error rates of a verifier at its own equal error point of targets against non-targets.

    That is how the ASVspoof packages fix the operating point; trials with a score of the threshold or more are
    accepted.

    Args:
        scores: One number a trial, higher for the claimed speaker, shape (trials,).
        trial_types: "target", "nontarget" or "spoof" for each trial, shape (trials,).

    Raises:
        ValueError: If lengths differ, a score is not finite, a type is another, or one of the three types is missing.
    """
    target, nontarget, spoof = by_trial_type(scores, trial_types)
    both = RankedScores(
        np.concatenate([target, nontarget]), np.concatenate([np.ones(len(target)), np.zeros(len(nontarget))])
    )
    threshold = official_equal_error(both.counted()).threshold
    return AsvErrorRates(
        miss=float(np.mean(target < threshold)),
        false_alarm=float(np.mean(nontarget >= threshold)),
        spoof_false_alarm=float(np.mean(spoof >= threshold)),
    )


def by_trial_type(scores: ArrayLike, trial_types: Sequence[str] | NDArray) -> list[NDArray[np.float64]]:
    """The scores of target, non-target and spoofed trials.

    Raises:
        ValueError: If lengths differ, a score is not finite, a type is another, or one of the three types is missing.
    """
    scores, types = aligned(scores, np.asarray(trial_types), "trial types")
    if unknown := sorted(set(types.tolist()) - set(TRIAL_TYPES), key=str):
        raise ValueError(f"Trial types must be {', '.join(TRIAL_TYPES)}, but these were found: {unknown[:10]}.")
    parts = [scores[types == name] for name in TRIAL_TYPES]
    missing = [name for name, part in zip(TRIAL_TYPES, parts, strict=True) if len(part) == 0]
    if missing:
        raise ValueError(f"None of the {len(scores)} trials is of type {' or '.join(missing)}: all three are needed.")
    return parts
