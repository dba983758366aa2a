"""What the process of one cell does."""

import contextlib
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

import numpy as np
from datasets import Dataset
from transformers import TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import logging

from hf_gradalign.data import load_corpus
from hf_gradalign.experiment import (
    Interrupted,
    check_resumed,
    keep_arguments,
    keep_fingerprint,
    make_arguments,
    prepare,
    read_arguments,
    rehearse,
    require_disk_space,
    resolve_output_folder,
    run,
)
from hf_gradalign.experiment.file_names import RESULTS_NAME
from hf_gradalign.metrics import METRICS
from hf_gradalign.scoring import SpoofScorer, read_score_file, score_corpus
from hf_gradalign.study.cell_folder import CellFolder, read_json
from hf_gradalign.study.definition import EvaluationSet, expand_variables
from hf_gradalign.study.epoch_rows import epoch_rows
from hf_gradalign.study.errors import StudyError
from hf_gradalign.study.run_meter import RunMeter
from hf_gradalign.study.table_files import require_same_clips, write_clips
from hf_gradalign.training.callbacks import BEST_CHECKPOINTS_DIR
from hf_gradalign.utils.file_locks import hold_lock
from hf_gradalign.utils.hub_waits import limit_hub_waits
from hf_gradalign.utils.library_bars import hide_library_bars

logger = logging.get_logger(__name__)

TABLE_METRICS = ("eer", "min_dcf", "cllr", "roc_auc")
INTERRUPTED = 130
_RESOURCES_NAME = "resources.json"


def run_cell(
    folder: CellFolder,
    clips_folder: Path,
    evaluation_sets: Sequence[EvaluationSet],
    tokens: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Train the cell unless that is done, score what is not scored, and write what came of it.

    Args:
        folder: With the cell's options.
        clips_folder: Gets a table of each evaluation set's clips, unless it is there.
        evaluation_sets: What it is scored on.
        tokens: Options that nothing writes down.

    Raises:
        Interrupted: On SIGINT or SIGTERM in training, after a checkpoint was saved.
        ValueError: If options, data or model cannot be used.
        OSError: If data or a model is not found.
    """
    # Loaded before training: a corpus that is not there must not be missed after it.
    clips = [_load(evaluation) for evaluation in evaluation_sets]
    for evaluation, each in zip(evaluation_sets, clips, strict=True):
        require_same_clips(each, evaluation, clips_folder)
    folder.scores.mkdir(exist_ok=True)
    if not folder.is_trained:
        _train(folder, tokens)
    # The states of optimisers and weights that nothing will need; the model itself is in the folder.
    for path in (*folder.path.glob(f"{PREFIX_CHECKPOINT_DIR}-*"), folder.path / BEST_CHECKPOINTS_DIR):
        shutil.rmtree(path, ignore_errors=True)
    results, resources = read_json(folder.path / RESULTS_NAME), read_json(folder.path / _RESOURCES_NAME)
    try:
        state = TrainerState.load_from_json(str(folder.path / TRAINER_STATE_NAME))
        described = _describe(results, state) | resources
        training, data = results["settings"]["training"], results["settings"]["data"]
        batch_size, rms_level = training["per_device_eval_batch_size"], data["rms_level"]
    except (KeyError, TypeError, ValueError) as error:
        raise StudyError(
            f"{RESULTS_NAME} or {TRAINER_STATE_NAME} in {folder.path} is not as the run wrote it "
            f"({type(error).__name__}: {error}). Delete the folder, and the study's command runs the cell again"
        ) from error
    scorer = SpoofScorer(folder.path, batch_size=batch_size, rms_level=rms_level)
    evaluations = [
        _evaluate(scorer, folder, clips_folder, evaluation, each)
        for evaluation, each in zip(evaluation_sets, clips, strict=True)
    ]
    names = [evaluation.name for evaluation in evaluation_sets]
    earlier = folder.outcome() or {"evaluations": []}  # of another study of the same cell, on other sets
    evaluations += [entry for entry in earlier["evaluations"] if entry["evaluation_set"] not in names]
    epochs = epoch_rows(state.log_history, folder.path)
    folder.finish({"run": described, "evaluations": evaluations, "epochs": epochs})
    folder.tell_progress(1.0)


def token_words(tokens: Mapping[str, str]) -> list[str]:
    """Tokens as words of a command line, which is none that the system shows."""
    return [f"--{name}={token}" for name, token in tokens.items()]


def _train(folder: CellFolder, tokens: Mapping[str, str]) -> None:
    words = [str(folder.options_file), "--output_dir", str(folder.path), "--resume_from_checkpoint", "last"]
    given = read_arguments([*words, *token_words(tokens)])
    model_args, data_args, args = make_arguments(given)
    args.output_dir, checkpoint = resolve_output_folder(
        args.output_dir, args.resume_from_checkpoint, args.align_gradients
    )
    preparation = prepare(model_args, data_args, args)
    fingerprint = check_resumed(preparation, model_args, data_args, args, checkpoint)
    preparation.eval_datasets.pop("test", None)  # the scorer's business
    require_disk_space(preparation, args)
    rehearse(preparation, model_args, data_args, args)
    keep_arguments(given, args.output_dir)
    keep_fingerprint(fingerprint, args.output_dir)
    meter = RunMeter(folder.path / _RESOURCES_NAME, folder.tell_progress)
    run(preparation, model_args, data_args, args, checkpoint, callbacks=[meter])


def _load(evaluation: EvaluationSet) -> Dataset:
    options = expand_variables(asdict(evaluation))
    return load_corpus(options["corpus"], splits=(evaluation.split,), subset=options["subset"])[evaluation.split]


def _evaluate(
    scorer: SpoofScorer, folder: CellFolder, clips_folder: Path, evaluation: EvaluationSet, clips: Dataset
) -> dict[str, Any]:
    score_file = folder.score_file(evaluation.name)
    report = score_corpus(scorer, clips, score_file, progress=False)
    write_clips(clips, evaluation, clips_folder)
    by_name = read_score_file(score_file)
    scores = np.array([by_name.get(name, np.nan) for name in clips["utterance_id"][:]])
    labels = np.array(clips["label"][:])
    there = np.isfinite(scores)
    metrics: dict[str, float | None] = dict.fromkeys(TABLE_METRICS)
    if len(np.unique(labels[there])) == 2:
        metrics = {name: METRICS[name](scores[there], labels[there]) for name in TABLE_METRICS}
    described = asdict(evaluation)
    return {
        "evaluation_set": described.pop("name"),
        **described,
        "n_clips": len(clips),
        "n_bad_clips": len(report.bad_clips),
        **metrics,
    }


def _describe(results: Mapping[str, Any], state: TrainerState) -> dict[str, Any]:
    training = results["settings"]["training"]
    batch = state.train_batch_size * training["gradient_accumulation_steps"]
    return {
        "n_updates": state.global_step,
        "n_forward_passes": state.global_step * batch * len(results["settings"]["views"]),
        "train_loss": results["train_loss"],
        "validation_loss": results["eval_loss"],
        "validation_eer": results["eval_eer"],
        "conflict_rate": results["train_conflict_rate"],
        "n_nonfinite_updates": results["train_nonfinite_updates"],
        "versions": results["versions"],
    }


def main(
    path: Path,
    clips_folder: Path,
    evaluation_sets: Sequence[EvaluationSet],
    parent: Connection,
    device: str | None = None,
    tokens: Mapping[str, str] = MappingProxyType({}),
) -> NoReturn:
    """Run a cell in this process, which is its own, and end it.

    The exit status is 130 if it was interrupted and can be gone on with. What it prints goes to the cell's log.

    Args:
        path: The cell's folder.
        clips_folder: As for `run_cell`.
        evaluation_sets: As for `run_cell`.
        parent: Nothing comes from it; when its other end closes, since the parent is gone, the cell ends, too.
        device: Number of the accelerator to take; by default any.
        tokens: As for `run_cell`.
    """
    folder = CellFolder(path)
    with folder.log.open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device  # nothing has looked at the accelerators yet
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
    limit_hub_waits()
    hide_library_bars(downloads=True)
    status = _status_of(lambda: run_cell(folder, clips_folder, evaluation_sets, tokens), folder)
    sys.exit(status)


def _status_of(work: Callable[[], None], folder: CellFolder) -> int:
    try:
        # The last start's process may still be saving a checkpoint.
        with hold_lock(
            folder.lock, f"the run in {folder.path}", lambda holder: logger.warning(f"waiting for {holder}")
        ):
            work()
    except Interrupted as interruption:
        logger.warning(str(interruption))
        return INTERRUPTED
    except KeyboardInterrupt:
        return INTERRUPTED
    except (ValueError, OSError) as error:
        logger.error(f"error: {error}")
        return 2
    except Exception:
        logger.exception("the cell failed")
        return 1
    return 0


def _end_with_parent(parent: Connection) -> None:
    """Do as if told to terminate (a checkpoint, then the end) when the parent's end closes."""
    with contextlib.suppress(EOFError, OSError):
        parent.recv()
    os.kill(os.getpid(), signal.SIGTERM)


__all__ = ["INTERRUPTED", "TABLE_METRICS", "main", "run_cell", "token_words"]
