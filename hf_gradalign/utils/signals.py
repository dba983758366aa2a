"""Signals that ask a process to end."""

import os
import select
import signal
import sys
from pathlib import Path

_ALWAYS = (signal.SIGINT, signal.SIGTERM)
_READER_ENDS_WITHIN = 1000  # milliseconds


def ending_signals() -> list[int]:
    """Return SIGINT, SIGTERM, and SIGHUP unless this process ignores it, as under `nohup`.

    A process gets SIGHUP when its terminal is closed, or the connection to it breaks. Windows has no such signal.
    """
    hangup = getattr(signal, "SIGHUP", None)
    is_ignored = hangup is None or signal.getsignal(hangup) == signal.SIG_IGN
    return [*_ALWAYS] if is_ignored else [*_ALWAYS, hangup]


def leave_closed_terminal(number: int) -> None:
    """After SIGHUP, drop further output to a terminal that is gone. It would fail, and end what is still to be done.

    The same goes for a pipe whose reader ends by the same signal, as in `command | tee log`: it gets a second to end.

    Args:
        number: The signal that came. Nothing happens for others.
    """
    if number in _ALWAYS or sys.platform == "win32":
        return
    for descriptor in (1, 2):
        is_pipe = Path(f"/dev/fd/{descriptor}").is_fifo()
        poll = select.poll()
        poll.register(descriptor, select.POLLHUP)  # Linux always reports it, macOS only on request
        if poll.poll(_READER_ENDS_WITHIN if is_pipe else 0):
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
