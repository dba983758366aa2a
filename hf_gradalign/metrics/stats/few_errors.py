"""Warnings for samples that are too small for a bootstrap: few errors, or few speakers."""

from __future__ import annotations

import warnings

from hf_gradalign.metrics.functional.eer import official_equal_error
from hf_gradalign.metrics.functional.ranked_scores import CountedScores

# In simulations with normally distributed scores, 95 % intervals of the EER, actDCF, Cllr and AUC contain the true
# value in 88 to 97 % of the samples with five errors of the smaller class, and in 56 to 79 % of the samples with one
# error.
_FEW_ERRORS = 5
# With 5 speakers, 95 % intervals contain the true EER in 82 % of the samples. With 4, 9 to 16 % of the paired tests of
# equal systems have p < 0.05.
FEW_CLUSTERS = 10


def sampling_problems(
    counted: CountedScores,
    n_clusters: int | None = None,
    *,
    classes: tuple[str, str] = ("bona fide", "spoofed"),
    unit: str = "clips",
) -> list[str]:
    """Return reasons why bootstrap intervals and p-values of these scores may be wrong.

    Args:
        counted: The scores, counted once each.
        n_clusters: The number of speakers (or other clusters) of the class that has the fewest; None if single clips
            are drawn.
        classes: Names of the class to accept and of the other class.
        unit: The name of what is scored, in the plural.

    Returns:
        One sentence or two per problem.
    """
    problems = []
    rate = official_equal_error(counted).rate
    n_smaller, name = min(zip((counted.n_bonafide, counted.n_spoof), classes, strict=True))
    n_errors = max(1, round(min(rate, 1 - rate) * n_smaller))
    if rate in (0.0, 1.0):
        problem = (
            f"The scores separate the classes, so all draws have an equal error rate of {100 * rate:g} %, and its "
            "interval and p-value mean nothing."
        )
        if n_clusters is None:  # clips of one speaker are not independent
            bonafide, spoof = (100 * highest_without_error(n) for n in (counted.n_bonafide, counted.n_spoof))
            problem += (
                f" With {counted.n_bonafide} {classes[0]} and {counted.n_spoof} {classes[1]} {unit}, true error rates "
                f"of {bonafide:.2g} and {spoof:.2g} % would still make no error in 1 of 20 sets."
            )
        problems.append(problem)
    elif n_errors < _FEW_ERRORS:
        problems.append(
            f"An equal error rate of {100 * rate:.3g} % is about {n_errors} of the {n_smaller} {name} "
            f"{unit}. With fewer than {_FEW_ERRORS}, bootstrap intervals are often too narrow. Evaluate more {unit}."
        )
    if n_clusters is not None and n_clusters < FEW_CLUSTERS:
        problems.append(
            f"Only {n_clusters} of the speakers (or other values that are drawn) have {unit} of one of the classes. "
            f"With fewer than {FEW_CLUSTERS}, bootstrap intervals are too narrow and p-values too small."
        )
    return problems


def one_class_problems(n_wrong: int, n_clips: int, n_clusters: int | None = None) -> list[str]:
    """Return reasons why the bootstrap interval of one class's error rate may be wrong.

    Args:
        n_wrong: The number of clips on the wrong side of a threshold.
        n_clips: The number of clips.
        n_clusters: The number of speakers (or other clusters); None if single clips are drawn.

    Returns:
        One sentence or two per problem.
    """
    problems = []
    n_errors = min(n_wrong, n_clips - n_wrong)
    if n_errors == 0:
        if n_clusters is None:
            n, drawn = n_clips, f"{n_clips} clips"
        else:
            n, drawn = n_clusters, f"{n_clusters} speakers (or other values that are drawn) whose clips are alike"
        problems.append(
            f"{'Every' if n_wrong else 'No'} clip is wrong, so the interval has no width. With {drawn}, a true rate "
            f"that is {100 * highest_without_error(n):.2g} points away would still give this in 1 of 20 sets."
        )
    elif n_errors < _FEW_ERRORS:
        problems.append(
            f"Only {n_errors} of the {n_clips} clips {'is' if n_errors == 1 else 'are'} "
            f"{'wrong' if n_errors == n_wrong else 'right'}. With fewer than {_FEW_ERRORS}, bootstrap intervals are "
            "often too narrow. Evaluate more clips."
        )
    if n_clusters is not None and n_clusters < FEW_CLUSTERS:
        problems.append(
            f"The clips are of only {n_clusters} speakers (or other values that are drawn). With fewer than "
            f"{FEW_CLUSTERS}, bootstrap intervals are too narrow."
        )
    return problems


def highest_without_error(n: int) -> float:
    """Return the error rate, as a fraction, with which a sample of n clips has no error in 5 % of the cases."""
    return 1 - 0.05 ** (1 / n)


def warn_of_sampling(counted: CountedScores, n_clusters: int | None = None) -> None:
    """Issue a `UserWarning` for each of the `sampling_problems`, at the line that called the bootstrap."""
    for problem in sampling_problems(counted, n_clusters):
        warnings.warn(problem, UserWarning, stacklevel=3)
