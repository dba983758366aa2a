"""Warnings for suspicious but valid scores, one sentence each."""

import warnings

import numpy as np

from hf_gradalign.metrics.functional.eer import official_equal_error
from hf_gradalign.metrics.functional.ranked_scores import CountedScores, RankedScores

# Ties are told of where the order of equals moves the equal error rate by more than this.
_TIES_MATTER = 0.001
# So few clips may well have two different scores only.
_FEW_CLIPS = 10


def score_problems(counted: CountedScores) -> list[str]:
    """Look for equal, binary, tied and inverted scores.

    Returns:
        A sentence for each problem, most basic first; empty where there is none.
    """
    ranked = counted.ranked
    lowest, highest = counted.lowest_score, counted.highest_score
    if lowest == highest:
        return [
            f"All {len(ranked)} scores are equal ({lowest:g}), so they carry no information on the class: the equal "
            "error rate is given as 0.5. Check that the model's output is what you scored."
        ]
    problems = []
    rate, at_best = official_equal_error(counted).rate, _with_spoof_first(ranked)
    if len(ranked.starts) == 2 and len(ranked) > _FEW_CLIPS:
        problems.append(
            f"There are only two different scores ({lowest:g} and {highest:g}): these look like decisions, not scores, "
            "and a metric that sweeps a threshold needs scores."
        )
    elif at_best + _TIES_MATTER < rate:
        problems.append(
            f"Clips of both classes share scores ({len(ranked)} clips, {len(ranked.starts)} different scores). The "
            f"official equal error rate, {rate:.4f}, counts such ties against the detector; counted in its favour they "
            f"would give {at_best:.4f}. Keep more digits, or score with logits where probabilities are all 0 or 1."
        )
    if at_best > 0.5:
        problems.append(
            f"The equal error rate is {rate:.4f}, above 0.5: the scores may be inverted. They must be higher for bona "
            "fide clips, and a label of 1 must mean bona fide."
        )
    return problems


def warn_of_problems(counted: CountedScores) -> None:
    """A `UserWarning` for each of the `score_problems`, on behalf of the metric that was called."""
    for problem in score_problems(counted):
        warnings.warn(problem, UserWarning, stacklevel=3)


def _with_spoof_first(ranked: RankedScores) -> float:
    """The official equal error rate if among equals the spoofed clips came first."""
    bonafide = np.add.reduceat(ranked.is_bonafide, ranked.starts, dtype=np.int64)
    sizes = np.diff(np.append(ranked.starts, len(ranked)))
    if not np.any((bonafide > 0) & (bonafide < sizes)):
        return official_equal_error(ranked.counted()).rate
    # With the signs turned, bona fide clips come first on the way down, and the rates are those of the other decision.
    turned = RankedScores(-ranked.scores, ranked.is_bonafide)
    return 1.0 - official_equal_error(turned.counted()).rate
