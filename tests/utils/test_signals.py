import os
import select
import signal
import threading

import pytest
from mac_poll import MacPoll

from hf_gradalign.utils import signals
from hf_gradalign.utils.signals import ending_signals, leave_closed_terminal

pytestmark = pytest.mark.posix


def test_a_hangup_counts_unless_it_is_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        assert ending_signals() == [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
        assert ending_signals() == [signal.SIGINT, signal.SIGTERM]
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.fixture(params=["Linux", "macOS"])
def _system(request, monkeypatch):
    if request.param == "macOS":
        monkeypatch.setattr(select, "poll", MacPoll)


@pytest.mark.usefixtures("_system")
def test_output_to_a_closed_terminal_is_dropped():
    ours, theirs = os.openpty()
    kept = os.dup(1)
    os.dup2(theirs, 1)
    try:
        leave_closed_terminal(signal.SIGHUP)
        os.write(1, b"seen")
        assert os.read(ours, 9) == b"seen"
        os.close(ours)
        leave_closed_terminal(signal.SIGTERM)
        with pytest.raises(OSError, match="Input/output error"):
            os.write(1, b"lost")
        leave_closed_terminal(signal.SIGHUP)
        os.write(1, b"dropped")
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(theirs)


@pytest.mark.usefixtures("_system")
def test_output_to_a_reader_that_the_hangup_ends_too_is_dropped(monkeypatch):
    """As in `command 2>&1 | tee log`, where tee may end a moment later."""
    monkeypatch.setattr(signals, "_READER_ENDS_WITHIN", 30_000)
    reader, writer = os.pipe()
    kept = {descriptor: os.dup(descriptor) for descriptor in (1, 2)}
    for descriptor in kept:
        os.dup2(writer, descriptor)
    os.close(writer)
    try:
        end = threading.Timer(0.1, os.close, [reader])
        end.start()
        leave_closed_terminal(signal.SIGHUP)
        end.join()
        for descriptor in kept:
            os.write(descriptor, b"dropped")
    finally:
        for descriptor, copy in kept.items():
            os.dup2(copy, descriptor)
            os.close(copy)
