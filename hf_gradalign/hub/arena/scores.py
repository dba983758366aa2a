"""A score file held against a data set's labels, as the Arena does it."""

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hf_gradalign.hub.arena.dataset import EQUAL_ERROR_RATE, SPOOF_ACCEPTANCE, ArenaDataset
from hf_gradalign.hub.arena.errors import ArenaError
from hf_gradalign.hub.arena.records import Calibration
from hf_gradalign.metrics import interpolated_equal_error_rate

# The tool ends a run beyond it.
MAX_SKIPPED = 0.05
_SHOWN = 5


@dataclass(frozen=True)
class ArenaScores:
    """Scores as the Arena reads them, in its text and with six decimals.

    Attributes:
        text: Of the score file, `utterance_id score` a line, in the order of the data set.
        scores: By utterance id, as the text has them.
        n_trials: Clips of the data set.
        n_skipped: Those without a score.
        metrics: In per cent, by their names in the Arena.
        threshold: The score at the equal error rate, None for spoof-only data sets.
    """

    text: str
    scores: Mapping[str, float]
    n_trials: int
    n_skipped: int
    metrics: Mapping[str, float]
    threshold: float | None

    @property
    def sha256(self) -> str:
        """Of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def judge_scores(
    scores: Mapping[str, float], dataset: ArenaDataset, calibration: Calibration | None = None
) -> ArenaScores:
    """Measure scores as the Arena will, from their six decimals.

    Args:
        scores: Higher for bona fide, by utterance id; those that are not finite count as not scored.
        dataset: What was scored.
        calibration: The threshold for data sets that have spoofed clips alone.

    Returns:
        The text of the score file, and what it amounts to.

    Raises:
        ArenaError: If more than 5 % of the clips have no score, if clips are scored that the data set does not have,
            if an id has a blank in it, or if a class or the calibration is missing.
    """
    if strange := [name for name in scores if name not in dataset.labels]:
        shown = ", ".join(strange[:_SHOWN]) + (", ..." if len(strange) > _SHOWN else "")
        raise ArenaError(
            f"{len(strange)} of {len(scores)} scored clips are not in {dataset.id} at {dataset.revision} ({shown}): "
            "these are scores of something else"
        )
    lines = {}
    for name in dataset.labels:
        if math.isfinite(scores.get(name, math.nan)):
            lines[name] = f"{scores[name]:.6f}"
    if blank := [name for name in lines if re.search(r"\s", name)]:
        raise ArenaError(f"the Arena's score files have no room for utterance ids with a blank, such as {blank[0]!r}")
    n_trials, n_skipped = len(dataset.labels), len(dataset.labels) - len(lines)
    if n_skipped > MAX_SKIPPED * n_trials:
        missing = [name for name in dataset.labels if name not in lines][:_SHOWN]
        raise ArenaError(
            f"{n_skipped} of {n_trials} clips of {dataset.id} have no score, such as {', '.join(missing)}; the Arena "
            f"takes no more than {MAX_SKIPPED:.0%}"
        )
    read = {name: float(number) for name, number in lines.items()}
    values = np.array(list(read.values()))
    labels = np.array([dataset.labels[name] for name in read])
    metrics, threshold = {}, None
    for metric in dataset.metrics:
        if metric == EQUAL_ERROR_RATE:
            if set(labels.tolist()) != {0, 1}:
                raise ArenaError(f"an equal error rate on {dataset.id} needs scored clips of both classes")
            point = interpolated_equal_error_rate(values, labels)
            metrics[metric], threshold = 100 * point["eer"], point["threshold"]
        else:
            metrics[metric] = 100 * _spoof_acceptance(values, labels, dataset, calibration)
    text = "".join(f"{name} {number}\n" for name, number in lines.items())
    return ArenaScores(text, read, n_trials, n_skipped, metrics, threshold)


def _spoof_acceptance(
    values: np.ndarray, labels: np.ndarray, dataset: ArenaDataset, calibration: Calibration | None
) -> float:
    """One minus the spoof rejection rate: the share of spoofed clips at or above the threshold."""
    if calibration is None:
        raise ArenaError(
            f"{dataset.id} is judged by the share of spoofed clips that a threshold accepts ({SPOOF_ACCEPTANCE}), and "
            "the threshold is that of the equal error rate on another data set: give it with --calibration_threshold"
        )
    if not math.isfinite(calibration.threshold):
        raise ArenaError(f"the calibrated threshold is {calibration.threshold}, not a finite number")
    if not (labels == 0).any():
        raise ArenaError(f"{dataset.id} has no spoofed clip with a score")
    return float(np.mean(values[labels == 0] >= calibration.threshold))
