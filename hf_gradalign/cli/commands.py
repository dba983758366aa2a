"""How a command begins and ends: Ctrl-C ends it with a line, also while libraries are imported."""

import functools
import os
import signal
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from types import FrameType
from typing import NoReturn

_INTERRUPTED = 130


def _end_unbegun(number: int, frame: FrameType | None) -> None:
    os.write(2, b"\ninterrupted; nothing was begun\n")
    os._exit(_INTERRUPTED)


def _end_now(number: int, frame: FrameType | None) -> None:
    os._exit(_INTERRUPTED)


def _interrupt(after_interrupt: str, number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt; within an import end at once, since libraries do not survive one that is cut off."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            os.write(2, f"\ninterrupted; {after_interrupt}\n".encode())
            os._exit(_INTERRUPTED)
        frame = frame.f_back
    raise KeyboardInterrupt


def start(name: str, words: Sequence[str] | None = None) -> NoReturn:
    """Run a command of `hf-gradalign` and end the process.

    Args:
        name: A key of `SCRIPTS`, or "env".
        words: Its command line; by default this process's.
    """
    signal.signal(signal.SIGINT, _end_unbegun)  # imports take a while, and nothing is begun before
    module = import_module(f"hf_gradalign.cli.{name.replace('-', '_')}")
    options = {"after_interrupt": module.AFTER_INTERRUPT} if hasattr(module, "AFTER_INTERRUPT") else {}
    run_command(module.main, words, at_end=getattr(module, "at_end", None), **options)


def run_command(
    main: Callable[[Sequence[str]], int],
    words: Sequence[str] | None = None,
    *,
    after_interrupt: str = "the same command starts again from the beginning",
    at_end: Callable[[], None] | None = None,
) -> NoReturn:
    """Run a command and end the process with its exit status; what ends it from outside gets a line.

    Args:
        main: Takes the words of the command line and gives the exit status.
        words: The command line; by default this process's.
        after_interrupt: What to do after Ctrl-C.
        at_end: Called when main is done.
    """
    signal.signal(signal.SIGINT, functools.partial(_interrupt, after_interrupt))
    try:
        status = main(sys.argv[1:] if words is None else words)
        if at_end is not None:
            at_end()
        sys.stdout.flush()
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, _end_now)
        print(f"\ninterrupted; {after_interrupt}", file=sys.stderr)
        status = _INTERRUPTED
    except BrokenPipeError:  # as in `command | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    except Exception as error:
        from hf_gradalign.utils.messages import error_line, is_outside_fault  # not before it is needed

        if not is_outside_fault(error):
            raise
        print(error_line(error), file=sys.stderr)
        status = 2
    signal.signal(signal.SIGINT, _end_now)  # threads may hold up the end
    sys.exit(status)


def set_up_libraries(*, no_progress: bool = False) -> None:
    """Bound the waits for the Hub, and hide the progress bars of libraries; after the command line is read.

    Args:
        no_progress: Hide those of downloads and uploads, too.
    """
    from hf_gradalign.utils.hub_waits import limit_hub_waits
    from hf_gradalign.utils.third_party import hide_library_bars

    limit_hub_waits()
    hide_library_bars(downloads=no_progress)


__all__ = ["run_command", "set_up_libraries", "start"]
