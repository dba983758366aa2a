"""Starts and ends a command. Ctrl-C ends it with one line, even during imports."""

import functools
import io
import multiprocessing
import os
import select
import signal
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from types import FrameType
from typing import Any, NoReturn

_INTERRUPTED = 130
_AFTER_INTERRUPT = "the same command starts again from the beginning"
# A log keeps every state of a progress bar. At tqdm's ten per second, these would be 60 MB per day.
_SECONDS_BETWEEN_BARS_IN_LOGS = "10"


def _end_unstarted(number: int, frame: FrameType | None) -> None:
    os.write(2, b"\ninterrupted; nothing was started\n")
    os._exit(_INTERRUPTED)


def _end_now(number: int, frame: FrameType | None) -> None:
    os._exit(_INTERRUPTED)


def _interrupt(after_interrupt: str, number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt. During an import, end at once: libraries do not survive an interrupted import."""
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
        words: The command line. Defaults to this process's.
    """
    if sys.platform == "win32" and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # files and pipes have the code page of the system
    signal.signal(signal.SIGINT, _end_unstarted)  # imports take a while, and there is no work to lose yet
    if sys.stderr is None or not sys.stderr.isatty():
        os.environ.setdefault("TQDM_MININTERVAL", _SECONDS_BETWEEN_BARS_IN_LOGS)  # read when tqdm is imported
    module = import_module(f"hf_gradalign.cli.{name.replace('-', '_')}")
    after_interrupt = getattr(module, "AFTER_INTERRUPT", _AFTER_INTERRUPT)
    run_command(module.main, words, after_interrupt=after_interrupt, at_end=getattr(module, "at_end", None))


def run_command(
    main: Callable[[Sequence[str]], int],
    words: Sequence[str] | None = None,
    *,
    after_interrupt: str = _AFTER_INTERRUPT,
    at_end: Callable[[], None] | None = None,
) -> NoReturn:
    """Run a command and end the process with its exit status. Errors like a full disk are printed in one line.

    Args:
        main: Takes the words of the command line and returns the exit status.
        words: The command line. Defaults to this process's.
        after_interrupt: What to do after Ctrl-C.
        at_end: Called after main.
    """
    signal.signal(signal.SIGINT, functools.partial(_interrupt, after_interrupt))
    fork_workers()
    try:
        status = main(sys.argv[1:] if words is None else words)
        if at_end is not None:
            at_end()
        if sys.stdout is not None:  # as in `command >&-`
            sys.stdout.flush()
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, _end_now)
        print(f"\ninterrupted; {after_interrupt}", file=sys.stderr)
        status = _INTERRUPTED
    except BrokenPipeError as error:
        if sys.stdout is not None and _reader_is_gone(sys.stdout.fileno()):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        else:
            print(f"error: {error}", file=sys.stderr)
        status = 1
    except Exception as error:
        from hf_gradalign.utils.messages import error_line, is_outside_fault  # slow to import

        if not is_outside_fault(error):
            raise
        print(error_line(error), file=sys.stderr)
        status = 2
    signal.signal(signal.SIGINT, _end_now)  # threads may delay the end
    sys.exit(status)


def fork_workers() -> None:
    """Start worker processes by fork on Linux, also on Python 3.14, unless another way was chosen.

    By default, Python 3.14 starts each worker from a server. The worker must then import torch and datasets again,
    which takes seconds, and it gets a copy of the data set.
    """
    if sys.platform == "linux" and multiprocessing.get_start_method(allow_none=True) is None:
        multiprocessing.set_start_method("fork")


def _reader_is_gone(descriptor: int) -> bool:
    """Whether nobody reads this end of a pipe anymore, as in `command | head`."""
    if sys.platform == "win32":  # which has no `poll`
        return True
    poll = select.poll()
    poll.register(descriptor, select.POLLHUP)  # Linux always reports it, macOS only on request
    return bool(poll.poll(0))


CONVERSION_OPTIONS_HELP = (
    "options of the conversion of a published detector whose settings are not the published ones, such as "
    """'{"num_attention_heads": 8}'"""
)


def conversion_options(text: str | None) -> dict[str, Any] | None:
    """Return the value of --conversion_options.

    Raises:
        ValueError: If it is not a JSON object.
    """
    from hf_gradalign.utils.settings_files import read_json_object

    return None if text is None else read_json_object(text, "--conversion_options", '{"num_attention_heads": 8}')


def set_up_libraries(*, no_progress: bool = False) -> None:
    """Limit waits for the Hub and hide the progress bars of libraries. Call it after parsing the command line.

    Args:
        no_progress: Also hide the progress bars of downloads and uploads.
    """
    from hf_gradalign.utils.hub_waits import limit_hub_waits
    from hf_gradalign.utils.third_party import hide_library_bars

    limit_hub_waits()
    hide_library_bars(downloads=no_progress)
