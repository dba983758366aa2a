"""Scores, metrics and results of a run, as files and as a table."""

import json
import platform
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import accelerate
import datasets
import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from transformers import EvalPrediction, TrainerState
from transformers.trainer import TRAINER_STATE_NAME

import hf_gradalign
from hf_gradalign.data import LABEL_NAMES
from hf_gradalign.experiment.arguments import RunArguments
from hf_gradalign.experiment.file_names import RESULTS_NAME
from hf_gradalign.metrics import equal_error_rate, equal_error_rate_by_system
from hf_gradalign.metrics.functional.eer import score_problems
from hf_gradalign.metrics.functional.ranked_scores import RankedScores
from hf_gradalign.models import LABEL2ID, SpoofDetectorConfig
from hf_gradalign.models.label_order import output_labels
from hf_gradalign.models.losses import CROSS_ENTROPY, detection_loss
from hf_gradalign.utils.files import write_text_atomically

SPLITS_BY_PREFIX = {"eval": "validation", "test": "test"}
"""The splits that are evaluated, by the Trainer's prefix of their metrics."""


def countermeasure_scores(predictions: Any, bonafide: int = LABEL2ID["bonafide"]) -> NDArray[np.float64]:
    """Return the scores of a classifier from its logits: bona fide minus spoof, higher for bona fide.

    Args:
        predictions: Logits of shape (N, 2), or a tuple that starts with them, or a list of such batches.
        bonafide: Index of the bona fide logit.

    Returns:
        Shape (N,).

    Raises:
        ValueError: If there are not two logits per clip.
    """
    logits = _logits(predictions)
    if logits.ndim != 2 or logits.shape[1] != len(LABEL2ID):
        raise ValueError(
            f"the logits have shape {logits.shape}, not (N, {len(LABEL2ID)}): load the model with "
            "hf_gradalign.models.load_audio_classifier, which gives it the outputs spoof and bonafide"
        )
    return logits[:, bonafide] - logits[:, 1 - bonafide]


class CountermeasureMetrics:
    """`compute_metrics` of the Trainer: the equal error rate, a fraction in [0, 1], its threshold, and the loss.

    For clips of one class it returns only the loss.

    The loss is computed over all clips at once.

    Args:
        class_weights: Weight of each class in the loss, in the order of the labels. By default, the weights of the
            model that a `GradientAlignmentTrainer` evaluates (`config.class_weights`), or equal weights if it has none.
        loss: Name of a loss (`hf_gradalign.models.losses`). By default, the model's loss, or cross-entropy if it has
            none.
        loss_options: All options of `loss`; the published ones by default.
    """

    def __init__(
        self,
        class_weights: Sequence[float] | None = None,
        loss: str | None = None,
        loss_options: Mapping[str, float] | None = None,
    ) -> None:
        self._given = (class_weights, loss, loss_options)
        self._batches: list[tuple[NDArray[np.float64], NDArray[np.int64]]] = []
        self.use_model(None)

    def use_model(self, model: Any) -> None:
        """Use the order of a model's labels, and its loss and class weights where none were given.

        A `GradientAlignmentTrainer` calls this before each evaluation. Labels without known names are assumed to be
        spoof (0) and bonafide (1).
        """
        config = getattr(model, "config", None)
        names = cast("dict[int, str]", getattr(config, "id2label", None) or {})
        try:
            order = output_labels(names) if names else LABEL_NAMES
        except ValueError:  # the label names are unknown
            order = LABEL_NAMES
        self._bonafide = order.index("bonafide") if len(order) == len(LABEL_NAMES) else LABEL2ID["bonafide"]
        weights, self._loss, self._loss_options = self._given
        if weights is None:
            weights = getattr(config, "class_weights", None)
        if self._loss is None and isinstance(config, SpoofDetectorConfig):
            self._loss, self._loss_options = config.loss, config.loss_options
        self._weights = None if weights is None else torch.tensor(weights, dtype=torch.float64)

    def reset(self) -> None:
        """Drop the batches of an unfinished evaluation. The trainer calls this before each evaluation."""
        self._batches = []

    def __call__(self, prediction: EvalPrediction, compute_result: bool = True) -> dict[str, float]:
        """Compute the metrics of one evaluation.

        Args:
            prediction: The whole evaluation, or one batch with `batch_eval_metrics`.
            compute_result: False if more batches follow; then the result is empty.

        Raises:
            FloatingPointError: If a score is not finite.
        """
        self._batches.append((_logits(prediction.predictions), class_indices(prediction.label_ids)))
        if not compute_result:
            return {}
        logits, labels = (np.concatenate(parts) for parts in zip(*self._batches, strict=True))
        self.reset()
        metrics: dict[str, float] = {}
        scores, bona_fide = countermeasure_scores(logits, self._bonafide), labels == self._bonafide
        if n_bad := np.count_nonzero(~np.isfinite(scores)):
            raise FloatingPointError(
                f"{n_bad:,} of {len(scores):,} clips of the evaluation have a score that is NaN or infinite: the model "
                "has diverged. Train with a lower --learning_rate, or from an earlier checkpoint"
            )
        if len(np.unique(bona_fide)) == 2:
            with warnings.catch_warnings():
                # A model at the beginning of training may be worse than chance for several evaluations. `remarks_on`
                # gives both warnings for the trained model.
                told_later = ".*(scores may be inverted|of both classes share scores)"
                warnings.filterwarnings("ignore", message=told_later, category=UserWarning)
                result = equal_error_rate(scores, bona_fide.astype(int))
            metrics = {"eer": result["eer"], "eer_threshold": result["threshold"]}
        loss = detection_loss(
            torch.from_numpy(logits),
            torch.from_numpy(labels),
            self._loss or CROSS_ENTROPY,
            self._loss_options,
            self._weights,
        )
        return metrics | {"loss": float(loss)}


def class_indices(label_ids: Any) -> NDArray[np.int64]:
    """Return the labels that the Trainer gives (one array, or a list of batches) as an array of shape (N,)."""
    return np.concatenate([_array(labels, np.int64) for labels in _batches(label_ids)])


def _logits(predictions: Any) -> NDArray[np.float64]:
    batches = [batch[0] if isinstance(batch, tuple) else batch for batch in _batches(predictions)]
    return np.concatenate([_array(batch, np.float64) for batch in batches])


def _batches(values: Any) -> list[Any]:
    """Return a list of batches. Without `eval_do_concat_batches` the Trainer gives a list, else one array."""
    return values if isinstance(values, list) else [values]


def _array(values: Any, dtype: type) -> NDArray[Any]:
    if isinstance(values, torch.Tensor):  # with `batch_eval_metrics`, on the device; NumPy has no bfloat16
        values = values.cpu().double() if values.is_floating_point() else values.cpu()
    return np.asarray(values, dtype=dtype)


def error_rates_by_system(
    scores: NDArray[np.float64], labels: Sequence[int], systems: Sequence[str | None] | None
) -> dict[str, float]:
    """Return the EER of each spoofing system against all bona fide clips; empty without systems or with one class."""
    bona_fide = (np.asarray(labels) == LABEL2ID["bonafide"]).astype(int)
    if systems is None or len(np.unique(bona_fide)) < 2:
        return {}
    if all(system is None for system, is_real in zip(systems, bona_fide, strict=True) if not is_real):
        return {}  # the corpus has the column, but the systems are unknown
    return equal_error_rate_by_system(scores, bona_fide, systems)


def remarks_on(scores: NDArray[np.float64], labels: Sequence[int]) -> list[str]:
    """Return warnings for suspicious scores of a trained model, one sentence each: inverted, equal, or of one class."""
    bona_fide = np.asarray(labels) == LABEL2ID["bonafide"]
    if len(np.unique(bona_fide)) < 2:
        name = LABEL_NAMES[labels[0]]
        return [f"All {len(bona_fide)} clips are {name}: they are scored, but there is no equal error rate."]
    return score_problems(RankedScores(scores, bona_fide).counted())


@dataclass
class RunResults:
    """The results of a run; rates are fractions in [0, 1].

    Attributes:
        metrics: `eval_eer`, `test_eer`, `eval_loss`, `train_loss`, `train_runtime` (s), ...
        eer_by_system: EER by split and spoofing system.
        conflict_rate: Fraction of the updates in which any two views conflicted; None with one view.
        conflict_rate_by_epoch: The same per epoch, from the first.
        averaged_checkpoints: Number of checkpoints that were averaged; 0 without averaging.
        nonfinite_updates: Updates with gradients that were not finite, including those that fp16 loss scaling skips.
        skipped_updates: Updates that `--on_nonfinite skip` dropped.
        remarks: Warnings about clips that splits share and about suspicious scores, one sentence each, which starts
            with the split.
        settings: All arguments of the run, including defaults; `views` has the recipe of each view.
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
    """Return the arguments of a run for JSON, without tokens."""
    # to_dict masks every *_token.
    settings = {"model": asdict(run.model), "data": asdict(run.data), "training": run.training.to_dict()}
    return settings | {"views": run.data.view_recipes}


def read_train_metrics(folder: str | Path) -> dict[str, float]:
    """Return the training metrics that an earlier start of the run wrote; empty if there are none."""
    path = Path(folder, RESULTS_NAME)
    if not path.is_file():
        return {}
    results = json.loads(path.read_text(encoding="utf-8"))
    names = ("epoch", "total_flos", "train_loss", "train_runtime", "train_samples_per_second", "train_steps_per_second")
    return {name: results[name] for name in names if name in results}


def without_timing(metrics: dict[str, float]) -> dict[str, float]:
    """Return metrics without times and speeds."""
    timing = ("_runtime", "_samples_per_second", "_steps_per_second")
    return {name: value for name, value in metrics.items() if not name.endswith(timing)}


def steps_of(checkpoint: str) -> int:
    """Return the number of updates of a checkpoint."""
    return TrainerState.load_from_json(str(Path(checkpoint, TRAINER_STATE_NAME))).global_step


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages on which results depend."""
    packages = (hf_gradalign, torch, transformers, datasets, accelerate, np)
    return {"python": platform.python_version()} | {package.__name__: package.__version__ for package in packages}


def summary_table(results: RunResults, method: str) -> str:
    """Return equal error rates by split and system, and conflict rates by epoch, in percent, as text."""
    lines = ["Equal error rate (%)"]
    for prefix, split in SPLITS_BY_PREFIX.items():
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
