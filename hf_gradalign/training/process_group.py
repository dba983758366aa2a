"""A clean end of a run in several processes."""

import gc

from torch import distributed


def leave_process_group() -> None:
    """End this process's part in a run of several, so that it can exit; in a single process this does nothing.

    The last act of a program that succeeded, when nothing refers to its trainer any more. Gloo's threads outlive a
    process group that is not destroyed, and they let go of the tensors of the last reduction with Python's lock in
    their hands. A thread that is still waiting for the lock when the interpreter shuts down is ended in the midst of
    that, which aborts the process ("terminate called without an active exception") and fails a run that is done.
    Destroying the process group joins those threads, once the trainer and the model that hold the group are gone:
    they are cycles, which only a collection frees.
    """
    if distributed.is_available() and distributed.is_initialized():
        gc.collect()
        distributed.destroy_process_group()


__all__ = ["leave_process_group"]
