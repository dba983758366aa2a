"""Warnings for scores that are not log-likelihood ratios, for the metrics that need these."""

import warnings

from hf_gradalign.metrics.functional.ranked_scores import CountedScores


def ratio_problems(counted: CountedScores) -> list[str]:
    """Look for other scores where log-likelihood ratios are needed.

    Ratios of a detector lie on both sides of 0. Probabilities and percentages do not.

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
