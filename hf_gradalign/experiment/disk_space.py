"""What a run will write to the disk, and whether there is room for it."""

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
from hf_gradalign.experiment.dry_run.estimate import RunEstimate, estimate_run
from hf_gradalign.experiment.preparation import Preparation
from hf_gradalign.training.callbacks import BEST_CHECKPOINTS_DIR

logger = logging.get_logger(__name__)

_TIGHT = 1.2  # of what is needed: other programs write too
_BYTES_PER_CLIP = 100  # of a score file
_BYTES_PER_UPDATE = 1000  # of the conflict record and the log
_REST = 10_000_000  # figures, configuration, model card, a report's files


@dataclass(frozen=True)
class DiskSpace:
    """What a run writes at most, and what is free; in bytes.

    Attributes:
        folder: The run's folder.
        weights: Size of the weights.
        checkpoint: Size of a checkpoint to resume from.
        checkpoints: The largest number of checkpoints at a time, the one that is being written included.
        kept_checkpoints: How many of them are there when training ends.
        averaged: Weights kept to be averaged that are in none of the checkpoints, at most.
        rest: Scores, conflict record and the like.
        present: What an earlier start of the run has already written.
        free: What is free where the folder is.
    """

    folder: Path
    weights: int
    checkpoint: int
    checkpoints: int
    kept_checkpoints: int
    averaged: int
    rest: int
    present: int
    free: int

    @property
    def needed(self) -> int:
        """The most that the run's folder grows by."""
        at_most = max(self.checkpoints * self.checkpoint, self.kept_checkpoints * self.checkpoint + self.weights)
        return max(at_most + self.averaged * self.weights + self.rest - self.present, 0)

    @property
    def is_enough(self) -> bool:
        """Whether what is needed is free."""
        return self.needed <= self.free

    @property
    def is_tight(self) -> bool:
        """Whether it is free, with little to spare."""
        return self.is_enough and _TIGHT * self.needed > self.free

    def described(self) -> str:
        """Both in words."""
        weights = f"{_size(self.weights)} for the weights" + (f", {self.averaged + 1} times" if self.averaged else "")
        parts = f"{_size(self.checkpoint)} per checkpoint, at most {self.checkpoints} at a time; {weights}"
        return f"up to {_size(self.needed)} ({parts if self.checkpoints else weights}), {_size(self.free)} free"

    def shortage(self) -> str:
        """What to do where there is too little."""
        return (
            f"the run writes to {self.folder} {self.described()}: free some space, name another disk with "
            "--output_dir, or keep less (--save_total_limit 1, --save_only_model, --average_best_checkpoints 1)"
        )


def require_disk_space(preparation: Preparation, args: AudioSpoofTrainingArguments) -> None:
    """Refuse a run that its disk has no room for, and warn where there is little to spare.

    Args:
        preparation: Data and model of the run.
        args: The run's arguments; `output_dir` is settled by now.

    Raises:
        ValueError: If the run may write more than is free. The same in all processes of a run.
    """
    clips = {split: len(dataset) for split, dataset in preparation.corpus.items()}
    space = disk_space(preparation.model, args, clips, estimate_run(args, clips, 0.0, 0.0))
    shortages = gather_object([space.shortage() if args.should_save and not space.is_enough else None])
    if shortage := next(filter(None, shortages), None):
        raise ValueError(shortage)
    if args.should_save and space.is_tight:
        logger.warning(f"There is little room on the disk: the run writes to {space.folder} {space.described()}.")


def disk_space(
    model: nn.Module, args: AudioSpoofTrainingArguments, clips: Mapping[str, int], estimate: RunEstimate
) -> DiskSpace:
    """Work out what a run writes, and look at what is free.

    Args:
        model: The model.
        args: The run's arguments.
        clips: How many clips each split has.
        estimate: The run's number of updates and evaluations.
    """
    state = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}  # tied ones once
    weights = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    trained = sum(p.numel() * p.element_size() for p in set(model.parameters()) if p.requires_grad)
    # Two moments per parameter, as Adam has them; plain SGD has none.
    moments = 0 if args.save_only_model or args.optim == "sgd" else 2 * trained
    saves = _saves(args, estimate)
    keeps_best = args.load_best_model_at_end
    kept = saves
    if args.save_total_limit is not None and args.save_total_limit > 0:
        kept = min(saves, max(args.save_total_limit, 2 if keeps_best else 1))
    averaged = min(args.average_best_checkpoints, saves) if args.average_best_checkpoints > 1 else 0
    folder = Path(args.output_dir)
    return DiskSpace(
        folder=folder,
        weights=weights,
        checkpoint=weights + moments,
        checkpoints=min(saves, kept + 1),
        kept_checkpoints=kept,
        # The best one's weights are a checkpoint's, where the Trainer keeps that.
        averaged=max(averaged - keeps_best, 0),
        rest=_BYTES_PER_CLIP * sum(clips.values()) + _BYTES_PER_UPDATE * estimate.updates + _REST,
        present=_size_of(_written(folder)),
        free=shutil.disk_usage(_existing(folder)).free,
    )


def _size(n_bytes: int) -> str:
    """A number of bytes for people."""
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"


def _saves(args: AudioSpoofTrainingArguments, estimate: RunEstimate) -> int:
    if args.save_strategy == "no":
        return 0
    if args.save_strategy == "epoch":
        return math.ceil(estimate.updates / (estimate.updates_per_epoch or estimate.updates or 1))
    if args.save_strategy == "best":
        return estimate.evaluations
    steps = args.save_steps if args.save_steps >= 1 else math.ceil(estimate.updates * args.save_steps)
    return math.ceil(estimate.updates / max(int(steps), 1))


def _existing(folder: Path) -> Path:
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.exists())


def _written(folder: Path) -> Iterable[Path]:
    for path in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        yield from path.rglob("*")
    yield from (folder / BEST_CHECKPOINTS_DIR).rglob("*")
    yield folder / SAFE_WEIGHTS_NAME


def _size_of(paths: Iterable[Path]) -> int:
    found = [os.stat(path) for path in paths if path.is_file()]
    return sum({(each.st_dev, each.st_ino): each.st_size for each in found}.values())


__all__ = ["DiskSpace", "disk_space", "require_disk_space"]
