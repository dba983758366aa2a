"""Warnings for scores that are not log-likelihood ratios, for the metrics that need these."""

import warnings

from hf_gradalign.metrics.functional.ranked_scores import CountedScores


def ratio_problems(counted: CountedScores) -> list[str]:
    """Look for probabilities where log-likelihood ratios are needed.

    Ratios of a detector lie on both sides of 0. Probabilities lie in [0, 1], and those of spoof with the sign changed
    in [-1, 0].

    Returns:
        A sentence or two if the scores look like probabilities.
    """
    lowest, highest = counted.lowest_score, counted.highest_score
    if lowest == highest or not (0 <= lowest <= highest <= 1 or -1 <= lowest <= highest <= 0):
        return []
    return [
        f"All scores lie between {lowest:.3g} and {highest:.3g}, as probabilities do, but actDCF and Cllr are only "
        "meaningful for log-likelihood ratios. Calibrate the scores first (hf-gradalign calibrate), or leave both out."
    ]


def warn_of_no_ratios(counted: CountedScores) -> None:
    """Issue a `UserWarning` for each of the `ratio_problems`, at the line that called the metric."""
    for problem in ratio_problems(counted):
        warnings.warn(problem, UserWarning, stacklevel=3)
