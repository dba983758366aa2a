from pathlib import Path

import pytest
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from hf_gradalign.training import leave_process_group

TASKS = Path("/proc/self/task")


def gloo_threads():
    return {task.name for task in TASKS.iterdir() if "gloo" in (task / "comm").read_text()}


@pytest.mark.skipif(not TASKS.is_dir(), reason="threads are counted where Linux lists them")
def test_process_group_leaves_no_threads(tmp_path):
    # A thread that releases a tensor while the interpreter shuts down would abort the process.
    before = gloo_threads()  # other tests in this process may have left some
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'rendezvous'}", rank=0, world_size=1)
    wrapped = DistributedDataParallel(nn.Linear(2, 2))
    wrapped.itself = [wrapped]  # a reference cycle, as between a trainer and its callbacks
    del wrapped
    assert gloo_threads() > before
    leave_process_group()
    assert gloo_threads() <= before
    assert not distributed.is_initialized()


def test_a_single_process_has_nothing_to_leave():
    leave_process_group()
    assert not distributed.is_initialized()
