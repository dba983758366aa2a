"""Metrics of decisions at a fixed threshold, which is chosen on development data."""

import math

import numpy as np
from numpy.typing import ArrayLike

from hf_gradalign.metrics.functional.checks import check_one_class
from hf_gradalign.metrics.functional.ranked_scores import CountedScores, RankedScores


def accuracy_at_threshold(scores: ArrayLike, labels: ArrayLike, threshold: float) -> dict[str, float]:
    """Compute accuracy, F1 and both error rates when clips with a score of `threshold` or more count as bona fide.

    Choose the threshold on other data: at the best threshold of the same data, accuracy means nothing. A threshold
    from `equal_error_rate` is the score of a clip that is rejected there but accepted here. All other decisions agree.

    Args:
        scores: One number per clip, higher for bona fide, shape (clips,).
        labels: One label per clip, 1 bona fide and 0 spoof, shape (clips,).
        threshold: The lowest score of a clip that is accepted, finite.

    Returns:
        Fractions in [0, 1]: `accuracy`; `balanced_accuracy`, the mean of both classes' accuracies; `f1` with bona fide
        as the positive class (as in scikit-learn for labels 0 and 1), `f1_spoof` with spoof as the positive class, and
        `f1_macro`, their mean; `false_rejection_rate` of bona fide clips and `false_acceptance_rate` of spoofed ones.

    Raises:
        ValueError: If the threshold is not finite; as for `equal_error_rate`.
    """
    return decisions(RankedScores(scores, labels).counted(), threshold)


def decisions(counted: CountedScores, threshold: float) -> dict[str, float]:
    """Compute `accuracy_at_threshold` of counted scores."""
    _require_finite(threshold)
    rejected_bonafide, rejected_spoof = counted.below(threshold)
    n_bonafide, n_spoof = counted.n_bonafide, counted.n_spoof
    errors = rejected_bonafide + n_spoof - rejected_spoof
    accepted_bonafide = n_bonafide - rejected_bonafide
    f1, f1_spoof = (2 * correct / (2 * correct + errors) for correct in (accepted_bonafide, rejected_spoof))
    frr, far = rejected_bonafide / n_bonafide, (n_spoof - rejected_spoof) / n_spoof
    return {
        "accuracy": 1 - errors / (n_bonafide + n_spoof),
        "balanced_accuracy": 1 - (frr + far) / 2,
        "f1": f1,
        "f1_spoof": f1_spoof,
        "f1_macro": (f1 + f1_spoof) / 2,
        "false_rejection_rate": frr,
        "false_acceptance_rate": far,
    }


def spoof_acceptance_rate(scores: ArrayLike, labels: ArrayLike, threshold: float) -> dict[str, float]:
    """Compute the share of spoofed clips that are accepted at a threshold, for sets without bona fide clips.

    It is 1 - SRR of the Arena (`srr_complement` of speech_spoof_bench 0.4.1, there in percent), which takes the
    threshold from the same system's interpolated equal error rate on another set (DeepVoice).

    Args:
        scores: One number per clip, higher for bona fide, shape (clips,).
        labels: One label per clip, 1 bona fide and 0 spoof, shape (clips,). Bona fide clips are ignored.
        threshold: The lowest score of a clip that is accepted, finite.

    Returns:
        `spoof_acceptance_rate`, a fraction in [0, 1].

    Raises:
        ValueError: If the threshold is not finite or there is no spoofed clip; as for `equal_error_rate`, except that
            one class is enough.
    """
    _require_finite(threshold)
    scores, is_bonafide = check_one_class(scores, labels)
    spoof = scores[~is_bonafide]
    if len(spoof) == 0:
        raise ValueError(
            f"All {len(scores)} clips are bona fide: the acceptance rate of spoofs needs at least one spoofed clip."
        )
    return {"spoof_acceptance_rate": 1.0 - float(np.mean(spoof < threshold))}


def _require_finite(threshold: float) -> None:
    if not math.isfinite(threshold):
        raise ValueError(f"The threshold must be a finite number, not {threshold}.")
