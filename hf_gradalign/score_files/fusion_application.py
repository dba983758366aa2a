"""Fuses other score files with a fitted fusion, after checking that each file is from the right system."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_gradalign.score_files.clips import ScoreFileError
from hf_gradalign.score_files.fusion import Fusion
from hf_gradalign.score_files.joint_scores import JointScores

# The share of scores that may lie outside the range that a weight was fitted on.
_MAX_OUTSIDE = 0.5


def apply_fusion(fusion: Fusion, joint: JointScores) -> NDArray[np.float64]:
    """Fuse the scores of other files.

    Args:
        fusion: The fitted fusion.
        joint: Scores of the same systems in the same order (`join_systems`).

    Returns:
        Log-likelihood ratios (natural logarithm), shape (clips,).

    Warns:
        UserWarning: If more than half of the scores of a file lie outside the range that the weight of its system was
            fitted on, or the names of the files suggest another order.

    Raises:
        ScoreFileError: If the number of files differs from that of systems, or their names show another order.
    """
    require_same_systems(fusion.names, joint.sources)
    for system, source, scores in zip(fusion.systems, joint.sources, joint.scores.T, strict=True):
        warn_if_outside(scores, source, system.lowest, system.highest, system.name)
    return fusion(joint.scores)


def warn_if_outside(
    scores: NDArray[np.float64], source: str, lowest: float, highest: float, fitted_on: str, *, stacklevel: int = 3
) -> None:
    """Warn if scores do not look like the scores that a fusion or a calibration was fitted on.

    Args:
        scores: The scores to be fused or calibrated, shape (clips,).
        source: The file of these scores.
        lowest: The lowest score of the fit.
        highest: The highest score of the fit.
        fitted_on: The file of the fit.
        stacklevel: As for `warnings.warn`.

    Warns:
        UserWarning: If more than half of the scores lie outside the range of the fit.
    """
    outside = float(np.mean((scores < lowest) | (scores > highest)))
    if outside > _MAX_OUTSIDE:
        warnings.warn(
            f"{outside:.0%} of the scores of {source} ({scores.min():g} to {scores.max():g}) lie outside the range of "
            f"the scores of {fitted_on} that the fit used ({lowest:g} to {highest:g}). Check that it is the same "
            "system with the same kind of scores.",
            UserWarning,
            stacklevel=stacklevel,
        )


def require_same_systems(fitted: Sequence[str], applied: Sequence[str]) -> None:
    """Check, by number and names, that files may be from the systems that a fusion was fitted on.

    Names suggest another order if the words that distinguish the files appear in another order. "dev/aasist.txt
    dev/sls.txt" and "eval/sls.txt eval/aasist.txt" are in different orders.

    Args:
        fitted: The score files of the fit.
        applied: The score files to be fused.

    Warns:
        UserWarning: If some names suggest another order.

    Raises:
        ScoreFileError: If the number of files differs, or the name of each misplaced file shows its place.
    """
    if len(fitted) != len(applied):
        raise ScoreFileError(
            f"The fusion was fitted on {len(fitted)} systems ({', '.join(fitted)}), but there are {len(applied)} files "
            f"to fuse ({', '.join(applied)}). Give one file per system, in the same order."
        )
    place_of = _places(fitted, applied)
    misplaced = [number for number, place in enumerate(place_of) if place != number]
    if not misplaced:
        return
    shared = _shared_words(fitted, applied)
    in_order = ", ".join(f"{applied[place_of.index(number)]} for {name}" for number, name in enumerate(fitted))
    if all(shared[place_of[number], number] for number in misplaced):
        raise ScoreFileError(
            f"The names of the files to fuse suggest another order than in the fit: {in_order}. Give them in the order "
            "of the fit, or rename them if their names are misleading."
        )
    warnings.warn(
        f"The names of the files to fuse suggest another order than in the fit: {in_order}. Check the order.",
        UserWarning,
        stacklevel=2,
    )


def require_same_scoring(
    fitted: Mapping[str, Mapping[str, Any] | None], applied: Sequence[tuple[str, Mapping[str, Any] | None]]
) -> None:
    """Check, as far as known, that files were scored by the models that a fusion was fitted on.

    Args:
        fitted: The settings of the scores of each system (`FusedSystem.scored_with`), by its name.
        applied: Each file to be fused, with its settings.

    Warns:
        UserWarning: If a file was scored with other windows.

    Raises:
        ScoreFileError: If a file has scores of another model, or was not calibrated in the same way.
    """
    for (name, ours), (source, theirs) in zip(fitted.items(), applied, strict=True):
        if ours is None or theirs is None:
            continue
        if ours["model_sha256"] != theirs["model_sha256"]:
            right = [other for other, its in fitted.items() if its and its["model_sha256"] == theirs["model_sha256"]]
            of = f"the model of {right[0]}" if right else "another model"
            raise ScoreFileError(
                f"{source} has scores of {of}, but is in the position of {name}. Give the files in the order of the "
                "fit, or fit again."
            )
        if ours["calibration"] != theirs["calibration"]:
            raise ScoreFileError(
                f"{source} and {name}, which the fusion was fitted on, are not calibrated in the same way. Score both "
                "with the same model, or both with --raw_scores."
            )
        if ours != theirs:
            warnings.warn(
                f"{source} was scored with other windows than {name}, so the weights may be wrong for it.",
                UserWarning,
                stacklevel=2,
            )


def _places(fitted: Sequence[str], applied: Sequence[str]) -> list[int]:
    """Return for each applied file the fitted file whose name fits best, if the one at its own position does not."""
    from scipy.optimize import linear_sum_assignment  # slow to import

    shared = _shared_words(fitted, applied)
    # A bonus for the given order decides between equal sums.
    best, number = linear_sum_assignment(shared + 0.5 / len(fitted) * np.eye(len(fitted)), maximize=True)
    place_of = best[np.argsort(number)].tolist()
    moved = [number for number, place in enumerate(place_of) if place != number]
    return list(range(len(fitted))) if any(shared[number, number] for number in moved) else place_of


def _shared_words(fitted: Sequence[str], applied: Sequence[str]) -> NDArray[np.int64]:
    """Count the distinctive words that names have in common, shape (fitted, applied)."""
    return np.array([[len(one & other) for other in _distinctive(applied)] for one in _distinctive(fitted)])


def _distinctive(names: Sequence[str]) -> list[set[str]]:
    """Return the words and numbers of each name that not all names have."""
    words = [set(re.findall(r"[^\W\d_]+|\d+", name.lower())) for name in names]
    common = set.intersection(*words)
    return [own - common for own in words]
