import os
import signal
from functools import partial
from multiprocessing import queues

import pytest
import torch
from torch.utils.data import DataLoader

from hf_gradalign.utils import loader_workers
from hf_gradalign.utils.loader_workers import pins_memory, shared_number, start_worker
from hf_gradalign.utils.messages import error_line

DEFAULTS = {signal.SIGINT: signal.default_int_handler}
if hasattr(signal, "SIGHUP"):  # not on Windows
    DEFAULTS[signal.SIGHUP] = signal.SIG_DFL


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


def announce(worker):
    os.write(1, f"{worker}\n".encode())


@pytest.mark.parametrize("number", DEFAULTS)
@pytest.mark.parametrize("inherits", [False, True])
def test_ctrl_c_and_a_closed_terminal_do_not_end_a_worker(monkeypatch, number, inherits):
    """The main process needs its workers until it has stopped. A worker that was not forked has no handler of it."""
    monkeypatch.setattr(queues.Queue, "_on_queue_feeder_error", None)

    def handler(number, frame):
        pass

    own = handler if inherits else DEFAULTS[number]
    before = {each: signal.getsignal(each) for each in DEFAULTS}
    try:
        signal.signal(number, own)
        start_worker(0)
        assert signal.getsignal(number) == (handler if inherits else signal.SIG_IGN)
    finally:
        for each, handler_before in before.items():
            signal.signal(each, handler_before)


@pytest.mark.parametrize(("device", "expected"), [("cuda:0", True), ("xpu", True), ("mps", False), ("cpu", False)])
def test_memory_is_pinned_only_for_devices_that_can(device, expected):
    assert pins_memory(torch.device(device)) == expected
    assert not pins_memory(None)


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
