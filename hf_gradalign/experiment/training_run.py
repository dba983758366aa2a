"""Trains a run: makes the trainer, trains, selects, averages, evaluates and saves."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.optim import Optimizer
from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from hf_gradalign.data import ViewCollator
from hf_gradalign.experiment.arguments import AudioSpoofTrainingArguments, RunArguments
from hf_gradalign.experiment.corpora import system_column
from hf_gradalign.experiment.preparation import Preparation
from hf_gradalign.experiment.results import (
    SPLITS_BY_PREFIX,
    CountermeasureMetrics,
    RunResults,
    class_indices,
    countermeasure_scores,
    describe_settings,
    error_rates_by_system,
    read_train_metrics,
    remarks_on,
    steps_of,
    without_timing,
)
from hf_gradalign.scoring import write_score_file
from hf_gradalign.training import CoupledDecayAdam, GradientAlignmentTrainer, SaveOnInterrupt

_PREFIXES = {split: prefix for prefix, split in SPLITS_BY_PREFIX.items()}


class SetupError(ValueError):
    """The trainer cannot be made with these arguments, or they need a missing package."""


def make_trainer(
    preparation: Preparation, args: AudioSpoofTrainingArguments, callbacks: Sequence[TrainerCallback] = ()
) -> GradientAlignmentTrainer:
    """Make a trainer with the metrics and the optimizer of the arguments.

    Args:
        preparation: Data and model.
        args: The run's arguments.
        callbacks: Additional callbacks, called before the others.

    Raises:
        SetupError: If gradients cannot be aligned in this setup, or an option of the Trainer cannot work.
    """
    try:
        return GradientAlignmentTrainer(
            model=preparation.model,
            args=args,
            train_dataset=preparation.train_dataset,
            eval_dataset=preparation.eval_datasets["validation"],
            data_collator=ViewCollator(preparation.feature_extractor),
            processing_class=preparation.feature_extractor,
            compute_metrics=CountermeasureMetrics(),
            callbacks=list(callbacks),
            batch_transform=preparation.batch_transform,
            optimizer_cls_and_kwargs=_optimizer(args),
        )
    except torch.OutOfMemoryError:
        raise
    except (ValueError, ImportError, RuntimeError) as error:  # transformers' own checks raise all three
        raise SetupError(str(error)) from error


def _optimizer(args: AudioSpoofTrainingArguments) -> tuple[type[Optimizer], dict[str, Any]] | None:
    """Return the class and options of the optimizer; None for the Trainer's own optimizer."""
    if not args.coupled_weight_decay:
        return None
    return CoupledDecayAdam, {
        "lr": args.learning_rate,
        "betas": (args.adam_beta1, args.adam_beta2),
        "eps": args.adam_epsilon,
        "weight_decay": args.weight_decay,
    }


class Interrupted(Exception):
    """The run was stopped by a signal.

    Attributes:
        checkpoint: The checkpoint to resume from.
    """

    def __init__(self, checkpoint: str) -> None:
        super().__init__(f"interrupted; the checkpoint to resume from is {checkpoint}")
        self.checkpoint = checkpoint


def train_and_evaluate(
    preparation: Preparation,
    run: RunArguments,
    resume_from: str | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> RunResults:
    """Train and evaluate, and write everything to the output folder.

    Selection (early stopping, the best checkpoint or the average of the best) uses only the validation split. The test
    split is scored once, at the end.

    Args:
        preparation: Data and model, from `prepare`.
        run: The arguments given to `prepare`, with their `output_dir` settled.
        resume_from: Checkpoint to resume from.
        callbacks: More callbacks for the Trainer.

    Returns:
        The results, as written to `all_results.json`.

    Raises:
        Interrupted: On Ctrl-C or SIGTERM, after a checkpoint was saved.
        FloatingPointError: If a loss or gradient is not finite (see `on_nonfinite`).
    """
    args = run.training
    interrupt = SaveOnInterrupt()
    trainer = make_trainer(preparation, args, [interrupt, *callbacks])
    steps_before = steps_of(resume_from) if resume_from else -1  # read now, because training may delete the checkpoint
    try:
        train_metrics = trainer.train(resume_from_checkpoint=resume_from).metrics
    finally:
        interrupt.restore_handlers()
    if interrupt.interrupted:
        raise Interrupted(str(Path(args.run_folder, f"{PREFIX_CHECKPOINT_DIR}-{trainer.state.global_step}")))
    trainer.save_model(_internal_call=True)
    trainer.save_state()

    metrics: dict[str, float] = dict(train_metrics)
    if trainer.state.global_step <= steps_before:
        # If a finished run is resumed, nothing is trained, so its training metrics are still valid.
        metrics = without_timing(train_metrics) | read_train_metrics(args.run_folder)
    return score_splits(trainer, preparation, run, metrics)


def score_splits(
    trainer: GradientAlignmentTrainer,
    preparation: Preparation,
    run: RunArguments,
    train_metrics: Mapping[str, float],
) -> RunResults:
    """Score each split, and write scores and results to the output folder.

    Args:
        trainer: Trainer with the weights to score.
        preparation: Data and model.
        run: The run's arguments.
        train_metrics: Metrics of the training.

    Returns:
        The results.
    """
    metrics = dict(train_metrics)
    by_system: dict[str, dict[str, float]] = {}
    remarks = [*preparation.remarks]
    for split in preparation.eval_datasets:
        prefix = _PREFIXES[split]
        systems = system_column(run.data, preparation.eval_sources.get(split, run.data.corpora[0]))
        split_metrics, by_system[prefix], problems = _evaluate(trainer, preparation, split, systems)
        metrics.update(split_metrics)
        remarks += [f"{split.capitalize()} split: {remark}" for remark in problems]
    counts = trainer.conflict_counts
    has_pairs = len(run.data.view_recipes) > 1  # one view cannot conflict
    results = RunResults(
        metrics=metrics,
        eer_by_system=by_system,
        conflict_rate=counts.rate() if has_pairs else None,
        conflict_rate_by_epoch=counts.rates() if has_pairs else {},
        averaged_checkpoints=trainer.averaged_checkpoints,
        nonfinite_updates=counts.nonfinite(),
        skipped_updates=trainer.nonfinite.skipped,
        remarks=remarks,
        settings=describe_settings(run),
    )
    if trainer.is_world_process_zero():
        results.write(run.training.run_folder)
    return results


def _evaluate(
    trainer: GradientAlignmentTrainer, preparation: Preparation, split: str, system_column: str | None
) -> tuple[dict[str, float], dict[str, float], list[str]]:
    clips = preparation.corpus[split]
    prefix = _PREFIXES[split]
    output = trainer.predict(preparation.eval_datasets[split], metric_key_prefix=prefix)
    scores = countermeasure_scores(output.predictions)
    labels = clips["label"][:]
    if not np.array_equal(class_indices(output.label_ids), labels):
        raise RuntimeError(f"the scores of the {split} split are not in the order of its clips")
    if trainer.is_world_process_zero():
        path = Path(str(trainer.args.output_dir), f"scores_{split}.txt")
        write_score_file(path, clips["utterance_id"][:], scores.tolist())
    systems = clips[system_column][:] if system_column in clips.column_names else None
    return output.metrics or {}, error_rates_by_system(scores, labels, systems), remarks_on(scores, labels)
