"""Estimates of a run's length and disk space, and the report of a dry run."""

import math
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from accelerate.utils import gather_object
from torch import nn
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import SAFE_WEIGHTS_NAME, logging

from hf_gradalign.experiment.arguments import AudioSpoofTrainingArguments
from hf_gradalign.experiment.preparation import Preparation
from hf_gradalign.models.lora import count_parameters
from hf_gradalign.training.adapters import has_adapters
from hf_gradalign.training.callbacks import BEST_CHECKPOINTS_DIR
from hf_gradalign.utils.messages import closest_existing

logger = logging.get_logger(__name__)

_TIGHT = 1.2  # factor on the needed space, because other programs write too
_BYTES_PER_CLIP = 100  # of a score file
_BYTES_PER_UPDATE = 1000  # of the conflict record and the log
_REST = 10_000_000  # figures, configuration, model card, reports


@dataclass(frozen=True)
class RunEstimate:
    """The length of a run.

    Attributes:
        updates_per_epoch: Updates per epoch; None for a stream.
        updates: All updates, if nothing stops the run early.
        evaluations: Evaluations of the validation split, including the one at the end.
        training_seconds: Time of all updates.
        evaluation_seconds: Time of all evaluations, including that of the test split.
        least_seconds: Shortest time with early stopping, if no evaluation is better than the first; None without early
            stopping.
    """

    updates_per_epoch: int | None
    updates: int
    evaluations: int
    training_seconds: float
    evaluation_seconds: float
    least_seconds: float | None

    @property
    def seconds(self) -> float:
        """Longest time for training and evaluations, without saving checkpoints."""
        return self.training_seconds + self.evaluation_seconds


def estimate_run(
    args: AudioSpoofTrainingArguments,
    clips: Mapping[str, int],
    seconds_per_update: float,
    seconds_per_evaluation_batch: float,
) -> RunEstimate:
    """Count the updates and evaluations of a run and add up their times.

    Args:
        args: The run's arguments.
        clips: Number of clips per split, without `train` if it is streamed.
        seconds_per_update: Time of one update, including loading and augmenting its batches.
        seconds_per_evaluation_batch: Time of one evaluation batch on one process.
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


@dataclass(frozen=True)
class DiskSpace:
    """The space that a run needs at most, and the space that is free, in bytes.

    Attributes:
        folder: The run's folder.
        weights: Size of the weights that are saved at the end.
        kept_weights: Size of the weights in one checkpoint, which may be only those of adapters.
        checkpoint: Size of a checkpoint to resume from.
        checkpoints: Largest number of checkpoints at a time, including the one that is being written.
        kept_checkpoints: Number of checkpoints when training ends.
        averaged: Largest number of weights that are kept for averaging outside of checkpoints.
        rest: Scores, conflict record and other files.
        present: Size of the files that an earlier start of the run has written.
        free: Free space on the disk of the folder.
        savings: Options that would make the run need less space.
    """

    folder: Path
    weights: int
    kept_weights: int
    checkpoint: int
    checkpoints: int
    kept_checkpoints: int
    averaged: int
    rest: int
    present: int
    free: int
    savings: tuple[str, ...]

    @property
    def needed(self) -> int:
        """The largest amount by which the folder grows."""
        at_most = max(self.checkpoints * self.checkpoint, self.kept_checkpoints * self.checkpoint + self.weights)
        return max(at_most + self.averaged * self.kept_weights + self.rest - self.present, 0)

    @property
    def is_enough(self) -> bool:
        """Whether enough space is free."""
        return self.needed <= self.free

    @property
    def is_tight(self) -> bool:
        """Whether the free space is barely enough."""
        return self.is_enough and _TIGHT * self.needed > self.free

    def described(self) -> str:
        """Return needed and free space as text."""
        weights = f"{_size(self.weights)} for the weights"
        if self.averaged and self.kept_weights == self.weights:
            weights += f", {self.averaged + 1} times"
        elif self.averaged:
            weights += f", {_size(self.averaged * self.kept_weights)} for the checkpoints to average"
        parts = f"{_size(self.checkpoint)} per checkpoint, at most {self.checkpoints} at a time; {weights}"
        return f"up to {_size(self.needed)} ({parts if self.checkpoints else weights}), {_size(self.free)} free"

    def shortage(self) -> str:
        """Return a message about too little space that says what to do."""
        steps = "free some space, or choose another disk with --output_dir"
        if self.savings:
            steps = "free some space, choose another disk with --output_dir, or keep less "
            steps += f"({', '.join(self.savings)})"
        return f"the run writes to {self.folder} {self.described()}: {steps}"


def require_disk_space(preparation: Preparation, args: AudioSpoofTrainingArguments) -> None:
    """Refuse a run that does not fit on its disk, and warn if space is tight.

    Args:
        preparation: Data and model of the run.
        args: The run's arguments, with their `output_dir` settled.

    Raises:
        ValueError: If the run may need more space than is free. Every process raises it.
    """
    clips = {str(split): len(dataset) for split, dataset in preparation.corpus.items()}
    space = disk_space(preparation.model, args, clips, estimate_run(args, clips, 0.0, 0.0))
    shortages = gather_object([space.shortage() if args.should_save and not space.is_enough else None])
    if shortage := next(filter(None, shortages), None):
        raise ValueError(shortage)
    if args.should_save and space.is_tight:
        logger.warning(f"There is little space on the disk: the run writes to {space.folder} {space.described()}.")


def disk_space(
    model: nn.Module, args: AudioSpoofTrainingArguments, clips: Mapping[str, int], estimate: RunEstimate
) -> DiskSpace:
    """Estimate the space that a run needs, and look up the space that is free.

    Args:
        model: The model.
        args: The run's arguments.
        clips: Number of clips per split.
        estimate: Numbers of updates and evaluations.
    """
    state = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}  # tied weights count once
    weights = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    trained = sum(p.numel() * p.element_size() for p in set(model.parameters()) if p.requires_grad)
    kept_weights = weights
    if has_adapters(model):
        kept_weights = trained
        weights = trained if not args.merge_adapters else trained + 4 * count_parameters(model)
    # Adam has two moments per parameter; plain SGD has none.
    moments = 0 if args.save_only_model or args.optim == "sgd" else 2 * trained
    saves = _count_saves(args, estimate)
    keeps_best = args.load_best_model_at_end
    kept, fewest = saves, 2 if keeps_best else 1
    if args.save_total_limit is not None and args.save_total_limit > 0:
        kept = min(saves, max(args.save_total_limit, fewest))
    averaged = min(args.average_best_checkpoints, saves) if args.average_best_checkpoints > 1 else 0
    # If the Trainer keeps the best checkpoint, its weights need no extra space.
    averaged = max(averaged - keeps_best, 0)
    savings = {
        "--save_total_limit 1": kept > fewest,
        "--save_only_model": saves > 0 and moments > 0,
        "--average_best_checkpoints 1": averaged > 0,
    }
    folder = args.run_folder
    return DiskSpace(
        folder=folder,
        weights=weights,
        kept_weights=kept_weights,
        checkpoint=kept_weights + moments,
        checkpoints=min(saves, kept + 1),
        kept_checkpoints=kept,
        averaged=averaged,
        rest=_BYTES_PER_CLIP * sum(clips.values()) + _BYTES_PER_UPDATE * estimate.updates + _REST,
        present=_size_of(_written(folder)),
        free=shutil.disk_usage(closest_existing(folder)).free,
        savings=tuple(option for option, saves_space in savings.items() if saves_space),
    )


def _size(n_bytes: int) -> str:
    """Return a number of bytes in MB or GB."""
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"


def _count_saves(args: AudioSpoofTrainingArguments, estimate: RunEstimate) -> int:
    if args.save_strategy == "no":
        return 0
    if args.save_strategy == "epoch":
        return math.ceil(estimate.updates / (estimate.updates_per_epoch or estimate.updates or 1))
    if args.save_strategy == "best":
        return estimate.evaluations
    steps = args.save_steps if args.save_steps >= 1 else math.ceil(estimate.updates * args.save_steps)
    return math.ceil(estimate.updates / max(int(steps), 1))


def _written(folder: Path) -> Iterable[Path]:
    for path in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        yield from path.rglob("*")
    yield from (folder / BEST_CHECKPOINTS_DIR).rglob("*")
    yield folder / SAFE_WEIGHTS_NAME


def _size_of(paths: Iterable[Path]) -> int:
    files = [os.stat(path) for path in paths if path.is_file()]
    return sum({(file.st_dev, file.st_ino): file.st_size for file in files}.values())  # a linked file counts once


@dataclass(frozen=True)
class DryRunReport:
    """Measurements of a dry run, and estimates for the whole run.

    Attributes:
        model: Name of the model, as in the arguments, and its head.
        has_random_weights: Whether the Hub could not be reached and the weights are random.
        corpus: Training corpora, as in the arguments.
        clips: Number of clips per split, without `train` if it is streamed.
        views: Recipe of each view by its name.
        alignment: Alignment method.
        n_parameters: Number of parameters of the model.
        n_trained: Number of trained parameters.
        utterances: Utterances per update, over all processes and micro-batches.
        device: Device of the dry run: cpu, cuda, ...
        peak_memory_mib: Peak memory of the accelerator, or of this process; None if it is unknown.
        seconds_per_update: Time of the second of two updates, including loading its batches.
        seconds_per_clip: Time to load and augment one utterance in all views, on one process.
        bound: What limits the speed: the model, the data or the disk.
        loader_workers: Number of processes that load clips; 0 if the training process loads them.
        seconds_per_evaluation_batch: Time of the second of two evaluation batches.
        utterances_per_evaluation_batch: Utterances per evaluation batch on one process.
        estimate: Length of the whole run.
        disk: Needed and free disk space.
        epochs: Largest number of epochs; None if the number of updates is given.
        patience: Patience of early stopping in evaluations; None without early stopping.
    """

    model: str
    has_random_weights: bool
    corpus: str
    clips: Mapping[str, int]
    views: Mapping[str, str]
    alignment: str
    n_parameters: int
    n_trained: int
    utterances: int
    device: str
    peak_memory_mib: float | None
    seconds_per_update: float
    seconds_per_clip: float
    bound: str
    loader_workers: int
    seconds_per_evaluation_batch: float
    utterances_per_evaluation_batch: int
    estimate: RunEstimate
    disk: DiskSpace
    epochs: float | None
    patience: int | None

    def text(self) -> str:
        """Return the report as text."""
        lines = ["Dry run: two updates and two evaluation batches on synthetic audio. Nothing was kept."]
        lines += [f"  {name:<22}{value}" for name, value in self._rows() if value is not None]
        return "\n".join(lines)

    def _rows(self) -> list[tuple[str, str | None]]:
        estimate = self.estimate
        memory = "of this process in total" if self.device == "cpu" else f"on {self.device}"
        workers = f"{self.loader_workers} loader workers" if self.loader_workers else "the training process"
        least = None
        if estimate.least_seconds is not None:
            least = f"{duration(estimate.least_seconds)}, if no evaluation is better than the first (patience "
            least += f"{self.patience})"
        return [
            (
                "model",
                self.model + (", with random weights: the Hub cannot be reached" if self.has_random_weights else ""),
            ),
            ("parameters", f"{self.n_parameters / 1e6:.2f}M, of which {self.n_trained / 1e6:.2f}M are trained"),
            ("corpus", self.corpus),
            ("clips", self._clips()),
            ("views", ", ".join(f"{name} ({recipe})" for name, recipe in self.views.items())),
            ("alignment", self.alignment),
            ("per update", f"{_utterances(self.utterances)} in {len(self.views)} view{'s' * (len(self.views) > 1)}"),
            ("peak memory", None if self.peak_memory_mib is None else f"{self.peak_memory_mib:.0f} MiB, {memory}"),
            ("seconds per update", f"{self.seconds_per_update:.3g}"),
            ("loading a clip", f"{1000 * self.seconds_per_clip:.3g} ms in all views, by {workers}"),
            ("limited by", self.bound),
            (
                "an evaluation batch",
                f"{self.seconds_per_evaluation_batch:.3g} s for {_utterances(self.utterances_per_evaluation_batch)}",
            ),
            ("disk", self.disk.described() + ("" if self.disk.is_enough else ": too little")),
            ("updates per epoch", None if estimate.updates_per_epoch is None else str(estimate.updates_per_epoch)),
            (
                "whole run, at most",
                f"{duration(estimate.seconds)} ({self._length()}: {duration(estimate.training_seconds)}; "
                f"{estimate.evaluations} evaluation{'s' * (estimate.evaluations != 1)} and the test: "
                f"{duration(estimate.evaluation_seconds)})",
            ),
            ("at least", least),
        ]

    def _length(self) -> str:
        return f"{self.estimate.updates} updates" + ("" if self.epochs is None else f", {self.epochs:g} epochs")

    def _clips(self) -> str:
        shown = {} if "train" in self.clips else {"train": "streamed"}
        return ", ".join(f"{split} {size}" for split, size in {**shown, **self.clips}.items())


def _utterances(count: int) -> str:
    return f"{count} utterance{'s' * (count != 1)}"


def duration(seconds: float) -> str:
    """Return a time in seconds as text, in its two largest units."""
    if seconds < 100:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
