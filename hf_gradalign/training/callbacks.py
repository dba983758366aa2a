"""Callbacks: early stopping, a checkpoint on Ctrl-C, and the best checkpoints' weights."""

import json
import math
import os
import shutil
import signal
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import distributed
from transformers import EarlyStoppingCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, SaveStrategy
from transformers.utils import SAFE_WEIGHTS_NAME, logging

from hf_gradalign.training.checkpoint_manifest import read_manifest, sha256_of
from hf_gradalign.training.links import refuse_link_out
from hf_gradalign.utils.atomic_writing import flush_to_disk, write_text_atomically

logger = logging.get_logger(__name__)


class ResumableEarlyStopping(EarlyStoppingCallback):
    """transformers' early stopping, for runs that are resumed.

    A run that had stopped for want of patience and is resumed trains no further. The count of evaluations without a
    better value comes from the checkpoint (`restore_callback_states_from_checkpoint`).
    """

    def on_train_begin(  # noqa: D102
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        super().on_train_begin(args, state, control, **kwargs)
        if self.early_stopping_patience_counter >= self.early_stopping_patience:
            control.should_training_stop = True


class SaveOnInterrupt(TrainerCallback):
    """On the first SIGINT or SIGTERM, finishes the update at hand, saves a checkpoint and stops training.

    A second Ctrl-C interrupts at once. Processes of a distributed run agree on the update at which they stop, so that
    a signal to one of them is enough.

    Attributes:
        interrupted: Whether the run was stopped by a signal.
    """

    def __init__(self) -> None:
        self.interrupted = False
        self._signalled = False
        self._previous: dict[int, Any] = {}

    def on_train_begin(  # noqa: D102
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # Loader workers are forked later and inherit the handler: a Ctrl-C that reaches them too does not kill them.
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._on_signal)

    def on_step_end(  # noqa: D102
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._any_process_signalled(args):
            self.interrupted = True
            # Whatever the run saves otherwise (the best only, weights only), this checkpoint is to go on from.
            args.save_strategy = SaveStrategy.STEPS
            args.save_only_model = False
            control.should_save = True
            control.should_training_stop = True

    def on_epoch_end(  # noqa: D102
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # The Trainer ends the epoch wherever training stops. What belongs to the end of an epoch waits for its real
        # end after the resume, or a checkpoint that the uninterrupted run never compared could become the best.
        if not self.interrupted:
            return
        if float(state.epoch).is_integer():
            control.should_save = True  # once more, with what the evaluation at the epoch's end finds
        else:
            control.should_evaluate = control.should_save = control.should_log = False

    def on_train_end(  # noqa: D102
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.restore_handlers()

    def restore_handlers(self) -> None:
        """Put the signal handlers back that were there before training."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._signalled and number == signal.SIGINT:
            self.restore_handlers()
            raise KeyboardInterrupt
        self._signalled = True
        logger.warning(f"{signal.Signals(number).name}: saving a checkpoint after this update, then stopping.")

    def _any_process_signalled(self, args: TrainingArguments) -> bool:
        if args.world_size <= 1:
            return self._signalled
        flag = torch.tensor(int(self._signalled), device=args.device)
        distributed.all_reduce(flag, op=distributed.ReduceOp.MAX)
        return bool(flag)


BEST_CHECKPOINTS_DIR = "best_checkpoints"
_RECORD_NAME = "best_checkpoints.json"


class BestCheckpoints(TrainerCallback):
    """Holds on to the weights of the n best checkpoints by `metric_for_best_model`, whatever the Trainer deletes.

    The weights are hard links into the Trainer's checkpoints (copies where the file system has no links) under
    `<output_dir>/best_checkpoints/`, and the record lies beside them, so that a resumed run goes on with it, wherever
    it was killed.

    Args:
        count: How many to keep.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._evaluated: tuple[int, float] | None = None

    def on_train_begin(  # noqa: D102
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            # What was recorded after the checkpoint that is resumed from will be trained, and recorded, again.
            record = [entry for entry in self._read(args, state) if entry["step"] <= state.global_step]
            self._write(args, record[: self.count])
            # The run may have been killed when the checkpoint was whole and not yet recorded.
            if _weights_of_checkpoint(args, state.global_step).is_file():
                for metrics in (row for row in state.log_history if row["step"] == state.global_step):
                    self.on_evaluate(args, state, control, metrics)
                self.on_save(args, state, control)

    def on_evaluate(  # noqa: D102
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        name = _metric(args)
        if metrics and math.isfinite(metrics.get(name, math.nan)):
            self._evaluated = (state.global_step, metrics[name])

    def on_save(  # noqa: D102
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if not state.is_world_process_zero or self._evaluated is None or self._evaluated[0] != state.global_step:
            return
        step, value = self._evaluated
        source = _weights_of_checkpoint(args, step)
        if not source.is_file():
            logger.warning(f"There is no {source}; it is not among the checkpoints to average.")
            return
        record = [entry for entry in self._read(args) if entry["step"] != step] + [{"step": step, "value": value}]
        record = _ranked(record, args)[: self.count]
        if any(entry["step"] == step for entry in record):
            _link(source, _weights_path(args, step))
            manifest = read_manifest(source.parent) or {}
            digest = manifest.get("sha256", {}).get(source.name) or sha256_of(source)
            next(entry for entry in record if entry["step"] == step)["sha256"] = digest
        self._write(args, record)

    @classmethod
    def paths(cls, args: TrainingArguments) -> list[Path]:
        """The weights kept for a run, best first; those that are missing or damaged are left out, with a warning.

        Raises:
            FileNotFoundError: If all that were kept are missing or damaged.
        """
        record = cls._read(args)
        paths = [_weights_path(args, entry["step"]) for entry in record if _is_sound(args, entry)]
        if record and not paths:
            raise FileNotFoundError(
                f"All of the best checkpoints in {Path(args.output_dir, BEST_CHECKPOINTS_DIR)} are missing or damaged. "
                "Training is done: resume with --average_best_checkpoints 1 to keep the weights at its end"
            )
        return paths

    @staticmethod
    def take_over(source: Path, args: TrainingArguments) -> None:
        """Keep what another folder's run has kept, for a run that is resumed from there into `args.output_dir`.

        Args:
            source: The folder of the run whose checkpoint is resumed from.
            args: Of the run that goes on.

        Raises:
            PermissionError: If a link leads out of either folder.
        """
        kept = source / BEST_CHECKPOINTS_DIR
        if not (kept / _RECORD_NAME).is_file():
            return
        folder = Path(args.output_dir, BEST_CHECKPOINTS_DIR)
        for path in (*kept.glob("step-*.safetensors"), kept / _RECORD_NAME):
            refuse_link_out(path, source)
            _link(path, folder / path.name)

    @staticmethod
    def _read(args: TrainingArguments, state: TrainerState | None = None) -> list[dict[str, Any]]:
        """The record, best first; with the state of a run that is resumed, made again of its log if it is damaged."""
        path = Path(args.output_dir, BEST_CHECKPOINTS_DIR, _RECORD_NAME)
        if not path.is_file():
            return []
        rows = [] if state is None else state.log_history
        logged = {row["step"]: row[_metric(args)] for row in rows if _metric(args) in row}
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if all(logged.get(entry["step"], entry["value"]) == entry["value"] for entry in record):
                return record
        except (ValueError, TypeError, KeyError, RecursionError):
            pass
        logger.warning(f"{path} is damaged: what the run's log says of the weights in its folder is taken instead.")
        paths = {step: _weights_path(args, step) for step in logged}
        return _ranked(
            [
                {"step": step, "value": logged[step], "sha256": sha256_of(path)}
                for step, path in paths.items()
                if path.is_file()
            ],
            args,
        )

    @staticmethod
    def _write(args: TrainingArguments, record: list[dict[str, Any]]) -> None:
        folder = Path(args.output_dir, BEST_CHECKPOINTS_DIR)
        refuse_link_out(folder, args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        write_text_atomically(folder / _RECORD_NAME, json.dumps(record, indent=2) + "\n")
        kept = {_weights_path(args, entry["step"]) for entry in record}
        for path in folder.glob("*.safetensors*"):
            if path not in kept:
                path.unlink()


def _ranked(record: list[dict[str, Any]], args: TrainingArguments) -> list[dict[str, Any]]:
    sign = -1 if args.greater_is_better else 1
    return sorted(record, key=lambda entry: (sign * entry["value"], entry["step"]))


def _metric(args: TrainingArguments) -> str:
    name = args.metric_for_best_model
    return name if name.startswith("eval_") else f"eval_{name}"


def _weights_path(args: TrainingArguments, step: int) -> Path:
    return Path(args.output_dir, BEST_CHECKPOINTS_DIR, f"step-{step}.safetensors")


def _is_sound(args: TrainingArguments, entry: dict[str, Any]) -> bool:
    path = _weights_path(args, entry["step"])
    if not path.is_file():
        fault = "is missing"
    elif entry.get("sha256") not in (None, sha256_of(path)):  # older records have no digests
        fault = "is damaged (its content is not what was saved)"
    else:
        return True
    logger.warning(f"{path} {fault}: it is not among the checkpoints that are averaged.")
    return False


def _weights_of_checkpoint(args: TrainingArguments, step: int) -> Path:
    return Path(args.output_dir, f"{PREFIX_CHECKPOINT_DIR}-{step}", SAFE_WEIGHTS_NAME)


def _link(source: Path, target: Path) -> None:
    refuse_link_out(target.parent, target.parent.parent)
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f"{target.name}.draft")
    draft.unlink(missing_ok=True)
    try:
        os.link(source, draft)
    except OSError:
        shutil.copyfile(source, draft)
        flush_to_disk(draft)
    os.replace(draft, target)
    draft.unlink(missing_ok=True)  # replacing a link by one to the same file does nothing
