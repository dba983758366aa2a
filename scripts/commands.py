"""How a command begins and ends. Imported first: Ctrl-C ends it with a line, also while libraries are imported."""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

_INTERRUPTED = 130


def _end(number: int, frame: FrameType | None) -> None:
    os.write(2, b"\ninterrupted; nothing was begun\n")
    os._exit(_INTERRUPTED)


if sys.argv and Path(sys.argv[0]).resolve().parent == Path(__file__).resolve().parent:
    signal.signal(signal.SIGINT, _end)  # libraries take seconds to import, and nothing is begun before


def run_command(main: Callable[[Sequence[str]], int]) -> NoReturn:
    """Run a command and end the process with its exit status; what ends it from outside gets a line.

    Args:
        main: Takes the words of the command line and gives the exit status.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        status = main(sys.argv[1:])
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("\ninterrupted; the same command starts again from the beginning", file=sys.stderr)
        status = _INTERRUPTED
    except BrokenPipeError:  # as in `command | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    except MemoryError:
        print("error: there is not enough memory for this", file=sys.stderr)
        status = 2
    except Exception as error:
        if not is_disk_full(error):
            raise
        print(error_line(error), file=sys.stderr)
        status = 2
    sys.exit(status)


from hf_gradalign.error_lines import error_line, is_disk_full  # noqa: E402  (after the signal is handled)

__all__ = ["run_command"]
