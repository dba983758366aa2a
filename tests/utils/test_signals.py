import os
import pty
import signal

import pytest

from hf_gradalign.utils.signals import ending_signals, leave_closed_terminal


def test_a_hangup_counts_unless_it_is_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        assert ending_signals() == [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
        assert ending_signals() == [signal.SIGINT, signal.SIGTERM]
    finally:
        signal.signal(signal.SIGHUP, before)


def test_output_to_a_closed_terminal_is_dropped():
    ours, theirs = pty.openpty()
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
