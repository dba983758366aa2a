"""Runs one trial in its process: trains, scores, and writes the result."""

import contextlib
import json
import os
import shutil
import signal
import statistics
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

import numpy as np
from datasets import Dataset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import logging

from hf_gradalign.data import load_corpus
from hf_gradalign.experiment import Interrupted, parse_arguments, run_experiment
from hf_gradalign.experiment.file_names import RESULTS_NAME
from hf_gradalign.metrics import METRICS
from hf_gradalign.scoring import SpoofScorer, read_score_file, score_corpus
from hf_gradalign.study.definition import EvaluationSet, StudyError, expand_variables
from hf_gradalign.study.epoch_rows import epoch_rows
from hf_gradalign.study.table_files import require_same_clips, write_clips
from hf_gradalign.study.trial_folder import TrialFolder, read_json
from hf_gradalign.training.callbacks import BEST_CHECKPOINTS_DIR
from hf_gradalign.utils.file_locks import hold_lock
from hf_gradalign.utils.files import write_text_atomically
from hf_gradalign.utils.hub_waits import limit_hub_waits
from hf_gradalign.utils.memory import peak_memory
from hf_gradalign.utils.third_party import hide_library_bars

logger = logging.get_logger(__name__)

TABLE_METRICS = ("eer", "min_dcf", "cllr", "roc_auc")
INTERRUPTED = 130
_RESOURCES_NAME = "resources.json"
_REPORT_EVERY = 1.0  # seconds
_MAX_DURATIONS = 10_000  # a median needs no more


def run_trial(
    folder: TrialFolder,
    clips_folder: Path,
    evaluation_sets: Sequence[EvaluationSet],
    tokens: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Train the model and score the sets, unless this was done before, and write the result.

    Args:
        folder: The trial's folder, with its options.
        clips_folder: Folder for a table of the clips of each evaluation set. Existing tables are kept.
        evaluation_sets: The sets to score.
        tokens: Access tokens, which are never written to disk.

    Raises:
        Interrupted: On SIGINT or SIGTERM in training, after a checkpoint was saved.
        ValueError: If options, data or model cannot be used.
        OSError: If data or a model is not found.
    """
    # Load the sets first, so that a missing corpus is an error before training and not after it.
    clips = [_load(evaluation) for evaluation in evaluation_sets]
    for evaluation, each in zip(evaluation_sets, clips, strict=True):
        require_same_clips(each, evaluation, clips_folder)
    folder.scores.mkdir(exist_ok=True)
    if not folder.is_trained:
        _train(folder, tokens)
    # Checkpoints are no longer needed. The model itself is in the folder.
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
            f"{RESULTS_NAME} or {TRAINER_STATE_NAME} in {folder.path} was changed after the run wrote it "
            f"({type(error).__name__}: {error}). Delete the folder, and run the study again to repeat the trial"
        ) from error
    scorer = SpoofScorer(folder.path, batch_size=batch_size, rms_level=rms_level)
    evaluations = [
        _evaluate(scorer, folder, clips_folder, evaluation, each)
        for evaluation, each in zip(evaluation_sets, clips, strict=True)
    ]
    names = [evaluation.name for evaluation in evaluation_sets]
    earlier = folder.outcome() or {"evaluations": []}  # from a study with the same trial and other sets
    evaluations += [entry for entry in earlier["evaluations"] if entry["evaluation_set"] not in names]
    epochs = epoch_rows(state.log_history, folder.path)
    folder.finish({"run": described, "evaluations": evaluations, "epochs": epochs})
    folder.write_progress(1.0)


def token_words(tokens: Mapping[str, str]) -> list[str]:
    """Return tokens as command-line words. They are only parsed in this process, so the system does not show them."""
    return [f"--{name}={token}" for name, token in tokens.items()]


def _train(folder: TrialFolder, tokens: Mapping[str, str]) -> None:
    words = [str(folder.options_file), "--output_dir", str(folder.path), "--resume_from_checkpoint", "last"]
    run = parse_arguments([*words, *token_words(tokens)])
    callback = ResourcesCallback(folder.path / _RESOURCES_NAME, folder.write_progress)
    run_experiment(run, evaluate_test=False, callbacks=[callback])  # the scorer evaluates on the test sets


def _load(evaluation: EvaluationSet) -> Dataset:
    options = expand_variables(asdict(evaluation))
    return load_corpus(options["corpus"], splits=(evaluation.split,), subset=options["subset"])[evaluation.split]


def _evaluate(
    scorer: SpoofScorer, folder: TrialFolder, clips_folder: Path, evaluation: EvaluationSet, clips: Dataset
) -> dict[str, Any]:
    score_file = folder.score_file(evaluation.name)
    report = score_corpus(scorer, clips, score_file, progress=False)
    write_clips(clips, evaluation, clips_folder)
    by_name = read_score_file(score_file)
    scores = np.array([by_name.get(name, np.nan) for name in clips["utterance_id"][:]])
    labels = np.array(clips["label"][:])
    is_scored = np.isfinite(scores)
    metrics: dict[str, float | None] = dict.fromkeys(TABLE_METRICS)
    if len(np.unique(labels[is_scored])) == 2:
        metrics = {name: METRICS[name](scores[is_scored], labels[is_scored]) for name in TABLE_METRICS}
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


class ResourcesCallback(TrainerCallback):
    """Times the updates of a run, reports its progress, and writes time and memory when training ends.

    The time of an update runs from its first micro-batch to the end of the optimizer step, without the wait for the
    loader. The callback does not synchronize with an accelerator, so single durations mean little there, but their
    median is fair. For a resumed run, the figures are for its last start.

    Args:
        file: JSON file for `seconds_per_update` (median without the first update) and `peak_memory_mib` (of the
            accelerator, or of the whole process without one).
        on_progress: Called with the fraction of updates that are done, at most once per second.
    """

    def __init__(self, file: str | Path, on_progress: Callable[[float], None] | None = None) -> None:
        self._file = Path(file)
        self._on_progress = on_progress
        self._seconds: list[float] = []
        self._reported = self._started = 0.0

    def on_step_begin(  # noqa: D102
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._started = time.perf_counter()

    def on_step_end(  # noqa: D102
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        now = time.perf_counter()
        if len(self._seconds) < _MAX_DURATIONS:
            self._seconds.append(now - self._started)
        if self._on_progress is not None and now - self._reported > _REPORT_EVERY and state.max_steps > 0:
            self._reported = now
            self._on_progress(state.global_step / state.max_steps)

    def on_train_end(  # noqa: D102
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if len(self._seconds) > 1 or not self._file.is_file():
            median = statistics.median(self._seconds[1:]) if len(self._seconds) > 1 else None
            content = {"seconds_per_update": median, "peak_memory_mib": peak_memory(args.device)}
            write_text_atomically(self._file, json.dumps(content) + "\n")


def main(
    path: Path,
    clips_folder: Path,
    evaluation_sets: Sequence[EvaluationSet],
    parent: Connection,
    device: str | None,
    tokens: Mapping[str, str],
) -> NoReturn:
    """Run a trial in this process, and end the process. Output goes to the trial's log.

    The exit status is 130 if the trial was interrupted and can be resumed.

    Args:
        path: The trial's folder.
        clips_folder: See `run_trial`.
        evaluation_sets: See `run_trial`.
        parent: A connection to the parent process. When its other end closes, the trial saves a checkpoint and ends.
        device: The number of the accelerator to use; None for any.
        tokens: See `run_trial`.
    """
    folder = TrialFolder(path)
    with folder.log.open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device  # no library has looked for accelerators yet
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
    limit_hub_waits()
    hide_library_bars(downloads=True)
    try:
        # The process of the last start may still be saving a checkpoint.
        with hold_lock(
            folder.lock, f"the run in {folder.path}", lambda holder: logger.warning(f"waiting for {holder}")
        ):
            run_trial(folder, clips_folder, evaluation_sets, tokens)
    except Interrupted as interruption:
        logger.warning(str(interruption))
        sys.exit(INTERRUPTED)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except (ValueError, OSError) as error:
        logger.error(f"error: {error}")
        sys.exit(2)
    except Exception:
        logger.exception("the trial failed")
        sys.exit(1)
    sys.exit(0)


def _end_with_parent(parent: Connection) -> None:
    """Send this process SIGTERM, on which it saves a checkpoint and ends, when the parent's end closes."""
    with contextlib.suppress(EOFError, OSError):
        parent.recv()
    if sys.platform == "win32":
        signal.raise_signal(signal.SIGTERM)  # `os.kill` would end the process without calling the handler
    else:
        os.kill(os.getpid(), signal.SIGTERM)
