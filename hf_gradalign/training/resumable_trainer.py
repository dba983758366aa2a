"""A resumable `Trainer`: a run that was killed at any moment can be resumed with identical results."""

import json
import logging as std_logging
import os
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.utils import gather_object
from huggingface_hub.constants import REPOCARD_NAME
from torch import nn
from torch.utils.data import DataLoader, IterableDataset
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import SaveStrategy, TrainOutput, has_length
from transformers.utils import logging

from hf_gradalign.models.score_calibration import drop_calibration
from hf_gradalign.training.adapters import copy_with_merged_adapters, has_adapters, save_whole_config
from hf_gradalign.training.callbacks import BestCheckpoints, output_dir_of
from hf_gradalign.training.checkpoint_integrity import find_weight_problems
from hf_gradalign.training.checkpoint_weights import (
    accept_saved_names,
    require_all_adapters,
    require_all_weights,
    to_savable_state,
)
from hf_gradalign.training.evaluating_trainer import EvaluatingTrainer
from hf_gradalign.training.run_checkpoints import ADAPTER_DIR, RunCheckpoints, refuse_outside_links, require_complete
from hf_gradalign.utils.files import apply_default_mode
from hf_gradalign.utils.loader_workers import start_worker
from hf_gradalign.utils.messages import first_few
from hf_gradalign.utils.shared_folder import require_shared_folder

logger = logging.get_logger(__name__)

PROCESS_STATES_NAME = "process_states.json"


class ResumableTrainer(EvaluatingTrainer):
    """Makes the base class resume from the last complete checkpoint as if the run had never been interrupted.

    - A checkpoint appears under its name only when it is complete on every process, and only then is an old one deleted
      (`RunCheckpoints`). After its first checkpoint, a run always has one to resume from.
    - `train(resume_from_checkpoint=True)` skips incomplete and damaged checkpoints. An explicit path to one raises an
      error, and so does a damaged best checkpoint that `load_best_model_at_end` would load.
    - A checkpoint restores the whole model, including architectures that transformers saves under other names (ViT,
      AST, ...) and plain modules with tied weights, which the base class cannot save. Missing or unexpected weights
      raise an error, where the base class only warns.
    - Evaluation and logging at the end of an epoch happen before the checkpoint is written. The base class writes it
      first, so a run killed in between would miss them.
    - The running sums of each process continue where they were, so the logged `loss` is the same.
    - Persistent loader workers do not change which random numbers a resumed run draws.
    - At the end, a model with PEFT adapters is saved merged, with the adapters alone in `adapter/`. The saved model
      loads without its base model. Checkpoints (and with `merge_adapters` False, the saved model) contain only adapters
      and configuration.
    - A stream that splits itself by process (`splits_by_process`) is not split again, and a stream with a method
      `leave_blank` receives the number of batches that a resumed run skips, and their size.

    Items of the data set may only depend on their index and the epoch (`set_epoch`).
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._unfinished: Path | None = None
        self._process_state: dict[str, Any] | None = None
        self._resumed_from: Path | None = None
        self._load_result: Any = None
        self._epoch_is_over = False
        self._save_is_due = False
        super().__init__(*args, **kwargs)
        self.add_callback(_TrainingStages(self))

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> TrainOutput:
        """Train from the beginning or from a checkpoint.

        Args:
            resume_from_checkpoint: A checkpoint's folder; True for the last complete one in `args.output_dir`.
            args: As for `Trainer.train`.
            kwargs: As for `Trainer.train`.

        Raises:
            FileNotFoundError: If the checkpoint is incomplete.
            ValueError: If `args.output_dir` has no complete checkpoint, or the checkpoint is of another model.
            OSError: If checkpoints are saved, and not all processes see the same `args.output_dir`.
            PermissionError: If the run would write through a link that leads outside of `args.output_dir`.
        """
        if self.args.save_strategy != SaveStrategy.NO:
            require_shared_folder(output_dir_of(self.args))
        refuse_outside_links(output_dir_of(self.args))
        checkpoints = RunCheckpoints(output_dir_of(self.args))
        if resume_from_checkpoint is True:
            resume_from_checkpoint = str(_last_common_checkpoint(checkpoints))
        elif resume_from_checkpoint:
            require_complete(resume_from_checkpoint)
        if self.args.should_save:
            checkpoints.clear_unfinished()
        self._resumed_from = Path(resume_from_checkpoint) if resume_from_checkpoint else None
        if self._resumed_from is not None and self.args.should_save:
            source = self._resumed_from.parent
            averages = any(isinstance(callback, BestCheckpoints) for callback in self.callback_handler.callbacks)
            if averages and source.resolve() != Path(output_dir_of(self.args)).resolve():
                BestCheckpoints.take_over(source, self.args)
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def rehearse_checkpoint(self) -> None:
        """Save a checkpoint with a new optimizer, to test whether model, optimizer and state can be saved.

        For a trainer that will not train.
        """
        self._tr_loss = torch.zeros((), device=self.args.device)
        self._total_loss_scalar, self._globalstep_last_logged = 0.0, 0
        assert self.model is not None
        self._save_checkpoint(self.model, trial=None)
        self.control = self.callback_handler.on_save(self.args, self.state, self.control)

    @property
    def run_folder(self) -> str:
        """The folder of the run: `args.output_dir`, or a subfolder for each trial of a hyperparameter search."""
        return super()._get_output_dir(getattr(self, "_trial", None))

    def process_state(self) -> dict[str, Any]:
        """Return this process's running sums, as values for JSON. Subclasses add their own."""
        return {
            "loss": float(self._tr_loss),
            "total_loss": self._total_loss_scalar,
            "last_logged_step": self._globalstep_last_logged,
        }

    def load_process_state(self, state: dict[str, Any]) -> None:
        """Restore what `process_state` returned."""
        self._tr_loss.fill_(state["loss"])
        self._total_loss_scalar = state["total_loss"]
        self._globalstep_last_logged = state["last_logged_step"]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log; `train_loss` is the mean over all updates, including those before a resume."""
        if "train_loss" in logs:
            logs["train_loss"] = self._total_loss_scalar / max(self.state.global_step, 1)
        super().log(logs, start_time)

    def start_training(self) -> None:
        """Restore the running sums, and drop the model's calibration. Called after everything else is loaded."""
        drop_calibration(getattr(self.model, "config", None))
        self._epoch_is_over = self._save_is_due = False
        state, self._process_state = self._process_state, None
        if state is not None:
            self.load_process_state(state)

    def end_epoch(self) -> None:
        """Note that an epoch's updates are done. Called before the epoch is evaluated."""
        self._epoch_is_over = True

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        if self._epoch_is_over:
            self.control.should_save |= self._save_is_due
            self._epoch_is_over = self._save_is_due = False
        elif self.control.should_save and (
            float(self.state.epoch).is_integer() or self.state.global_step >= self.state.max_steps
        ):
            self.control.should_save, self._save_is_due = False, True  # the epoch's evaluation comes first
        super()._maybe_log_save_evaluate(*args, **kwargs)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        run_folder = super()._get_output_dir(trial)
        checkpoints = RunCheckpoints(run_folder)
        if self.args.should_save:
            checkpoints.clear_unfinished()
        self.accelerator.wait_for_everyone()  # no process may write to the folder while it is cleared
        self._unfinished = checkpoints.unfinished
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self._unfinished = None
        target = checkpoints.path(self.state.global_step)
        if self.state.best_global_step:
            best = checkpoints.path(self.state.best_global_step)
            if best == target or best.is_dir():
                # The base class looked for it in the folder of unfinished checkpoints.
                self.state.best_model_checkpoint = os.path.join(run_folder, best.name)
        if self.args.should_save:
            self.state.save_to_json(str(checkpoints.unfinished / target.name / TRAINER_STATE_NAME))
        self.accelerator.wait_for_everyone()  # for every process to write its part
        if self.args.should_save:
            checkpoints.finish(self.state.global_step)
        self.accelerator.wait_for_everyone()  # for the checkpoint to be complete on every machine
        if self.args.should_save:
            checkpoints.remove_oldest(self.args.save_total_limit, keep=[self.state.best_model_checkpoint])
        if self.args.push_to_hub:
            self._push_from_checkpoint(str(target))

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model as the base class does, with file permissions that follow the user's umask."""
        super().save_model(output_dir, _internal_call=_internal_call)
        if self.args.should_save:
            folder = Path(output_dir or output_dir_of(self.args))
            for path in (*folder.glob("*.safetensors"), *(folder / ADAPTER_DIR).glob("*.safetensors")):
                apply_default_mode(path)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        if not has_adapters(model):
            if state_dict is None and not isinstance(model, PreTrainedModel):
                state_dict = to_savable_state(cast(nn.Module, self.model))
            super()._save(output_dir, state_dict)
            return
        output_dir = output_dir_of(self.args) if output_dir is None else output_dir
        # Adapters are not merged in checkpoints, nor in sharded models, which pass a gathered state dict.
        merges = self.args.should_save and self._unfinished is None and state_dict is None
        merged = copy_with_merged_adapters(model) if merges and getattr(self.args, "merge_adapters", True) else None
        if merged is None:
            super()._save(output_dir, state_dict)
            if self.args.should_save:
                save_whole_config(model, output_dir)
            return
        folder = os.path.join(output_dir, ADAPTER_DIR)
        model.save_pretrained(folder)
        Path(folder, REPOCARD_NAME).unlink(missing_ok=True)  # PEFT's card is an empty form
        save_whole_config(model, folder)
        if self.processing_class is not None:
            self.processing_class.save_pretrained(folder)
        wrapped, self.model = self.model, merged
        try:
            super()._save(output_dir)
        finally:
            self.model = wrapped

    def _get_output_dir(self, trial: Any) -> str:
        return super()._get_output_dir(trial) if self._unfinished is None else str(self._unfinished)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        if self._unfinished is None:  # files must not move while they are uploaded in the background
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
            # If the number of processes has changed, the sums are approximate until the next log.
            self._process_state = states[self.args.process_index % len(states)]

    def get_train_dataloader(self) -> DataLoader:
        """Return the training loader. For a stream that splits itself by process, it bypasses accelerate."""
        if not getattr(self.train_dataset, "splits_by_process", False):
            return super().get_train_dataloader()
        return DataLoader(
            cast(IterableDataset, self.train_dataset),
            batch_size=self._train_batch_size,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
            persistent_workers=self.args.dataloader_persistent_workers,
            prefetch_factor=self.args.dataloader_prefetch_factor,
            multiprocessing_context=self.args.dataloader_multiprocessing_context,
            in_order=self.args.dataloader_in_order,
            worker_init_fn=start_worker,
            generator=torch.Generator().manual_seed(self.args.seed),
        )

    def _init_training_state(self, *args: Any, **kwargs: Any) -> tuple[int, int]:
        base = std_logging.getLogger("transformers.trainer")
        base.addFilter(_keep_warning)
        try:
            epochs, batches = super()._init_training_state(*args, **kwargs)
        finally:
            base.removeFilter(_keep_warning)
        if self._resumed_from is not None and not has_length(self.train_dataset):
            epochs, batches = self._position_in_stream(self._resumed_from) or (epochs, batches)
        self._find_best_checkpoint()
        leave_blank = getattr(self.train_dataset, "leave_blank", None)
        if leave_blank is not None:
            leave_blank(batches, self._train_batch_size)
        return epochs, batches

    def _position_in_stream(self, checkpoint: Path) -> tuple[int, int] | None:
        """Return the completed passes over a stream and the batches of the current one; None in the first pass.

        For a data set without a length, the base class assumes a single pass, and skips more batches than a pass has.
        """
        before = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
        passes, share = divmod(before.epoch or 0, 1)
        updates = round(share * before.max_steps)
        if passes * before.max_steps + updates == before.global_step:
            return None
        return int(passes), 0 if self.args.ignore_data_skip else updates * self.args.gradient_accumulation_steps

    def _find_best_checkpoint(self) -> None:
        """Look up the best checkpoint in the folder that the run is resumed from, which may have moved."""
        step = self.state.best_global_step
        if self._resumed_from is None or not step:
            return
        best = RunCheckpoints(self._resumed_from.parent).path(step)
        if best.is_dir():
            self.state.best_model_checkpoint = str(best)
        elif self.state.best_model_checkpoint is None and self.args.load_best_model_at_end:
            logger.warning(
                f"The best checkpoint so far, {best.name}, is no longer in {best.parent}, so it cannot be loaded at "
                "the end of training."
            )

    def _load_best_model(self) -> None:
        assert self.state.best_model_checkpoint is not None  # checked by the base class
        best = Path(self.state.best_model_checkpoint)
        if problems := find_weight_problems(best):
            raise FileNotFoundError(
                f"The best checkpoint, {best}, cannot be loaded: {first_few(problems, 3)}. Training has finished: "
                "resume from the last checkpoint with --load_best_model_at_end False to keep its final weights"
            )
        self._load_all_weights(best, super()._load_best_model)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        load = super()._load_from_checkpoint
        self._load_all_weights(Path(resume_from_checkpoint), lambda: load(resume_from_checkpoint, model))

    def _load_all_weights(self, checkpoint: Path, load: Callable[[], None]) -> None:
        """Load a checkpoint with the base class, and check that no weight was missed."""
        model = self.model
        assert model is not None
        if self.is_fsdp_enabled:  # FSDP saves the model's own names, and torch requires all
            load()
            return
        if has_adapters(model):
            require_all_adapters(model, checkpoint)
        self._load_result = None
        with accept_saved_names(model) as understood:
            load()
        if self._load_result is not None:
            missing, unexpected = (set(names) - understood for names in self._load_result)
            require_all_weights(model, missing, unexpected, str(checkpoint))

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        if self.is_fsdp_enabled:
            super()._issue_warnings_after_load(load_result)
        self._load_result = load_result

    def _finalize_training(self, trial: Any, *args: Any, **kwargs: Any) -> TrainOutput:
        best = self.state.best_model_checkpoint
        if self.args.should_save and self.args.save_total_limit == 1 and best is not None and Path(best).is_dir():
            # The base class would delete them too, but file by file.
            checkpoints = RunCheckpoints(self._get_output_dir(trial))
            for path in checkpoints.all():
                if not path.samefile(best):
                    checkpoints.remove(path)
        if self.args.world_size > 1:  # base class: only the main process's `train_loss`
            self._tr_loss = cast(torch.Tensor, self.accelerator.reduce(self._tr_loss, reduction="mean"))
        output = super()._finalize_training(trial, *args, **kwargs)
        return output._replace(training_loss=output.metrics["train_loss"])


class _TrainingStages(TrainerCallback):
    """Tells the trainer when training starts and when an epoch ends."""

    def __init__(self, trainer: ResumableTrainer) -> None:
        self._trainer = weakref.proxy(trainer)  # a strong reference would keep the trainer and its workers alive

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._trainer.start_training()

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._trainer.end_epoch()


def _keep_warning(record: std_logging.LogRecord) -> bool:
    return not record.getMessage().startswith("The best checkpoint ")  # `_find_best_checkpoint` handles it


def _last_common_checkpoint(checkpoints: RunCheckpoints) -> Path:
    # If each machine keeps its own checkpoints, a machine may have been killed before it wrote its last one.
    names = gather_object([[path.name for path in checkpoints.adopt_finished()]])
    common = [name for name in names[0] if all(name in others for others in names)]
    for path in (checkpoints.folder / name for name in reversed(common)):
        if all(gather_object([checkpoints.is_complete(path)])):
            return path
    incomplete = "; ".join(
        f"{path.name}: {first_few(problems, 3)}" for path, problems in checkpoints.incomplete().items()
    )
    raise ValueError(
        f"No valid checkpoint found in output directory ({checkpoints.folder})"
        + (f", only incomplete ones ({incomplete})" if incomplete else "")
        + "; to start over, train without resume_from_checkpoint"
    )
