"""Runs the trials of a study, several at a time, each in its own process."""

import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

import torch
from tqdm.auto import tqdm

from hf_gradalign.experiment import parse_arguments
from hf_gradalign.study import trial_process
from hf_gradalign.study.definition import Study, StudyError, Trial, expand_variables, refuse_tokens
from hf_gradalign.study.tables import CLIPS_DIR, LOCK_NAME, TRIALS_DIR, StudyTables, settings_row
from hf_gradalign.study.trial_folder import TrialFolder
from hf_gradalign.study.trial_process import token_words
from hf_gradalign.utils.file_locks import hold_lock

if TYPE_CHECKING:
    if sys.platform == "win32":
        from multiprocessing.connection import PipeConnection as Connection
        from multiprocessing.context import SpawnContext as Context
    else:
        from multiprocessing.connection import Connection
        from multiprocessing.context import ForkServerContext as Context

_POLL_EVERY = 0.5  # seconds
_LOG_EVERY = 60.0


@dataclass
class StudyReport:
    """The outcome of one start of a study.

    Attributes:
        n_trials: The number of trials of the study.
        n_finished_before: The number of trials that were finished before this start.
        finished: Trials that this start finished.
        failed: Logs of the trials that failed, by trial id.
        reasons: Why they failed, if the logs say so, by trial id.
        interrupted: Whether the study, or one of its trials, was stopped by Ctrl-C or a similar signal.
    """

    n_trials: int
    n_finished_before: int
    finished: list[Trial] = field(default_factory=list)
    failed: dict[str, Path] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False


class StudyRunner:
    """Runs the unfinished trials of a study.

    Each trial is a process that trains and scores in its own folder, and that resumes from its last checkpoint. When
    the runner is killed, its trials save a checkpoint and end. The next start waits for them.

    Args:
        study: The study.
        folder: The study's folder, with `cells/<trial>/` and the tables.
        slots: How many trials run at a time. They share the processor's cores, and accelerators are assigned in turn.
        progress: Show a progress bar over all updates of all trials.

    Raises:
        StudyError: If a trial's options are wrong, or an environment variable that the study file uses is not set.
    """

    def __init__(self, study: Study, folder: str | Path, *, slots: int = 1, progress: bool = True) -> None:
        if slots < 1:
            raise StudyError(f"slots must be at least 1, not {slots}")
        self.study = study
        self.folder = Path(folder)
        self.slots = slots
        self._progress = progress
        self._folders = {trial.id: TrialFolder(self.folder / TRIALS_DIR / trial.id) for trial in study.trials}
        self._clips = self.folder / CLIPS_DIR
        expand_variables([asdict(evaluation) for evaluation in study.evaluation_sets])
        self._tokens = expand_variables(study.tokens)
        self._connections: dict[str, Connection] = {}
        self._processes: dict[str, BaseProcess] = {}
        self._context = _make_context(slots)
        self._stopping = threading.Event()

    def run(self) -> StudyReport:
        """Run the unfinished trials, and write the tables whenever a trial finishes.

        Raises:
            LockHeldError: If another process is running a study in this folder.
            StudyError: If a trial's options are wrong.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with hold_lock(self.folder / LOCK_NAME, f"the study in {self.folder}"):
            return self._run()

    def _run(self) -> StudyReport:
        tables = StudyTables(self.folder)
        tables.update(self.study)  # the last start may have been killed before this step
        tables.refuse_mixing(self.study)
        tables.write_clips(self.study)
        pending = [trial for trial in self.study.trials if not tables.has(trial, self.study.evaluation_sets)]
        report = StudyReport(len(self.study.trials), len(self.study.trials) - len(pending))
        for trial in pending:
            self._check(trial)
        if pending and self._context.get_start_method() == "forkserver":
            _start_forkserver_without_ctrl_c()
        free: SimpleQueue[int] = SimpleQueue()
        for slot in range(self.slots):
            free.put(slot)
        with ThreadPoolExecutor(self.slots) as pool, _GridBar(self, pending, self._progress) as bar:
            try:
                jobs = {pool.submit(self._run_trial, trial, free): trial for trial in pending}
                self._watch(jobs, tables, report, bar)
            except KeyboardInterrupt:
                report.interrupted = True
                self._stop(pool)
                tables.update(self.study)
            except BaseException:  # such as a full disk, on which all other trials would fail
                self._stop(pool)
                raise
        return report

    def _watch(self, jobs: dict[Future[int], Trial], tables: StudyTables, report: StudyReport, bar: "_GridBar") -> None:
        waiting = set(jobs)
        while waiting:
            done, waiting = wait(waiting, timeout=_POLL_EVERY, return_when=FIRST_COMPLETED)
            for job in done:
                self._record(jobs[job], job.result(), report)
            if done:
                tables.update(self.study)
            bar.show(report)

    def _stop(self, pool: ThreadPoolExecutor) -> None:
        """Make the running trials save a checkpoint and end, and do not start others."""
        self._stopping.set()
        for connection in list(self._connections.values()):
            connection.close()  # for the trial, this looks as if this process had died
        try:
            pool.shutdown(wait=True, cancel_futures=True)
        except KeyboardInterrupt:  # pressed again: do not even wait for checkpoints
            for process in list(self._processes.values()):
                process.kill()
            pool.shutdown(wait=True)

    def _record(self, trial: Trial, status: int, report: StudyReport) -> None:
        if status == 0:
            report.finished.append(trial)
        elif self._stopping.is_set() or status == trial_process.INTERRUPTED:
            report.interrupted = True  # perhaps only this trial
        else:
            folder = self._folders[trial.id]
            report.failed[trial.id] = folder.log
            is_killed = sys.platform != "win32" and status == -signal.SIGKILL
            killed = "killed, perhaps for lack of memory" if is_killed else f"exit status {status}"
            report.reasons[trial.id] = folder.error() or killed

    def _run_trial(self, trial: Trial, free: "SimpleQueue[int]") -> int:
        slot = free.get()
        try:
            return trial_process.INTERRUPTED if self._stopping.is_set() else self._run_in(slot, trial)
        except OSError as error:
            raise OSError(error.errno, error.strerror, error.filename or str(self._folders[trial.id].path)) from error
        finally:
            free.put(slot)

    def _run_in(self, slot: int, trial: Trial) -> int:
        folder = self._folders[trial.id]
        folder.write_options({"disable_tqdm": True, **expand_variables(trial.options)})
        folder.write_settings(settings_row(trial))
        with folder.log.open("a", encoding="utf-8") as log:
            log.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} {trial.title}\n")
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=trial_process.main,
            args=(folder.path, self._clips, self.study.evaluation_sets, theirs, self._device(slot), self._tokens),
        )
        try:
            process.start()
            theirs.close()
            self._connections[trial.id], self._processes[trial.id] = ours, process
            if self._stopping.is_set():  # since the last check
                ours.close()
            process.join()
            assert process.exitcode is not None, "it was joined"
            return process.exitcode
        finally:
            self._connections.pop(trial.id, None)
            self._processes.pop(trial.id, None)
            ours.close()

    def _device(self, slot: int) -> str | None:
        chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
        devices = chosen.split(",") if chosen else [str(number) for number in range(torch.cuda.device_count())]
        return devices[slot % len(devices)] if devices else None

    def _check(self, trial: Trial) -> None:
        options = expand_variables(trial.options)
        refuse_tokens(options)
        try:
            with tempfile.TemporaryDirectory() as folder:
                draft = TrialFolder(folder)
                draft.write_options(options)
                parse_arguments([str(draft.options_file), *token_words(self._tokens)])
        except SystemExit:  # argparse has printed what is wrong
            raise StudyError(f"the options of the trial {trial.title} are wrong (see above)") from None


def _make_context(slots: int) -> "Context":
    """Return how processes start: where possible, forked from a server that has imported everything."""
    # Libraries read this variable when they first need threads. It has the same value for all trials.
    os.environ["OMP_NUM_THREADS"] = str(max(1, _cores() // slots))
    if sys.platform in ("win32", "darwin"):  # one has no fork; on the other, Apple's GPU fails in a forked process
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([trial_process.__name__])
    return context


def _start_forkserver_without_ctrl_c() -> None:
    """Start the fork server and make it, and the trials it forks, ignore Ctrl-C. This process then ends the trials.

    Otherwise the server would print a traceback if Ctrl-C is pressed while it imports.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    from multiprocessing import forkserver  # not available on Windows

    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        forkserver.ensure_running()
    finally:
        signal.signal(signal.SIGINT, previous)


def _cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


class _GridBar:
    """A progress bar over the work of all trials: their views times their epochs."""

    def __init__(self, runner: StudyRunner, pending: Sequence[Trial], visible: bool) -> None:
        self._runner = runner
        self._pending = pending
        self._work = {trial.id: trial.n_views * float(trial.settings["epochs"]) for trial in runner.study.trials}
        total = sum(self._work.values())
        before = total - sum(self._work[trial.id] for trial in pending)
        self._before = before
        self._every = 0.0 if sys.stderr.isatty() else _LOG_EVERY
        self._updated = -_LOG_EVERY
        self._bar = tqdm(
            total=total,
            initial=before,
            disable=not visible,
            smoothing=0,  # trials differ, so the average rate since the start predicts best
            desc=runner.study.name,
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed} elapsed, {remaining} left{postfix}",
        )

    def __enter__(self) -> "_GridBar":
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()

    def show(self, report: StudyReport) -> None:
        """Update the bar. In a file, which keeps every line, it is updated once a minute."""
        if time.monotonic() - self._updated < self._every:
            return
        self._updated = time.monotonic()
        done = self._before
        ended = {trial.id for trial in report.finished} | set(report.failed)
        for trial in self._pending:
            fraction = 1.0 if trial.id in ended else self._runner._folders[trial.id].progress()
            done += fraction * self._work[trial.id]
        self._bar.n = done
        n_finished = report.n_finished_before + len(report.finished)
        running = len(self._runner._connections)
        text = f", {n_finished} of {report.n_trials} trials finished, {running} running"
        self._bar.set_postfix_str((text + f", {len(report.failed)} failed" * bool(report.failed)).lstrip(", "))
