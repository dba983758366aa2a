"""How long a run will take, from what one update and one evaluation batch take."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from hf_gradalign.experiment.arguments import AudioSpoofTrainingArguments


@dataclass(frozen=True)
class RunEstimate:
    """A run's length.

    Attributes:
        updates_per_epoch: None for a stream.
        updates: In all, if nothing stops it early.
        evaluations: Of the validation split, the one at the end included.
        training_seconds: Of all updates.
        evaluation_seconds: Of all evaluations, that of the test split included.
        least_seconds: With early stopping: where no evaluation is better than the first; None without.
    """

    updates_per_epoch: int | None
    updates: int
    evaluations: int
    training_seconds: float
    evaluation_seconds: float
    least_seconds: float | None

    @property
    def seconds(self) -> float:
        """At most: training and evaluations, without the saving of checkpoints."""
        return self.training_seconds + self.evaluation_seconds


def estimate_run(
    args: AudioSpoofTrainingArguments,
    clips: Mapping[str, int],
    seconds_per_update: float,
    seconds_per_evaluation_batch: float,
) -> RunEstimate:
    """Count a run's updates and evaluations and add up their times.

    Args:
        args: The run's arguments.
        clips: How many clips each split has; `train` is left out where it is streamed.
        seconds_per_update: Of one update, its batches loaded and augmented.
        seconds_per_evaluation_batch: Of one batch of evaluation on one process.
    """
    per_epoch = None
    if "train" in clips:
        per_process = args.train_batch_size * args.world_size
        batches = (
            clips["train"] // per_process if args.dataloader_drop_last else math.ceil(clips["train"] / per_process)
        )
        per_epoch = max(1, math.ceil(batches / args.gradient_accumulation_steps))
    updates = args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * (per_epoch or 0))
    between = _updates_between_evaluations(args, updates, per_epoch)
    during = (
        0 if between is None else math.ceil(updates / between) if args.eval_strategy == "epoch" else updates // between
    )

    def evaluation(split: str) -> float:
        batches = math.ceil(clips.get(split, 0) / (args.eval_batch_size * args.world_size))
        return batches * seconds_per_evaluation_batch

    at_end = evaluation("validation") + evaluation("test")
    least = None
    if args.early_stopping_patience is not None and between is not None:
        looks = min(args.early_stopping_patience + 1, during)
        least = min(looks * between, updates) * seconds_per_update + looks * evaluation("validation") + at_end
    return RunEstimate(
        updates_per_epoch=per_epoch,
        updates=updates,
        evaluations=during + 1,
        training_seconds=updates * seconds_per_update,
        evaluation_seconds=during * evaluation("validation") + at_end,
        least_seconds=least,
    )


def _updates_between_evaluations(args: AudioSpoofTrainingArguments, updates: int, per_epoch: int | None) -> int | None:
    if args.eval_strategy == "no":
        return None
    if args.eval_strategy == "epoch":
        return updates if per_epoch is None else per_epoch
    steps = args.eval_steps or args.logging_steps
    return max(1, math.ceil(updates * steps) if steps < 1 else int(steps))


__all__ = ["RunEstimate", "estimate_run"]
