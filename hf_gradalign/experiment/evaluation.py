"""Countermeasure scores of a split, their equal error rate, and the score file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import EvalPrediction

from hf_gradalign.metrics import equal_error_rate, equal_error_rate_by_system
from hf_gradalign.models import LABEL2ID


def countermeasure_scores(predictions: Any) -> NDArray[np.float64]:
    """Scores of a classifier's logits: bona fide minus spoof, higher for bona fide.

    Args:
        predictions: Logits of shape (N, 2), or a tuple that starts with them.

    Returns:
        Shape (N,).
    """
    logits = np.asarray(predictions[0] if isinstance(predictions, tuple) else predictions, dtype=np.float64)
    return logits[:, LABEL2ID["bonafide"]] - logits[:, LABEL2ID["spoof"]]


class CountermeasureMetrics:
    """`compute_metrics` of the Trainer: the equal error rate, a fraction in [0, 1], and its threshold."""

    def __call__(self, prediction: EvalPrediction) -> dict[str, float]:
        """Metrics of one evaluation.

        Raises:
            ValueError: If the scores are not finite, or the split holds one class only.
        """
        labels = np.asarray(prediction.label_ids) == LABEL2ID["bonafide"]
        result = equal_error_rate(countermeasure_scores(prediction.predictions), labels.astype(int))
        return {"eer": result["eer"], "eer_threshold": result["threshold"]}


def error_rates_by_system(
    scores: NDArray[np.float64], labels: Sequence[int], systems: Sequence[str] | None
) -> dict[str, float]:
    """EER of each spoofing system's clips against all bona fide ones; empty without systems."""
    if systems is None:
        return {}
    bona_fide = (np.asarray(labels) == LABEL2ID["bonafide"]).astype(int)
    return equal_error_rate_by_system(scores, bona_fide, [str(system) for system in systems])


def write_scores(path: Path, utterance_ids: Sequence[str], scores: NDArray[np.float64]) -> None:
    """Write a line `utterance_id score` for each clip, as ASVspoof and the Arena do."""
    lines = [f"{utterance} {score:.6f}\n" for utterance, score in zip(utterance_ids, scores, strict=True)]
    path.write_text("".join(lines), encoding="utf-8")
