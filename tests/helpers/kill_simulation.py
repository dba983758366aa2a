"""End code before its n-th change to the file system, as a kill would: what it wrote stays as it is."""

import itertools
import os
import sys
from contextlib import contextmanager

import safetensors.torch
import torch

# Events that Python audits before they happen. rmtree audits each file, too.
_CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.truncate"}
_WRITING = os.O_WRONLY | os.O_RDWR


class Killed(BaseException):
    """Not an Exception, so that nothing catches it and continues."""


class _Countdown:
    left = None

    @classmethod
    def step(cls):
        if cls.left is not None:
            cls.left -= 1
            if cls.left < 0:
                cls.left = None  # a killed process does nothing more
                raise Killed


def _audit(event, arguments):
    if _Countdown.left is None:
        return
    if event == "os.truncate" and isinstance(arguments[0], int):
        return  # by older versions of filelock, which would keep the lock; the end of a process frees it
    if event in _CHANGES or (event == "open" and arguments[2] & _WRITING):
        _Countdown.step()


def _torn(write):
    """Native code writes these files: killed before, and in the middle."""

    def wrapper(content, path, *args, **kwargs):
        if _Countdown.left is None:
            return write(content, path, *args, **kwargs)
        _Countdown.step()
        left, _Countdown.left = _Countdown.left, None
        write(content, path, *args, **kwargs)
        if left == 0:
            os.truncate(path, os.path.getsize(path) // 2)
            raise Killed
        _Countdown.left = left - 1
        return None

    return wrapper


sys.addaudithook(_audit)
torch.save = _torn(torch.save)
safetensors.torch.save_file = _torn(safetensors.torch.save_file)


@contextmanager
def killed_before(change):
    """Raise `Killed` before the change of this number, counted from 0; a half-written file counts as one more."""
    _Countdown.left = change
    try:
        yield
    finally:
        _Countdown.left = None


def every_kill(attempt):
    """Call `attempt(change)` for 0, 1, ... until it returns True; return how often it was killed."""
    for change in itertools.count():
        if attempt(change):
            return change
