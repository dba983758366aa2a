"""Equal error rate of each spoofing system."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from hf_gradalign.metrics.checks import checked
from hf_gradalign.metrics.equal_error import official_equal_error
from hf_gradalign.metrics.ranked_scores import RankedScores

_UNNAMED = "unknown"


def equal_error_rate_by_system(scores: ArrayLike, labels: ArrayLike, systems: Sequence[Any]) -> dict[str, float]:
    """Equal error rate of each spoofing system's clips against all bona fide clips.

    Other metrics, other columns and intervals: `break_down`.

    Args:
        scores: One number a clip, higher for bona fide, shape (clips,).
        labels: One label a clip, 1 bona fide and 0 spoof, shape (clips,).
        systems: The name of each clip's spoofing system, `clips` of them. That of a bona fide clip is not looked at.
            Spoofed clips without a name (None or empty) are counted together as "unknown".

    Returns:
        Fractions in [0, 1] by system, in the order of their names.

    Raises:
        ValueError: If there is not one system a clip, or as `equal_error_rate`.
    """
    scores, is_bonafide = checked(scores, labels)
    if len(systems) != len(scores):
        raise ValueError(f"There are {len(scores)} scores but {len(systems)} systems: give one of each a clip.")
    names = np.array([_UNNAMED if name is None or name == "" else str(name) for name in systems], dtype=object)
    rates = {}
    for name in sorted(set(names[~is_bonafide])):
        chosen = is_bonafide | (names == name)
        rates[name] = official_equal_error(RankedScores(scores[chosen], is_bonafide[chosen]).counted()).rate
    return rates
