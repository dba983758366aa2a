"""Runs a study's cells, some side by side, each in a process of its own."""

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
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from queue import SimpleQueue

import torch
from tqdm.auto import tqdm

from hf_gradalign.experiment import parse_arguments
from hf_gradalign.study import cell_process
from hf_gradalign.study.cell import Cell
from hf_gradalign.study.cell_folder import CellFolder
from hf_gradalign.study.cell_process import token_words
from hf_gradalign.study.definition import Study, expand_variables, refuse_tokens
from hf_gradalign.study.errors import StudyError
from hf_gradalign.study.tables import CELLS_DIR, CLIPS_DIR, LOCK_NAME, StudyTables, settings_row
from hf_gradalign.utils.file_locks import hold_lock

_LOOK_EVERY = 0.5  # seconds
_LOG_EVERY = 60.0


@dataclass
class StudyReport:
    """What a start of a study came to.

    Attributes:
        n_cells: Cells of the study.
        n_finished_before: Of them finished when it started.
        finished: Cells that this start finished.
        failed: Cells that failed, with their logs.
        reasons: Why, as far as the logs say.
        interrupted: Whether it, or a cell, was stopped by Ctrl-C or the like.
    """

    n_cells: int
    n_finished_before: int
    finished: list[Cell] = field(default_factory=list)
    failed: dict[str, Path] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False


class StudyRunner:
    """Runs what is not finished of a study.

    Every cell is a process that trains and scores in a folder of its own and is resumed from its last checkpoint.
    When the runner is killed, its cells save a checkpoint and end; the next start waits for that.

    Args:
        study: The study.
        folder: Its folder: `cells/<cell>/`, and the tables.
        slots: Cells side by side. The processor's cores are shared out among them, and accelerators are assigned in
            turn.
        progress: Show a progress bar over all updates of all cells.

    Raises:
        StudyError: If a cell's options are wrong, or an environment variable that the file names is not set.
    """

    def __init__(self, study: Study, folder: str | Path, *, slots: int = 1, progress: bool = True) -> None:
        if slots < 1:
            raise StudyError(f"there must be a slot at least, not {slots}")
        self.study = study
        self.folder = Path(folder)
        self.slots = slots
        self._progress = progress
        self._cells = {cell.id: CellFolder(self.folder / CELLS_DIR / cell.id) for cell in study.cells}
        self._clips = self.folder / CLIPS_DIR
        expand_variables([asdict(evaluation) for evaluation in study.evaluation_sets])
        self._tokens = expand_variables(study.tokens)
        self._connections: dict[str, Connection] = {}
        self._processes: dict[str, BaseProcess] = {}
        self._context = _make_context(slots)
        self._stopping = threading.Event()

    def run(self) -> StudyReport:
        """Run the cells that are not finished, and write the tables whenever one is.

        Raises:
            LockHeldError: If another process is running a study in this folder.
            StudyError: If a cell's options are wrong.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with hold_lock(self.folder / LOCK_NAME, f"the study in {self.folder}"):
            return self._run()

    def _run(self) -> StudyReport:
        tables = StudyTables(self.folder)
        tables.update(self.study)  # a kill may have come before that
        tables.refuse_mixing(self.study)
        tables.write_clips(self.study)
        pending = [cell for cell in self.study.cells if not tables.has(cell, self.study.evaluation_sets)]
        report = StudyReport(len(self.study.cells), len(self.study.cells) - len(pending))
        for cell in pending:
            self._check(cell)
        if pending and self._context.get_start_method() == "forkserver":
            _start_deaf_server()
        free: SimpleQueue[int] = SimpleQueue()
        for slot in range(self.slots):
            free.put(slot)
        with ThreadPoolExecutor(self.slots) as pool, _GridBar(self, pending, self._progress) as bar:
            try:
                self._watch({pool.submit(self._run_cell, cell, free): cell for cell in pending}, tables, report, bar)
            except KeyboardInterrupt:
                report.interrupted = True
                self._stop(pool)
                tables.update(self.study)
            except BaseException:  # such as a full disk: what follows would fail, too
                self._stop(pool)
                raise
        return report

    def _watch(self, jobs: dict[Future[int], Cell], tables: StudyTables, report: StudyReport, bar: "_GridBar") -> None:
        waiting = set(jobs)
        while waiting:
            done, waiting = wait(waiting, timeout=_LOOK_EVERY, return_when=FIRST_COMPLETED)
            for job in done:
                self._take(jobs[job], job.result(), report)
            if done:
                tables.update(self.study)
            bar.show(report)

    def _stop(self, pool: ThreadPoolExecutor) -> None:
        """Have the cells at hand save a checkpoint and end, and start no other."""
        self._stopping.set()
        for connection in list(self._connections.values()):
            connection.close()  # as if this process were gone; Ctrl-C in a terminal has reached them, too
        try:
            pool.shutdown(wait=True, cancel_futures=True)
        except KeyboardInterrupt:  # once more: not even a checkpoint is waited for
            for process in list(self._processes.values()):
                process.kill()
            pool.shutdown(wait=True)

    def _take(self, cell: Cell, status: int, report: StudyReport) -> None:
        if status == 0:
            report.finished.append(cell)
        elif self._stopping.is_set() or status == cell_process.INTERRUPTED:
            report.interrupted = True  # maybe the cell alone
        else:
            report.failed[cell.id] = self._cells[cell.id].log
            killed = "killed, perhaps for memory" if status == -signal.SIGKILL else f"exit status {status}"
            report.reasons[cell.id] = self._cells[cell.id].error() or killed

    def _run_cell(self, cell: Cell, free: "SimpleQueue[int]") -> int:
        slot = free.get()
        try:
            return cell_process.INTERRUPTED if self._stopping.is_set() else self._run_in(slot, cell)
        except OSError as error:
            raise OSError(error.errno, error.strerror, error.filename or str(self._cells[cell.id].path)) from error
        finally:
            free.put(slot)

    def _run_in(self, slot: int, cell: Cell) -> int:
        folder = self._cells[cell.id]
        folder.write_options({"disable_tqdm": True, **expand_variables(cell.options)})
        folder.write_settings(settings_row(cell))
        with folder.log.open("a", encoding="utf-8") as log:
            log.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} {cell.title}\n")
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=cell_process.main,
            args=(folder.path, self._clips, self.study.evaluation_sets, theirs, self._device(slot), self._tokens),
        )
        try:
            process.start()
            theirs.close()
            self._connections[cell.id], self._processes[cell.id] = ours, process
            if self._stopping.is_set():  # since it was looked at
                ours.close()
            process.join()
            return process.exitcode
        finally:
            self._connections.pop(cell.id, None)
            self._processes.pop(cell.id, None)
            ours.close()

    def _device(self, slot: int) -> str | None:
        chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
        devices = chosen.split(",") if chosen else [str(number) for number in range(torch.cuda.device_count())]
        return devices[slot % len(devices)] if devices else None

    def _check(self, cell: Cell) -> None:
        options = expand_variables(cell.options)
        refuse_tokens(options)
        try:
            with tempfile.TemporaryDirectory() as folder:
                file = CellFolder(folder)
                file.write_options(options)
                parse_arguments([str(file.options_file), *token_words(self._tokens)])
        except SystemExit:  # argparse has said what is wrong
            raise StudyError(f"the options of the cell {cell.title} are wrong (see above)") from None


def _make_context(slots: int) -> BaseContext:
    """How cells' processes are started: from one that has imported everything, where the system can."""
    # It is read when the processor's threads are first needed, and the same for all cells.
    os.environ["OMP_NUM_THREADS"] = str(max(1, _cores() // slots))
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([cell_process.__name__])
    return context


def _start_deaf_server() -> None:
    """Start the process that cells come from, such that Ctrl-C reaches this one alone, which has the cells end.

    While it imports, Ctrl-C would have it print a traceback.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    from multiprocessing import forkserver  # Windows has none

    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        forkserver.ensure_running()
    finally:
        signal.signal(signal.SIGINT, previous)


def _cores() -> int:
    """The processor's cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


class _GridBar:
    """A progress bar over the work of all cells: their views times their epochs."""

    def __init__(self, runner: StudyRunner, pending: Sequence[Cell], shown: bool) -> None:
        self._runner = runner
        self._pending = pending
        self._work = {cell.id: cell.views * float(cell.settings["epochs"]) for cell in runner.study.cells}
        total = sum(self._work.values())
        before = total - sum(self._work[cell.id] for cell in pending)
        self._before = before
        self._every = 0.0 if sys.stderr.isatty() else _LOG_EVERY
        self._shown = -_LOG_EVERY
        self._bar = tqdm(
            total=total,
            initial=before,
            disable=not shown,
            smoothing=0,  # cells differ: the rate of all of this start says most
            desc=runner.study.name,
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed} gone, {remaining} left{postfix}",
        )

    def __enter__(self) -> "_GridBar":
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()

    def show(self, report: StudyReport) -> None:
        """Bring it up to date; in a file, which keeps every line, now and then."""
        if time.monotonic() - self._shown < self._every:
            return
        self._shown = time.monotonic()
        done = self._before
        over = {cell.id for cell in report.finished} | set(report.failed)
        for cell in self._pending:
            share = 1.0 if cell.id in over else self._runner._cells[cell.id].progress()
            done += share * self._work[cell.id]
        self._bar.n = done
        n_finished = report.n_finished_before + len(report.finished)
        running = len(self._runner._connections)
        text = f", {n_finished} of {report.n_cells} cells finished, {running} running"
        self._bar.set_postfix_str((text + f", {len(report.failed)} failed" * bool(report.failed)).lstrip(", "))


__all__ = ["StudyReport", "StudyRunner"]
