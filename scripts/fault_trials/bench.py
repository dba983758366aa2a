"""Starts commands on the inputs, and keeps the results of uninterrupted commands."""

import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from fault_trials.outcomes import LOST, REFUSED, SAME, SILENT, Files, judge
from fault_trials.processes import CommandProcess
from fault_trials.world import Command, World

NOT_AVERAGED = "so it is not averaged"
# Text that tells the user what happened: an error, a skipped checkpoint, or another process that holds the folder.
MESSAGES = (
    "error: ",
    "is in use by",
    "is not complete and is skipped",
    "is damaged",
    "has changed since",
    NOT_AVERAGED,
    "so it will not be averaged",
    "interrupted",
)


class Bench:
    """Start commands, and keep the results of uninterrupted ones for comparison.

    Args:
        folder: Folder for the inputs and for one folder per trial.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.world = World(folder / "world")
        self.commands = self.world.commands()
        self._whole: dict[tuple[str, int], tuple[Files, float]] = {}

    def make_world(self) -> None:
        """Make the inputs once, including those that are made by commands."""
        if (self.world.folder / "made").is_file():
            return
        shutil.rmtree(self.world.folder, ignore_errors=True)
        self.world.folder.mkdir(parents=True)
        aside(self.world.make)
        for number in range(2):
            words = [str(self.world.models[number]), "--reverse", "--output_file", str(self.world.published[number])]
            self._make("convert_checkpoint", words)
            self._make("run_audio_spoof", self.world.training_words(self.world.runs[number], number))
            study = self.world.folder / f"study_folder_{number}"
            self._make("run_study", self.commands["study"].words(study, number))
        (self.world.folder / "made").touch()

    def _make(self, script: str, words: Sequence[str]) -> None:
        process = CommandProcess(script, words, self.world.folder / "log.txt")
        if process.wait() != 0:
            raise RuntimeError(f"{script} fails on a quiet machine:\n{process.output()[-2000:]}")

    def fresh(self, name: str, command: Command | None = None) -> Path:
        """Return an empty folder for a trial, or one that is prepared for a command."""
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "out").mkdir(parents=True)
        if command is not None:
            command.prepare(folder / "out")
        return folder

    def start(
        self, command: Command, folder: Path, variant: int = 0, *more: str, log: str = "log.txt"
    ) -> CommandProcess:
        """Start a command that writes to `<folder>/out`."""
        return CommandProcess(command.script, [*command.words(folder / "out", variant), *more], folder / log, folder)

    def whole(self, command: Command, variant: int = 0, *more: str) -> Files:
        """Return the results of the uninterrupted command."""
        return self._uninterrupted(command, variant, *more)[0]

    def seconds(self, command: Command, variant: int = 0) -> float:
        """Return how long the uninterrupted command takes."""
        return self._uninterrupted(command, variant)[1]

    def _uninterrupted(self, command: Command, variant: int, *more: str) -> tuple[Files, float]:
        key = (command.name, variant)
        if key not in self._whole:
            folder = self.fresh(f"whole_{command.name}_{variant}_{os.getpid()}", command)
            began = time.monotonic()
            process = self.start(command, folder, variant, *more)
            if process.wait() != 0:
                raise RuntimeError(f"{command.name} fails on a quiet machine:\n{process.output()[-2000:]}")
            self._whole[key] = command.results(folder / "out"), time.monotonic() - began
            shutil.rmtree(folder)
        return self._whole[key]


def judge_end(
    results: Callable[[], Files], wholes: Sequence[Files], status: int | None, printed: Sequence[str]
) -> tuple[str, str]:
    """Judge a trial whose last command should have completed the work.

    Args:
        results: Reads the files of the trial.
        wholes: The results that are right.
        status: Exit status of the last command; None if it had to be killed.
        printed: What the commands printed.

    Returns:
        The outcome and its details.
    """
    text = "\n".join(printed)
    end = text.strip()[-300:]
    if status is None:
        return LOST, f"it did not end: {end}"
    if "Traceback (most recent call last)" in text:
        return LOST, f"a traceback in place of a message: {end}"
    if status != 0:
        return LOST, f"exit status {status}: {end}"
    fault = judge(results(), wholes)
    has_message = any(message in text for message in MESSAGES)
    if fault is None:
        return (REFUSED if has_message else SAME), ""
    return (LOST if fault[0] == SILENT and has_message else fault[0]), f"{fault[1]}: {end}"


def aside(work: Callable[[], object]) -> None:
    """Run a function that computes, or mounts, in a separate process.

    Raises:
        RuntimeError: If it fails.
    """
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
            os._exit(1)
    if os.waitpid(pid, 0)[1] != 0:
        raise RuntimeError("a step of the fault run failed (see above)")


def aside_with_answer(work: Callable[[], tuple[str, str]]) -> tuple[str, str]:
    """Run a function in a separate process and return its result.

    Raises:
        RuntimeError: If it fails.
    """
    ours, theirs = os.pipe()

    def answer() -> None:
        os.write(theirs, json.dumps(work()).encode()[:60_000])

    try:
        aside(answer)
    finally:
        os.close(theirs)
        with os.fdopen(ours) as answers:
            content = answers.read()
    outcome, detail = json.loads(content)
    return outcome, detail
