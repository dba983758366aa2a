"""A rehearsal: tries everything that a run does, except its updates, on two clips before the first update."""

import copy
import dataclasses
import shutil
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import gather_object
from datasets import DatasetDict
from safetensors.torch import load_file
from torch import nn
from transformers import PrinterCallback
from transformers.integrations import get_reporting_integration_callbacks
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import logging

from hf_gradalign.data.view_maker import seeded_generators
from hf_gradalign.experiment.arguments import AudioSpoofTrainingArguments, RunArguments
from hf_gradalign.experiment.corpora import system_column
from hf_gradalign.experiment.file_names import ARGUMENTS_NAME
from hf_gradalign.experiment.preparation import Preparation
from hf_gradalign.experiment.publication import write_run_card
from hf_gradalign.experiment.results import error_rates_by_system, summary_table
from hf_gradalign.experiment.training_run import SetupError, make_trainer, score_splits
from hf_gradalign.scoring import write_score_file
from hf_gradalign.training import GradientAlignmentTrainer
from hf_gradalign.training.adapters import checkpoint_names
from hf_gradalign.training.checkpoint_weights import require_all_weights, to_model_names
from hf_gradalign.training.conflicts.figures import FIGURES_DIR, can_draw
from hf_gradalign.training.conflicts.record import PARQUET_NAME, RUNNING_NAME
from hf_gradalign.utils.messages import is_outside_fault

logger = logging.get_logger(__name__)

# The underscore excludes it from pushes to the Hub, in case the process is killed in the meantime.
REHEARSAL_DIR = "_rehearsal"


def rehearse(
    preparation: Preparation, run: RunArguments, *, folder: str | Path | None = None, saves: bool = True
) -> None:
    """Evaluate, score, save a checkpoint, and write results and model card, on two clips of each split.

    Everything is written to a folder that is deleted at the end. Weights, random states and the outputs of the run do
    not change. In a distributed run every process must call this, and all fail together. With FSDP, which would shard
    the model, nothing is evaluated or saved.

    Args:
        preparation: Data and model of the run.
        run: The run's arguments, with their `output_dir` settled.
        folder: Where to create the temporary folder; by default in the run's folder, which is removed if anything
            fails.
        saves: Whether to save a checkpoint, which is as large as the run's checkpoints.

    Raises:
        ValueError: If something fails. The message says what failed and what to do.
        OSError: If the disk is full or fails. Other faults of the machine (`is_outside_fault`) are raised too.
    """
    args = run.training
    parent = args.run_folder if folder is None else Path(folder)
    cuda = [args.device] if args.device.type == "cuda" else []
    with (
        torch.random.fork_rng(devices=cuda),
        seeded_generators(np.random.SeedSequence(0)),
        _restore_model(preparation.model),
    ):
        _on_every_process("reporting", lambda: _check_reports(args))
        with _temporary_folder(parent, args) as temporary:
            rehearsal = _Rehearsal(preparation, run, temporary)
            _on_every_process("reading the clips", rehearsal.read)
            if not rehearsal.trainer.is_fsdp_enabled:
                # Processes wait for each other within these steps, so a failing process cannot tell the others.
                with _name_step_in_errors("evaluation"):
                    rehearsal.evaluate()
                with _name_step_in_errors("making the optimizer"):
                    rehearsal.trainer.create_optimizer_and_scheduler(num_training_steps=1)
                if saves:
                    with _name_step_in_errors("saving a checkpoint"):
                        rehearsal.save()
            _on_every_process("writing the results", rehearsal.write)


class _Refusal(ValueError):
    """An error whose message needs no more context."""


class _Rehearsal:
    """The steps of a rehearsal, in order."""

    def __init__(self, preparation: Preparation, run: RunArguments, folder: Path) -> None:
        self.whole, self.whole_run = preparation, run
        self.args = _arguments(run.training, folder)
        self.run = dataclasses.replace(run, training=self.args)
        self.folder = folder
        chosen = {split: _one_of_each(preparation.corpus[split]["label"][:]) for split in preparation.eval_datasets}
        clips = {split: preparation.corpus[split].select(indices) for split, indices in chosen.items()}
        datasets = {split: preparation.eval_datasets[split].select(indices) for split, indices in chosen.items()}
        self.preparation = dataclasses.replace(preparation, corpus=DatasetDict(dict(clips)), eval_datasets=datasets)
        with _name_step_in_errors("making the trainer"):
            self.trainer = make_trainer(self.preparation, self.args)
        self.trainer.remove_callback(PrinterCallback)
        self.results = None

    def read(self) -> None:
        for dataset in self.preparation.eval_datasets.values():
            self.trainer.data_collator([dataset[index] for index in range(len(dataset))])

    def evaluate(self) -> None:
        metrics = self.trainer.evaluate()
        _check_metric(self.whole_run.training, metrics)
        self.results = score_splits(self.trainer, self.preparation, self.run, {})

    def save(self) -> None:
        if self.args.save_strategy == "no":
            self.trainer.save_model(_internal_call=True)
            return
        self.trainer.rehearse_checkpoint()
        if self.trainer.is_world_process_zero():
            _check_weights(self.trainer)

    def write(self) -> None:
        if not self.trainer.is_world_process_zero():
            return
        for split in self.whole.eval_datasets:
            clips = self.whole.corpus[split]
            labels = clips["label"][:]
            scores = np.linspace(-1, 1, len(labels))
            # Uses the names and systems of all clips, not only of two.
            write_score_file(self.folder / f"scores_{split}.txt", clips["utterance_id"][:], scores.tolist())
            column = system_column(self.run.data, self.whole.eval_sources.get(split, self.run.data.corpora[0]))
            if column in clips.column_names:
                error_rates_by_system(scores, labels, clips[column][:])
        if self.results is not None:
            summary_table(self.results, self.args.align_gradients)
            write_run_card(self.results, self.preparation, self.run)
        if self.args.conflict_record != "none" and len(self.run.data.view_recipes) > 1 and not can_draw():
            logger.warning(
                "The model card will have no figures, because they need matplotlib (pip install matplotlib)."
            )
        _check_names(self.folder, self.whole_run.training.run_folder)


def _arguments(args: AudioSpoofTrainingArguments, folder: Path) -> AudioSpoofTrainingArguments:
    args = copy.copy(args)
    args.output_dir = str(folder)
    args.push_to_hub = args.dataloader_persistent_workers = False
    args.resume_from_checkpoint = args.dataloader_prefetch_factor = args.dataloader_multiprocessing_context = None
    args.dataloader_num_workers = 0  # not worth starting for two clips
    args.report_to = []
    args.disable_tqdm = True
    return args


def _one_of_each(labels: Sequence[int]) -> list[int]:
    """Return the index of the first clip of each class, in order."""
    return sorted(labels.index(label) for label in set(labels))


def _check_reports(args: AudioSpoofTrainingArguments) -> None:
    for name in args.report_to or ():
        try:
            for callback in get_reporting_integration_callbacks([name]):
                callback()
        except (ValueError, RuntimeError, ImportError) as error:
            raise _Refusal(f"--report_to {name}: {error}") from error


def _check_metric(args: AudioSpoofTrainingArguments, metrics: dict[str, float]) -> None:
    """Check that the metric that selects checkpoints exists under the name that the Trainer expects."""
    wanted = args.metric_for_best_model
    if wanted is None or args.eval_strategy == "no":
        return
    if f"eval_{wanted.removeprefix('eval_')}" not in metrics:
        measured = [name.removeprefix("eval_") for name in metrics if name.startswith("eval_")]
        known = ", ".join(name for name in measured if not name.endswith(("_per_second", "time", "threshold")))
        raise _Refusal(f"--metric_for_best_model {wanted} is not measured; available: {known}")


def _check_weights(trainer: GradientAlignmentTrainer) -> None:
    """Check that a checkpoint has all weights of the model, under names that can be loaded."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    for path in Path(trainer.run_folder).glob(f"{PREFIX_CHECKPOINT_DIR}-*/*.safetensors"):
        saved, names = set(to_model_names(model, load_file(path))), checkpoint_names(model)
        try:
            require_all_weights(model, names - saved, saved - names, "a saved checkpoint")
        except ValueError as error:
            raise _Refusal(
                f"The weights of this model cannot be restored ({error}): use --save_strategy no, "
                "--load_best_model_at_end no and --average_best_checkpoints 1"
            ) from error


def _check_names(written: Path, folder: Path) -> None:
    """Check that no folder has the name of a file that the run writes, and no file the name of a folder."""
    paths = [path for parent in (written, *written.glob(f"{PREFIX_CHECKPOINT_DIR}-*")) for path in parent.iterdir()]
    is_folder = {path.name: path.is_dir() for path in paths}
    is_folder |= {ARGUMENTS_NAME: False, RUNNING_NAME: False, PARQUET_NAME: False, FIGURES_DIR: True}
    for name, expected in is_folder.items():
        path = folder / name
        if path.exists() and path.is_dir() != expected:
            actual, wanted = ("a file", "a folder") if expected else ("a folder", "a file")
            raise _Refusal(f"{path} is {actual}, but the run writes {wanted} there: move it away")


@contextmanager
def _temporary_folder(parent: Path, args: AudioSpoofTrainingArguments) -> Generator[Path]:
    """Give every process the same folder. It is deleted at the end, and so is a new `parent` if anything fails."""
    new = [path for path in (parent, *parent.parents) if not path.exists()]
    folder = parent / REHEARSAL_DIR
    succeeded = False
    try:
        _on_every_process("writing to the output folder", lambda: _make(folder) if args.should_save else None)
        yield folder
        succeeded = True
    finally:
        if args.should_save:
            shutil.rmtree(folder, ignore_errors=True)
            for path in [] if succeeded else new:
                if path.is_dir() and not any(path.iterdir()):
                    path.rmdir()


def _make(folder: Path) -> None:
    if folder.is_dir():
        shutil.rmtree(folder)  # from a run that was killed
    folder.mkdir(parents=True)


@contextmanager
def _restore_model(model: nn.Module) -> Generator[None]:
    """On exit, restore a model's training modes and remove the attributes that accelerate added."""
    attributes = dict(vars(model))
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        vars(model).clear()
        vars(model).update(attributes)
        for module, training in modes:
            module.training = training


def _on_every_process(step: str, work: Callable[[], None]) -> None:
    """Do a step in which no process waits for another. If it fails on one process, fail on all of them."""
    problem, cause = None, None
    try:
        with _name_step_in_errors(step):
            work()
    except Exception as error:
        problem, cause = str(error), error
    problems = [each for each in gather_object([problem]) if each is not None]
    if problems:
        raise cause or ValueError(problems[0])


@contextmanager
def _name_step_in_errors(step: str) -> Generator[None]:
    """Add to errors which step failed, and that training has not started."""
    try:
        yield
    except (_Refusal, SetupError):
        raise
    except Exception as error:  # any error here would otherwise occur after training
        if is_outside_fault(error):
            raise  # the command tells what to do
        reason = str(error) or type(error).__name__
        if not isinstance(error, ValueError | OSError):
            reason = f"{type(error).__name__}: {reason}"
        raise ValueError(f"{step} was tried before training and failed: {reason}") from error
