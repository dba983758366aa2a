"""A disk that is full at a random moment."""

import contextlib
import ctypes
import os
from pathlib import Path
from random import Random

from fault_trials.bench import Bench, aside_with_answer, judge_end
from fault_trials.outcomes import LOST, REFUSED, SAME
from fault_trials.processes import all_ended
from hf_gradalign.training.run_checkpoints import RunCheckpoints

_NEW_USERS, _NEW_MOUNTS = 0x10000000, 0x00020000
_PRIVATE = 0x44000  # MS_PRIVATE | MS_REC: for all mounts below
_SIZE = "256m"
_TRIED = ("train", "score", "convert", "evaluate", "export", "plot", "report", "arena")


def fill_disk(bench: Bench, draw: Random, name: str) -> tuple[str, str]:
    """Fill the disk while a command runs, free it, and start the command again. Half of the trials are trainings."""
    command_name = "train" if draw.random() < 0.5 else draw.choice(_TRIED[1:])
    command = bench.commands[command_name]
    whole, seconds = bench.whole(command), bench.seconds(command)
    folder = bench.fresh(name)
    more = ["--resume_from_checkpoint"] * (command_name == "train")

    def work() -> tuple[str, str]:
        _mount_small_disk(folder / "out")
        command.prepare(folder / "out")
        moment, filler = draw.uniform(0, seconds), folder / "out" / "filler"
        process = bench.start(command, folder, 0, *more)
        with all_ended(process):
            process.wait(moment, kill=False)
            status = process.wait(meanwhile=lambda: _fill(filler))
        filler.unlink(missing_ok=True)
        printed = process.output()
        what = f"{command_name}, full after {moment:.2f} s, exit {status}"
        if status is None or "Traceback (most recent call last)" in printed:
            return LOST, f"{what}: {printed.strip()[-600:]}"
        if status != 0 and "error: " not in printed:
            return LOST, f"{what}, without a message: {printed.strip()[-300:]}"
        if broken := RunCheckpoints(folder / "out").incomplete():
            return LOST, f"{what}: half a checkpoint: {broken}"
        if status == 0:
            return _with(what, judge_end(lambda: command.results(folder / "out"), [whole], status, [printed]))
        again = bench.start(command, folder, 0, *more)
        with all_ended(again):
            end = again.wait()
        outcome, detail = judge_end(lambda: command.results(folder / "out"), [whole], end, [again.output()])
        return _with(what, (REFUSED if outcome == SAME else outcome, detail))

    return aside_with_answer(work)


def _with(what: str, judged: tuple[str, str]) -> tuple[str, str]:
    return judged[0], f"{what}. {judged[1]}"


def _fill(filler: Path) -> None:
    """Write until the disk is full."""
    with contextlib.suppress(OSError), filler.open("ab", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)):
                    pass


def _mount_small_disk(folder: Path) -> None:
    """Mount a small file system that only this process and its children see.

    Raises:
        OSError: If the system does not allow it.
    """
    system = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()

    def check(result: int) -> None:
        if result != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"a small disk cannot be mounted without privileges ({os.strerror(number)})")

    check(system.unshare(_NEW_USERS | _NEW_MOUNTS))
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    check(system.mount(b"none", b"/", None, _PRIVATE, None))
    check(system.mount(b"tmpfs", str(folder).encode(), b"tmpfs", 0, f"size={_SIZE}".encode()))
