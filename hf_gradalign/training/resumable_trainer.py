"""A `Trainer` whose runs may be killed at any moment and resumed to the same end."""

import json
import logging as std_logging
import os
import weakref
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import nn
from torch.utils.data import DataLoader
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import TrainOutput
from transformers.utils import logging

from hf_gradalign.training.callbacks import BestCheckpoints
from hf_gradalign.training.checkpoint_soundness import weights_shortcomings
from hf_gradalign.training.evaluating_trainer import EvaluatingTrainer
from hf_gradalign.training.links import refuse_links_out
from hf_gradalign.training.merged_adapters import ADAPTER_DIR, has_adapters, merged_copy
from hf_gradalign.training.run_checkpoints import RunCheckpoints, describe, require_complete
from hf_gradalign.utils.atomic_writing import give_usual_mode

logger = logging.get_logger(__name__)

PROCESS_STATES_NAME = "process_states.json"


class ResumableTrainer(EvaluatingTrainer):
    """Adds to the base class what a run needs to go on from its last whole checkpoint as if nothing had happened.

    - A checkpoint appears under its name when it is whole, on every process, and an old one is deleted after that
      (`RunCheckpoints`): from its first checkpoint on, a run always has one to resume from.
    - `train(resume_from_checkpoint=True)` passes over checkpoints that are not whole, or whose files are not what was
      saved, and a path to one is refused. So is a damaged best checkpoint when `load_best_model_at_end` is to load it.
    - What an epoch ends with (evaluation, log) is done before the checkpoint at its end is written, where the base
      class would write first, and a run that is killed in between would go without.
    - Each process's running sums, and with them the `loss` that is logged, go on where they were.
    - Persistent loader workers take no random number that new ones would take once more.
    - A model with PEFT's adapters is saved merged at the end, with the adapters by themselves in `adapter/`: it loads
      like any model, though its base may be nowhere. Checkpoints have the adapters alone.
    - A stream that divides itself among the processes (`splits_by_process`) is not divided once more, and one with
      `leave_blank` is told what a resumed run will throw away.

    Items that the data set returns must depend on nothing but their index and the epoch (`set_epoch`).
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._unfinished: Path | None = None
        self._process_state: dict[str, Any] | None = None
        self._resumed_from: Path | None = None
        self._epoch_is_over = False
        self._save_is_due = False
        super().__init__(*args, **kwargs)
        self.add_callback(_TrainingStages(self))

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> TrainOutput:
        """Train, from the beginning or from a checkpoint.

        Args:
            resume_from_checkpoint: A checkpoint's folder; True for the last whole one in `args.output_dir`.
            args: As for `Trainer.train`.
            kwargs: As for `Trainer.train`.

        Raises:
            FileNotFoundError: If the checkpoint is not whole.
            ValueError: If there is no whole one in `args.output_dir`.
            PermissionError: If a link in `args.output_dir` leads out of it, where something would be written.
        """
        refuse_links_out(self.args.output_dir)
        checkpoints = RunCheckpoints(self.args.output_dir)
        if resume_from_checkpoint is True:
            resume_from_checkpoint = str(_last_on_every_process(checkpoints))
        elif resume_from_checkpoint:
            require_complete(resume_from_checkpoint)
        if self.args.should_save:
            checkpoints.clear_unfinished()
        self._resumed_from = Path(resume_from_checkpoint) if resume_from_checkpoint else None
        if self._resumed_from is not None and self.args.should_save:
            source = self._resumed_from.parent
            averages = any(isinstance(callback, BestCheckpoints) for callback in self.callback_handler.callbacks)
            if averages and source.resolve() != Path(self.args.output_dir).resolve():
                BestCheckpoints.take_over(source, self.args)
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def rehearse_checkpoint(self) -> None:
        """Save a checkpoint before the first update, with an optimizer that was made and has not stepped.

        For a trainer that does not train: it shows whether model, optimizer and state can be saved.
        """
        self._tr_loss = torch.zeros((), device=self.args.device)
        self._total_loss_scalar, self._globalstep_last_logged = 0.0, 0
        self._save_checkpoint(self.model, trial=None)
        self.control = self.callback_handler.on_save(self.args, self.state, self.control)

    @property
    def run_folder(self) -> str:
        """Where the run is written: `args.output_dir`, or within it the folder of a hyperparameter search's trial."""
        return super()._get_output_dir(getattr(self, "_trial", None))

    def process_state(self) -> dict[str, Any]:
        """What this process has summed up so far, fit for JSON; subclasses add to it."""
        return {
            "loss": float(self._tr_loss),
            "total_loss": self._total_loss_scalar,
            "last_logged_step": self._globalstep_last_logged,
        }

    def load_process_state(self, state: dict[str, Any]) -> None:
        """Take up where `process_state` left off."""
        self._tr_loss.fill_(state["loss"])
        self._total_loss_scalar = state["total_loss"]
        self._globalstep_last_logged = state["last_logged_step"]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log; `train_loss` is the mean over all updates, those before a resume too."""
        if "train_loss" in logs:
            logs["train_loss"] = self._total_loss_scalar / max(self.state.global_step, 1)
        super().log(logs, start_time)

    def start_training(self) -> None:
        """Called when all is loaded."""
        self._epoch_is_over = self._save_is_due = False
        state, self._process_state = self._process_state, None
        if state is not None:
            self.load_process_state(state)

    def end_epoch(self) -> None:
        """Called when the updates of an epoch are done, before its evaluation."""
        self._epoch_is_over = True

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        if self._epoch_is_over:
            self.control.should_save |= self._save_is_due
            self._epoch_is_over = self._save_is_due = False
        elif self.control.should_save and self._is_last_of_epoch():
            self.control.should_save, self._save_is_due = False, True
        super()._maybe_log_save_evaluate(*args, **kwargs)

    def _is_last_of_epoch(self) -> bool:
        return float(self.state.epoch).is_integer() or self.state.global_step >= self.state.max_steps

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        run_folder = super()._get_output_dir(trial)
        checkpoints = RunCheckpoints(run_folder)
        if self.args.should_save:
            checkpoints.clear_unfinished()
        self.accelerator.wait_for_everyone()  # or another process's part might be cleared away
        self._unfinished = checkpoints.unfinished
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self._unfinished = None
        place = checkpoints.path(self.state.global_step)
        if self.state.best_global_step:
            best = checkpoints.path(self.state.best_global_step)
            if best == place or best.is_dir():
                # The base class looked for it where the new one was being written.
                self.state.best_model_checkpoint = os.path.join(run_folder, best.name)
        if self.args.should_save:
            self.state.save_to_json(str(checkpoints.unfinished / place.name / TRAINER_STATE_NAME))
        self.accelerator.wait_for_everyone()  # only now every process's part is written
        if self.args.should_save:
            checkpoints.finish(self.state.global_step)
        self.accelerator.wait_for_everyone()  # and only now it is whole wherever it is written
        if self.args.should_save:
            checkpoints.remove_oldest(self.args.save_total_limit, keep=[self.state.best_model_checkpoint])
        if self.args.push_to_hub:
            self._push_from_checkpoint(str(place))

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As the base class's; all files have the permissions that the user's umask gives."""
        super().save_model(output_dir, _internal_call=_internal_call)
        if self.args.should_save:
            folder = Path(output_dir or self.args.output_dir)
            for path in (*folder.glob("*.safetensors"), *(folder / ADAPTER_DIR).glob("*.safetensors")):
                give_usual_mode(path)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        # A checkpoint has the adapters alone, to be resumed from; sharded ones, whose state comes gathered, too.
        model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        merged = None
        if self.args.should_save and self._unfinished is None and state_dict is None and has_adapters(model):
            merged = merged_copy(model)
        if merged is None:
            super()._save(output_dir, state_dict)
            return
        output_dir = self.args.output_dir if output_dir is None else output_dir
        model.save_pretrained(os.path.join(output_dir, ADAPTER_DIR))
        wrapped, self.model = self.model, merged
        try:
            super()._save(output_dir)
        finally:
            self.model = wrapped

    def _get_output_dir(self, trial: Any) -> str:
        return super()._get_output_dir(trial) if self._unfinished is None else str(self._unfinished)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        if self._unfinished is None:  # an upload goes on in the background, and its files must stay where they are
            super()._push_from_checkpoint(checkpoint_folder)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        states = gather_object([self.process_state()])
        if self.args.should_save:
            Path(output_dir, PROCESS_STATES_NAME).write_text(json.dumps(states, indent=2) + "\n", encoding="utf-8")

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        path = Path(checkpoint or "", PROCESS_STATES_NAME)
        if checkpoint is not None and path.is_file():
            states = json.loads(path.read_text(encoding="utf-8"))
            # On another number of processes the sums are an approximation, until the next log.
            self._process_state = states[self.args.process_index % len(states)]

    def get_train_dataloader(self) -> DataLoader:
        """The training loader; that of a stream that divides itself is not touched by accelerate, which would too."""
        if not getattr(self.train_dataset, "splits_by_process", False):
            return super().get_train_dataloader()
        return DataLoader(
            self.train_dataset,
            batch_size=self._train_batch_size,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
            persistent_workers=self.args.dataloader_persistent_workers,
            prefetch_factor=self.args.dataloader_prefetch_factor,
            multiprocessing_context=self.args.dataloader_multiprocessing_context,
            in_order=self.args.dataloader_in_order,
            generator=torch.Generator().manual_seed(self.args.seed),
        )

    def _init_training_state(self, *args: Any, **kwargs: Any) -> tuple[int, int]:
        base = std_logging.getLogger("transformers.trainer")
        base.addFilter(_is_not_of_the_best)
        try:
            epochs, batches = super()._init_training_state(*args, **kwargs)
        finally:
            base.removeFilter(_is_not_of_the_best)
        self._find_best_checkpoint()
        leave_blank = getattr(self.train_dataset, "leave_blank", None)
        if leave_blank is not None:
            leave_blank(batches, self._train_batch_size)
        return epochs, batches

    def _find_best_checkpoint(self) -> None:
        """Take the best checkpoint of the run that is resumed from its folder, wherever that was moved to."""
        step = self.state.best_global_step
        if self._resumed_from is None or not step:
            return
        beside = RunCheckpoints(self._resumed_from.parent).path(step)
        if beside.is_dir():
            self.state.best_model_checkpoint = str(beside)
        elif self.state.best_model_checkpoint is None and self.args.load_best_model_at_end:
            logger.warning(
                f"The best checkpoint so far, {beside.name}, is no longer in {beside.parent} and cannot be loaded at "
                "the end."
            )

    def _load_best_model(self) -> None:
        best = Path(self.state.best_model_checkpoint)
        if missing := weights_shortcomings(best):
            raise FileNotFoundError(
                f"The best checkpoint, {best}, cannot be loaded: {describe(missing)}. Training is done: resume from "
                "the last checkpoint with --load_best_model_at_end False to keep the weights at its end"
            )
        super()._load_best_model()

    def _finalize_training(self, trial: Any, *args: Any, **kwargs: Any) -> TrainOutput:
        best = self.state.best_model_checkpoint
        if self.args.should_save and self.args.save_total_limit == 1 and best is not None and Path(best).is_dir():
            # As the base class is about to do, file by file.
            checkpoints = RunCheckpoints(self._get_output_dir(trial))
            for path in checkpoints.all():
                if not path.samefile(best):
                    checkpoints.remove(path)
        output = super()._finalize_training(trial, *args, **kwargs)
        return output._replace(training_loss=output.metrics["train_loss"])


class _TrainingStages(TrainerCallback):
    """Tells the trainer at which stage the training is."""

    def __init__(self, trainer: ResumableTrainer) -> None:
        self._trainer = weakref.proxy(trainer)  # or the two would keep each other, and the loaders' workers, alive

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._trainer.start_training()

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._trainer.end_epoch()


def _is_not_of_the_best(record: std_logging.LogRecord) -> bool:
    return not record.getMessage().startswith("The best checkpoint ")  # which is looked for in the run's folder


def _last_on_every_process(checkpoints: RunCheckpoints) -> Path:
    # Where each machine keeps checkpoints of its own, one may have been killed before it had the last.
    names = gather_object([[path.name for path in checkpoints.adopt_finished()]])
    common = [name for name in names[0] if all(name in others for others in names)]
    for path in (checkpoints.folder / name for name in reversed(common)):
        if all(gather_object([checkpoints.is_complete(path)])):
            return path
    found = "; ".join(f"{path.name}: {describe(missing)}" for path, missing in checkpoints.incomplete().items())
    raise ValueError(
        f"No valid checkpoint found in output directory ({checkpoints.folder})"
        + (f", only incomplete ones ({found})" if found else "")
        + "; to start over, train without resume_from_checkpoint"
    )


__all__ = ["PROCESS_STATES_NAME", "ResumableTrainer"]
