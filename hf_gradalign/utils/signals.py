"""Signals that ask a process to end."""

import os
import select
import signal

_ALWAYS = (signal.SIGINT, signal.SIGTERM)


def ending_signals() -> list[int]:
    """Return SIGINT, SIGTERM, and SIGHUP unless this process ignores it, as under `nohup`.

    A process gets SIGHUP when its terminal is closed, or the connection to it breaks. Windows has no such signal.
    """
    hangup = getattr(signal, "SIGHUP", None)
    is_ignored = hangup is None or signal.getsignal(hangup) == signal.SIG_IGN
    return [*_ALWAYS] if is_ignored else [*_ALWAYS, hangup]


def leave_closed_terminal(number: int) -> None:
    """After SIGHUP, drop further output to a terminal that is gone. It would fail, and end what is still to be done.

    Args:
        number: The signal that came. Nothing happens for others.
    """
    if number in _ALWAYS:
        return
    for descriptor in (1, 2):
        poll = select.poll()
        poll.register(descriptor, 0)
        if poll.poll(0):
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
