"""Callbacks: early stopping, a checkpoint on Ctrl-C, and keeping the best checkpoints' weights."""

import json
import math
import os
import shutil
import signal
import threading
from collections import deque
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, distributed
from torch.utils.data import get_worker_info
from transformers import EarlyStoppingCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, SaveStrategy
from transformers.utils import ADAPTER_SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_NAME, logging

from hf_gradalign.training.checkpoint_integrity import read_manifest
from hf_gradalign.utils.files import flush_to_disk, refuse_link_out, sha256_of, write_text_atomically
from hf_gradalign.utils.signals import ending_signals, leave_closed_terminal

logger = logging.get_logger(__name__)

BEST_CHECKPOINTS_DIR = "best_checkpoints"
_RECORD_NAME = "best_checkpoints.json"
# After how many updates a flag is read, by type of device. On a CPU there is nothing to wait for.
_LAG = {"cpu": 0}
_LAG_ELSEWHERE = 4


class ResumableEarlyStopping(EarlyStoppingCallback):
    """Early stopping as in transformers, for runs that may be resumed.

    The count of evaluations without improvement is restored from the checkpoint
    (`restore_callback_states_from_checkpoint`). A run that had already stopped early does not train any further. A new
    run counts from zero.
    """

    def on_train_begin(  # noqa: D102
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        super().on_train_begin(args, state, control, **kwargs)
        if state.global_step == 0:  # another train() of the same trainer would stop at once
            self.early_stopping_patience_counter = 0
        if self.early_stopping_patience_counter >= self.early_stopping_patience:
            control.should_training_stop = True


def flag_delay(device: torch.device) -> int:
    """Return after how many more updates a flag on `device` has surely arrived on the host."""
    return _LAG.get(device.type, _LAG_ELSEWHERE)


class DelayedFlag:
    """A flag that is copied to the host in the background. Reading it waits until the copy is done.

    Args:
        flag: A tensor of one element, on any device.
    """

    def __init__(self, flag: Tensor) -> None:
        self._flag = flag
        self._copied: torch.cuda.Event | None = None
        if flag.device.type == "cuda":
            self._flag = flag.to("cpu", non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record()

    def __bool__(self) -> bool:
        if self._copied is not None:
            self._copied.synchronize()
        return bool(self._flag)


class SaveOnInterrupt(TrainerCallback):
    """On the first SIGINT, SIGTERM or SIGHUP, finishes the current update, saves a checkpoint and stops training.

    SIGHUP comes when the terminal is closed; `nohup` makes processes ignore it. A second Ctrl-C interrupts at once. The
    processes of a distributed run stop after the same update, so a signal to one of them is enough. With GPUs they stop
    four updates later, because no process waits for the others' flags. Python handles signals only in the main thread,
    so training in another thread is not stopped.

    Attributes:
        interrupted: Whether the run was stopped by a signal.
    """

    def __init__(self) -> None:
        self.interrupted = False
        self._signalled = False
        self._previous: dict[int, Any] = {}
        self._previous_saving: tuple[SaveStrategy | str, bool] | None = None  # save_strategy, save_only_model
        self._flags: deque[DelayedFlag] = deque()
        self._is_one_of_several = False

    def on_train_begin(  # noqa: D102
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # In a notebook, the same trainer may train again after an error, which leaves the old handlers in place.
        self.restore_handlers()
        self.interrupted = self._signalled = False
        self._flags.clear()
        self._is_one_of_several = args.world_size > 1
        # Data loader workers are forked later and inherit the handler, so Ctrl-C does not kill them.
        is_main = threading.current_thread() is threading.main_thread()
        for number in ending_signals() if is_main else ():
            self._previous[number] = signal.signal(number, self._on_signal)

    def on_step_end(  # noqa: D102
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._any_process_signalled(args):
            self.interrupted = True
            self._previous_saving = args.save_strategy, args.save_only_model
            # This checkpoint must be resumable, even if the run saves only the best checkpoints or only weights.
            args.save_strategy = SaveStrategy.STEPS
            args.save_only_model = False
            control.should_save = True
            control.should_training_stop = True

    def on_epoch_end(  # noqa: D102
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # The Trainer calls this wherever training stops. An interrupted epoch is evaluated at its real end, after the
        # resume. Otherwise, the best checkpoint could be one that an uninterrupted run never evaluates.
        if not self.interrupted:
            return
        if float(state.epoch).is_integer():
            control.should_save = True  # again, now with the epoch's evaluation
        else:
            control.should_evaluate = control.should_save = control.should_log = False

    def on_train_end(  # noqa: D102
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.restore_handlers()
        if self._previous_saving is not None:
            args.save_strategy, args.save_only_model = self._previous_saving
            self._previous_saving = None

    def restore_handlers(self) -> None:
        """Restore the signal handlers from before training."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._signalled and number == signal.SIGINT:
            self.restore_handlers()
            raise KeyboardInterrupt
        leave_closed_terminal(number)
        self._signalled = True
        if get_worker_info() is not None:  # a loader worker, which has this handler too and gets Ctrl-C from a terminal
            return
        when = "within a few updates" if self._is_one_of_several else "after this update"
        logger.warning(f"{signal.Signals(number).name}: saving a checkpoint {when}, then stopping.")

    def _any_process_signalled(self, args: TrainingArguments) -> bool:
        if args.world_size <= 1:
            return self._signalled
        flag = torch.full((), int(self._signalled), device=args.device)
        distributed.all_reduce(flag, op=distributed.ReduceOp.MAX)
        self._flags.append(DelayedFlag(flag))
        return len(self._flags) > flag_delay(args.device) and bool(self._flags.popleft())


class BestCheckpoints(TrainerCallback):
    """Keeps the weights of the best checkpoints by `metric_for_best_model`, even if the Trainer deletes them.

    The weights in `<output_dir>/best_checkpoints/` are hard links into the Trainer's checkpoints (copies if the file
    system does not support links). A record in the same folder lets a run that was killed at any moment be resumed.

    Args:
        count: Number of checkpoints to keep.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._evaluated: tuple[int, float] | None = None

    def on_train_begin(  # noqa: D102
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            # Checkpoints after the one resumed from will be trained and recorded again.
            record = [entry for entry in self._read(args, state) if entry["step"] <= state.global_step]
            self._write(args, record[: self.count])
            # The run may have been killed after the checkpoint was complete and before it was recorded.
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
        name = _metric_key(args)
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
            logger.warning(f"{source} does not exist, so it will not be averaged.")
            return
        record = [entry for entry in self._read(args) if entry["step"] != step] + [{"step": step, "value": value}]
        record = _rank(record, args)[: self.count]
        if any(entry["step"] == step for entry in record):
            _link(source, _weights_path(args, step))
            manifest = read_manifest(source.parent) or {}
            digest = manifest.get("sha256", {}).get(source.name) or sha256_of(source)
            next(entry for entry in record if entry["step"] == step)["sha256"] = digest
        self._write(args, record)

    @classmethod
    def paths(cls, args: TrainingArguments) -> list[Path]:
        """Return the weights kept for a run, best first; missing or damaged ones are left out with a warning.

        Raises:
            FileNotFoundError: If all of them are missing or damaged.
        """
        record = cls._read(args)
        paths = [_weights_path(args, entry["step"]) for entry in record if _is_intact(args, entry)]
        if record and not paths:
            raise FileNotFoundError(
                f"All best checkpoints in {Path(output_dir_of(args), BEST_CHECKPOINTS_DIR)} are missing or "
                "damaged. Training has finished: resume with --average_best_checkpoints 1 to keep its final weights"
            )
        return paths

    @staticmethod
    def take_over(source: Path, args: TrainingArguments) -> None:
        """Copy the best checkpoints of a run that is resumed from another folder to `args.output_dir`.

        Args:
            source: Folder of the run that is resumed.
            args: Arguments of the resumed run.

        Raises:
            PermissionError: If a link leads outside of either folder.
        """
        kept = source / BEST_CHECKPOINTS_DIR
        if not (kept / _RECORD_NAME).is_file():
            return
        folder = Path(output_dir_of(args), BEST_CHECKPOINTS_DIR)
        for path in (*kept.glob("step-*.safetensors"), kept / _RECORD_NAME):
            refuse_link_out(path, source)
            _link(path, folder / path.name)

    @staticmethod
    def _read(args: TrainingArguments, state: TrainerState | None = None) -> list[dict[str, Any]]:
        """Read the record, best first. If it is damaged, rebuild it from the log of a resumed run's state."""
        path = Path(output_dir_of(args), BEST_CHECKPOINTS_DIR, _RECORD_NAME)
        if not path.is_file():
            return []
        rows = [] if state is None else state.log_history
        logged = {int(row["step"]): row[_metric_key(args)] for row in rows if _metric_key(args) in row}
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if all(logged.get(entry["step"], entry["value"]) == entry["value"] for entry in record):
                return record
        except (ValueError, TypeError, KeyError, RecursionError):
            pass
        logger.warning(f"{path} is damaged. It is rebuilt from the run's log and the weights in its folder.")
        paths = {step: _weights_path(args, step) for step in logged}
        return _rank(
            [
                {"step": step, "value": logged[step], "sha256": sha256_of(path)}
                for step, path in paths.items()
                if path.is_file()
            ],
            args,
        )

    @staticmethod
    def _write(args: TrainingArguments, record: list[dict[str, Any]]) -> None:
        folder = Path(output_dir_of(args), BEST_CHECKPOINTS_DIR)
        refuse_link_out(folder, output_dir_of(args))
        folder.mkdir(parents=True, exist_ok=True)
        write_text_atomically(folder / _RECORD_NAME, json.dumps(record, indent=2) + "\n")
        kept = {_weights_path(args, entry["step"]) for entry in record}
        for path in folder.glob("*.safetensors*"):
            if path not in kept:
                path.unlink()


def _rank(record: list[dict[str, Any]], args: TrainingArguments) -> list[dict[str, Any]]:
    sign = -1 if args.greater_is_better else 1
    return sorted(record, key=lambda entry: (sign * entry["value"], entry["step"]))


def output_dir_of(args: TrainingArguments) -> str:
    """Return the output folder of a run."""
    assert args.output_dir is not None  # TrainingArguments sets a default
    return args.output_dir


def _metric_key(args: TrainingArguments) -> str:
    name = args.metric_for_best_model
    assert name is not None  # GradientAlignmentArguments requires it
    return name if name.startswith("eval_") else f"eval_{name}"


def _weights_path(args: TrainingArguments, step: int) -> Path:
    return Path(output_dir_of(args), BEST_CHECKPOINTS_DIR, f"step-{step}.safetensors")


def _is_intact(args: TrainingArguments, entry: dict[str, Any]) -> bool:
    path = _weights_path(args, entry["step"])
    if not path.is_file():
        fault = "is missing"
    elif entry.get("sha256") != sha256_of(path):
        fault = "is damaged (its content is not what was saved)"
    else:
        return True
    logger.warning(f"{path} {fault}, so it is not averaged.")
    return False


def _weights_of_checkpoint(args: TrainingArguments, step: int) -> Path:
    folder = Path(output_dir_of(args), f"{PREFIX_CHECKPOINT_DIR}-{step}")
    whole, adapters = folder / SAFE_WEIGHTS_NAME, folder / ADAPTER_SAFE_WEIGHTS_NAME
    return adapters if adapters.is_file() and not whole.is_file() else whole


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
    draft.unlink(missing_ok=True)  # os.replace does nothing if both are links to the same file
