import os
import signal
import sys
from functools import partial

import pytest
import torch
from torch.utils.data import DataLoader

from hf_gradalign.utils import loader_workers
from hf_gradalign.utils.loader_workers import shared_number, start_worker
from hf_gradalign.utils.messages import error_line


class Unsendable:
    def __reduce__(self):
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")


def unsendable(items):
    return Unsendable()


@pytest.mark.timeout(60)
def test_a_worker_that_cannot_pass_on_a_batch_ends(capfd):
    loader = DataLoader(range(4), collate_fn=unsendable, num_workers=1, worker_init_fn=start_worker)
    with pytest.raises(RuntimeError, match="exited unexpectedly") as error:
        next(iter(loader))  # waits forever if the worker goes on
    assert "A loader worker cannot pass on a batch: unable to allocate shared memory" in capfd.readouterr().err
    assert "docker run --shm-size" in error_line(error.value)


def test_the_rest_of_the_start_follows(capfd):
    list(DataLoader(range(4), num_workers=2, worker_init_fn=partial(start_worker, then=announce)))
    assert sorted(capfd.readouterr().out.split()) == ["0", "1"]


def test_ctrl_c_does_not_end_a_spawned_worker(monkeypatch):
    handlers = []
    monkeypatch.setattr(loader_workers.queues.Queue, "_on_queue_feeder_error", None)
    monkeypatch.setattr(signal, "signal", lambda *args: handlers.append(args))
    start_worker(0)
    assert handlers == []  # a forked one inherits the handler
    monkeypatch.setattr(sys, "platform", "win32")
    start_worker(0)
    assert handlers == [(signal.SIGINT, signal.SIG_IGN)]


def announce(worker):
    os.write(1, f"{worker}\n".encode())


def test_a_machine_without_shared_memory_has_a_plain_number(monkeypatch):
    assert shared_number(torch.int64).is_shared()

    def refuse(tensor):
        raise RuntimeError("unable to open shared memory object </torch_1_2_0>: No such file or directory (2)")

    monkeypatch.setattr(torch.Tensor, "share_memory_", refuse)
    with pytest.raises(RuntimeError, match="unable to open"):  # it may be there for the workers
        shared_number(torch.bool)
    monkeypatch.setattr(loader_workers, "_SHARED_MEMORY", "/nowhere")
    number = shared_number(torch.bool)
    assert (number.dtype, number.shape, number.item()) == (torch.bool, (), False)
