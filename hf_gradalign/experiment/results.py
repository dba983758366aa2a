"""Scores, metrics and results of a run, as files and as a table."""

import json
import platform
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import accelerate
import datasets
import numpy
import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy
from transformers import EvalPrediction, TrainerState
from transformers.trainer import TRAINER_STATE_NAME

import hf_gradalign
from hf_gradalign.data import LABEL_NAMES
from hf_gradalign.experiment.arguments import RunArguments
from hf_gradalign.experiment.file_names import RESULTS_NAME
from hf_gradalign.metrics import equal_error_rate, equal_error_rate_by_system
from hf_gradalign.metrics.functional.eer import score_problems
from hf_gradalign.metrics.functional.ranked_scores import RankedScores
from hf_gradalign.models import LABEL2ID
from hf_gradalign.utils.files import write_text_atomically


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


@dataclass
class RunResults:
    """A run's findings; rates are fractions in [0, 1].

    Attributes:
        metrics: `eval_eer`, `test_eer`, `eval_loss`, `train_loss`, `train_runtime` (s), ...
        eer_by_system: Split to spoofing system to EER.
        conflict_rate: Fraction of the updates in which any two views conflicted; None with one view.
        conflict_rate_by_epoch: The same by epoch, from the first.
        averaged_checkpoints: How many checkpoints the weights are the mean of; 0 where none were averaged.
        nonfinite_updates: Updates whose gradients were not finite, those that fp16's loss scaling left out included.
        skipped_updates: Updates that `--on_nonfinite skip` dropped.
        remarks: What is odd about the scores, a sentence each, which begins with the split.
        settings: The arguments that the run was given, and the defaults it took; `views` has the recipes by name.
    """

    metrics: dict[str, float]
    eer_by_system: dict[str, dict[str, float]]
    conflict_rate: float | None
    conflict_rate_by_epoch: dict[int, float]
    averaged_checkpoints: int
    nonfinite_updates: int
    settings: dict[str, Any]
    versions: dict[str, str] = field(default_factory=lambda: package_versions())
    remarks: list[str] = field(default_factory=list)
    skipped_updates: int = 0

    def write(self, folder: str | Path) -> Path:
        """Write `all_results.json` into `folder`."""
        content: dict[str, Any] = dict(self.metrics)
        for split, rates in self.eer_by_system.items():
            content[f"{split}_eer_by_system"] = rates
        content["train_conflict_rate"] = self.conflict_rate
        content["train_conflict_rate_by_epoch"] = list(self.conflict_rate_by_epoch.values())
        content["averaged_checkpoints"] = self.averaged_checkpoints
        content["train_nonfinite_updates"] = self.nonfinite_updates
        content["train_skipped_updates"] = self.skipped_updates
        if self.remarks:
            content["remarks"] = self.remarks
        content["settings"] = self.settings
        content["versions"] = self.versions
        path = Path(folder, RESULTS_NAME)
        write_text_atomically(path, json.dumps(content, indent=2) + "\n")
        return path


def describe_settings(run: RunArguments) -> dict[str, Any]:
    """The arguments of a run, ready for JSON and without tokens."""
    # to_dict masks every *_token.
    settings = {"model": asdict(run.model), "data": asdict(run.data), "training": run.training.to_dict()}
    return settings | {"views": run.data.view_recipes}


def read_train_metrics(folder: str | Path) -> dict[str, float]:
    """What an earlier start of the run found of its training; empty where it did not get to write it."""
    path = Path(folder, RESULTS_NAME)
    if not path.is_file():
        return {}
    results = json.loads(path.read_text(encoding="utf-8"))
    names = ("epoch", "total_flos", "train_loss", "train_runtime", "train_samples_per_second", "train_steps_per_second")
    return {name: results[name] for name in names if name in results}


def without_timing(metrics: dict[str, float]) -> dict[str, float]:
    """Metrics without those that say how long something took."""
    timing = ("_runtime", "_samples_per_second", "_steps_per_second")
    return {name: value for name, value in metrics.items() if not name.endswith(timing)}


def steps_of(checkpoint: str) -> int:
    """The number of updates behind a checkpoint."""
    return TrainerState.load_from_json(str(Path(checkpoint, TRAINER_STATE_NAME))).global_step


def package_versions() -> dict[str, str]:
    """Versions of what a run's figures depend on."""
    packages = (hf_gradalign, torch, transformers, datasets, accelerate, numpy)
    return {"python": platform.python_version()} | {package.__name__: package.__version__ for package in packages}


_SPLITS = {"eval": "validation", "test": "test"}


def summary_table(results: RunResults, method: str) -> str:
    """Equal error rates by split and system and conflict rates by epoch, in per cent, as text."""
    lines = ["Equal error rate (%)"]
    for prefix, split in _SPLITS.items():
        if f"{prefix}_eer" not in results.metrics:
            continue
        lines.append(f"  {split:<12}{100 * results.metrics[f'{prefix}_eer']:6.2f}")
        for system, rate in sorted(results.eer_by_system.get(prefix, {}).items()):
            lines.append(f"    {system:<10}{100 * rate:6.2f}")
    views = results.settings.get("views", {})
    if len(views) == 1:
        lines.append(f"One view ({', '.join(views)}), so no gradients to align")
    else:
        which = f"any two of the views ({', '.join(views)})" if len(views) > 2 else "the views"
        lines.append(f"Updates in which the gradients of {which} conflicted (%), alignment: {method}")
    if results.conflict_rate is not None:
        by_epoch = [f"{100 * rate:.0f}" for rate in results.conflict_rate_by_epoch.values()]
        lines.append(f"  {'all':<12}{100 * results.conflict_rate:6.2f}")
        lines.append(f"  {'by epoch':<12}{' '.join(f'{rate:>5}' for rate in by_epoch)}")
    if results.nonfinite_updates:
        lines.append(f"  {results.nonfinite_updates} updates had gradients that were not finite")
    if results.skipped_updates:
        lines.append(f"  {results.skipped_updates} updates were skipped (--on_nonfinite skip)")
    lines += results.remarks
    return "\n".join(lines)
