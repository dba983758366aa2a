"""Countermeasure scores of a split, their equal error rate, and the score file."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy
from transformers import EvalPrediction

from hf_gradalign.data import LABEL_NAMES
from hf_gradalign.metrics import equal_error_rate, equal_error_rate_by_system
from hf_gradalign.metrics.functional.eer import score_problems
from hf_gradalign.metrics.functional.ranked_scores import RankedScores
from hf_gradalign.models import LABEL2ID


def countermeasure_scores(predictions: Any) -> NDArray[np.float64]:
    """Scores of a classifier's logits: bona fide minus spoof, higher for bona fide.

    Args:
        predictions: Logits of shape (N, 2), or a tuple that starts with them, or a list of such batches.

    Returns:
        Shape (N,).
    """
    logits = _logits(predictions)
    return logits[:, LABEL2ID["bonafide"]] - logits[:, LABEL2ID["spoof"]]


class CountermeasureMetrics:
    """`compute_metrics` of the Trainer: the equal error rate, a fraction in [0, 1], its threshold, and the loss.

    Of clips of one class there is the loss alone.

    The loss is taken over all clips at once. The Trainer's own is a mean over batches, which with class weights
    depends on how the clips fall into batches; this one takes its place.

    Args:
        class_weights: Weight of each class in the loss, in the order of the labels; equal where there are none.
    """

    def __init__(self, class_weights: Sequence[float] | None = None) -> None:
        self._weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float64)
        self._batches: list[tuple[NDArray[np.float64], NDArray[np.int64]]] = []

    def reset(self) -> None:
        """Forget the batches of an evaluation that was broken off; the trainer calls this before each."""
        self._batches = []

    def __call__(self, prediction: EvalPrediction, compute_result: bool = True) -> dict[str, float]:
        """Metrics of one evaluation.

        Args:
            prediction: All of it, or with `batch_eval_metrics` one batch.
            compute_result: False where further batches follow; what is returned is then empty.

        Raises:
            FloatingPointError: If a score is not finite.
        """
        self._batches.append((_logits(prediction.predictions), class_indices(prediction.label_ids)))
        if not compute_result:
            return {}
        logits, labels = (np.concatenate(parts) for parts in zip(*self._batches, strict=True))
        self.reset()
        metrics: dict[str, float] = {}
        scores, bona_fide = countermeasure_scores(logits), labels == LABEL2ID["bonafide"]
        if n_bad := np.count_nonzero(~np.isfinite(scores)):
            raise FloatingPointError(
                f"{n_bad:,} of {len(scores):,} clips of the evaluation have a score that is NaN or infinite: the model "
                "has diverged. Train with a lower --learning_rate, or from an earlier checkpoint"
            )
        if len(np.unique(bona_fide)) == 2:
            with warnings.catch_warnings():
                # A model that has only begun to learn may be worse than chance, evaluation after evaluation.
                warnings.filterwarnings("ignore", message=".*scores may be inverted", category=UserWarning)
                result = equal_error_rate(scores, bona_fide.astype(int))
            metrics = {"eer": result["eer"], "eer_threshold": result["threshold"]}
        loss = cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels), weight=self._weights)
        return metrics | {"loss": float(loss)}


def class_indices(label_ids: Any) -> NDArray[np.int64]:
    """Labels as the Trainer gives them (one array, or a list of batches), shape (N,)."""
    return np.concatenate([_array(labels, np.int64) for labels in _batches(label_ids)])


def _logits(predictions: Any) -> NDArray[np.float64]:
    batches = [batch[0] if isinstance(batch, tuple) else batch for batch in _batches(predictions)]
    return np.concatenate([_array(batch, np.float64) for batch in batches])


def _batches(values: Any) -> list[Any]:
    """With `eval_do_concat_batches` off the Trainer gives a list of what it otherwise puts together."""
    return values if isinstance(values, list) else [values]


def _array(values: Any, dtype: type) -> NDArray[Any]:
    if isinstance(values, torch.Tensor):  # with `batch_eval_metrics`, where the device left it; NumPy has no bfloat16
        values = values.cpu().double() if values.is_floating_point() else values.cpu()
    return np.asarray(values, dtype=dtype)


def error_rates_by_system(
    scores: NDArray[np.float64], labels: Sequence[int], systems: Sequence[str] | None
) -> dict[str, float]:
    """EER of each spoofing system's clips against all bona fide ones; empty without systems, or with one class."""
    bona_fide = (np.asarray(labels) == LABEL2ID["bonafide"]).astype(int)
    if systems is None or len(np.unique(bona_fide)) < 2:
        return {}
    return equal_error_rate_by_system(scores, bona_fide, [str(system) for system in systems])


def remarks_on(scores: NDArray[np.float64], labels: Sequence[int]) -> list[str]:
    """What is odd about the scores of a trained model, a sentence each: inverted, equal, or of one class."""
    bona_fide = np.asarray(labels) == LABEL2ID["bonafide"]
    if len(np.unique(bona_fide)) < 2:
        name = LABEL_NAMES[labels[0]]
        return [f"All {len(bona_fide)} clips are {name}: they are scored, and there is no equal error rate."]
    return score_problems(RankedScores(scores, bona_fide).counted())
