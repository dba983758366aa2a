"""The trainer of a run, from its arguments."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.optim import Optimizer
from transformers import TrainerCallback

from hf_gradalign.data import ViewCollator
from hf_gradalign.experiment.arguments import AudioSpoofTrainingArguments
from hf_gradalign.experiment.evaluation import CountermeasureMetrics
from hf_gradalign.experiment.preparation import Preparation
from hf_gradalign.scoring.windowing import taking_windows_as_they_are
from hf_gradalign.training import (
    BestCheckpoints,
    CoupledDecayAdam,
    GradientAlignmentTrainer,
    ResumableEarlyStopping,
)


class SetupError(ValueError):
    """The trainer cannot be made as the arguments say, or a package that they need is not there."""


def make_trainer(
    preparation: Preparation, args: AudioSpoofTrainingArguments, callbacks: Sequence[TrainerCallback] = ()
) -> GradientAlignmentTrainer:
    """A trainer with the optimiser, early stopping and collection of the best checkpoints that the arguments ask for.

    Args:
        preparation: Data and model.
        args: The run's arguments.
        callbacks: Further callbacks; they come first.

    Raises:
        SetupError: If the run is set up in a way in which gradients cannot be aligned, or an option of the Trainer
            could not do its work.
    """
    callbacks = list(callbacks)
    if args.early_stopping_patience is not None:
        callbacks.append(ResumableEarlyStopping(args.early_stopping_patience))
    if args.average_best_checkpoints > 1:
        callbacks.append(BestCheckpoints(args.average_best_checkpoints))
    try:
        return GradientAlignmentTrainer(
            model=preparation.model,
            args=args,
            train_dataset=preparation.train_dataset,
            eval_dataset=preparation.eval_datasets["validation"],
            data_collator=ViewCollator(taking_windows_as_they_are(preparation.feature_extractor)),
            processing_class=preparation.feature_extractor,
            compute_metrics=CountermeasureMetrics(getattr(preparation.model.config, "class_weights", None)),
            callbacks=callbacks,
            batch_transform=preparation.batch_transform,
            optimizer_cls_and_kwargs=_optimiser(args),
        )
    except torch.OutOfMemoryError:
        raise
    except (ValueError, ImportError, RuntimeError) as error:  # transformers' own checks raise all three
        raise SetupError(str(error)) from error


def _optimiser(args: AudioSpoofTrainingArguments) -> tuple[type[Optimizer], dict[str, Any]] | None:
    """What the Trainer is to make its optimiser of; None for what it makes by itself."""
    if not args.coupled_weight_decay:
        return None
    return CoupledDecayAdam, {
        "lr": args.learning_rate,
        "betas": (args.adam_beta1, args.adam_beta2),
        "eps": args.adam_epsilon,
        "weight_decay": args.weight_decay,
    }


__all__ = ["SetupError", "make_trainer"]
