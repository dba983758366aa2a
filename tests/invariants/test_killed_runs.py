"""Runs whose processes are killed repeatedly (SIGKILL) end with the same bits as an undisturbed run."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from glob import glob
from pathlib import Path

import forked_group
import killed_run
import psutil
import pytest
import torch
from safetensors.torch import load_file

from hf_gradalign.training.run_checkpoints import UNFINISHED_DIR, RunCheckpoints

STEPS = 16
ONE_CORE = {"per_device_train_batch_size": 4, "max_steps": STEPS}


def start(folder, options, processes=1):
    folder.mkdir(parents=True, exist_ok=True)
    return forked_group.start(killed_run.run, str(folder), options, log=f"{folder}.log", processes=processes)


def wait_until(condition, process, seconds=240):
    """Wait for a condition or for the end of the process; return whether it is still alive."""
    deadline = time.monotonic() + seconds
    while not condition():
        if process.exitcode is not None:
            return False
        assert time.monotonic() < deadline
        time.sleep(0.0005)
    return process.exitcode is None


def step_of(folder):
    return max((int(path.name.rpartition("-")[2]) for path in folder.glob("checkpoint-*")), default=0)


def is_saving(folder):
    return bool(glob(f"{folder}/{UNFINISHED_DIR}/checkpoint-*"))  # pathlib's may fail if the run removes the folder


def kill_again_and_again(folder, kills, draw, options, processes=1):
    """Run to the end through kills; return their number, and how many left an unfinished checkpoint."""
    killed = torn = 0
    while True:
        (folder / killed_run.STARTED).unlink(missing_ok=True)
        process = start(folder, options, processes)
        alive = wait_until((folder / killed_run.STARTED).exists, process)
        if alive and killed < kills:
            # After a few steps; then at any moment, or while a checkpoint is being written.
            target = step_of(folder) + draw.randint(0, max(1, STEPS // kills - 1))
            alive = wait_until(lambda target=target: step_of(folder) >= target, process)
            if draw.random() < 0.6:
                alive = alive and wait_until(lambda: is_saving(folder), process)
                time.sleep(draw.uniform(0, 0.01))
            else:
                time.sleep(draw.uniform(0, 0.1))
            if alive:
                with contextlib.suppress(ProcessLookupError):  # it has just ended
                    os.killpg(process.pid, signal.SIGKILL)
        process.join()
        if process.exitcode == 0:
            return killed, torn
        log_text = Path(f"{folder}.log").read_text()
        assert process.exitcode == -signal.SIGKILL, log_text[-3000:]
        killed += 1
        torn += is_saving(folder)
        assert RunCheckpoints(folder).incomplete() == {}


def assert_same_end(whole, run, processes):
    for rank in range(processes):
        expected, weights = (load_file(folder / f"result-{rank}.safetensors") for folder in (whole, run))
        assert all(torch.equal(value, weights[name]) for name, value in expected.items())
        assert json.loads((run / f"result-{rank}.json").read_text()) == json.loads(
            (whole / f"result-{rank}.json").read_text()
        )
    assert [path.name for path in run.glob("*checkpoint*")] == [f"checkpoint-{STEPS}"]


def compare(tmp_path, kills, seed, processes=1, **options):
    """Kill runs until there were `kills` kills; each run must end like the undisturbed one."""
    options = {**ONE_CORE, **options}
    process = start(tmp_path / "whole", options, processes)
    process.join()
    assert process.exitcode == 0, (tmp_path / "whole.log").read_text()[-3000:]
    draw = random.Random(seed)
    killed = torn = attempt = 0
    while killed < kills:  # a run may end before all of its kills
        run = tmp_path / f"run-{attempt}"
        more = kill_again_and_again(run, kills - killed, draw, options, processes)
        assert_same_end(tmp_path / "whole", run, processes)
        killed, torn, attempt = killed + more[0], torn + more[1], attempt + 1
        shutil.rmtree(run)
    return torn


def test_three_kills(tmp_path):
    compare(tmp_path, kills=3, seed=0)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_twenty_kills(tmp_path):
    kinds = [
        (4, {"dataloader_num_workers": 0, "gradient_accumulation_steps": 3}),
        (3, {"dataloader_num_workers": 1}),
        (3, {"dataloader_num_workers": 4, "gradient_accumulation_steps": 3}),
        (2, {"dataloader_num_workers": 1, "dataloader_persistent_workers": True}),
        (4, {"processes": 2}),
        (2, {"processes": 2, "dataloader_num_workers": 1, "gradient_accumulation_steps": 3}),
        (2, {"processes": 2, "dataloader_num_workers": 4}),
    ]
    assert sum(kills for kills, _ in kinds) == 20
    torn = 0
    for seed, (kills, options) in enumerate(kinds):
        folder = tmp_path / str(seed)
        folder.mkdir()
        options = {"per_device_train_batch_size": 4 // options.get("processes", 1), **options}
        torn += compare(folder, kills, seed, **options)
    assert torn > 0, "no kill came while a checkpoint was being written"


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_torchrun_killed(tmp_path):
    options = json.dumps({**ONE_CORE, "per_device_train_batch_size": 2, "ddp_backend": "gloo"})
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]

    def launch(folder):
        command = [*launcher, killed_run.__file__, str(folder), options]
        with Path(f"{folder}.log").open("a") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"})

    assert launch(tmp_path / "whole").wait(300) == 0, (tmp_path / "whole.log").read_text()[-3000:]
    run = tmp_path / "run"
    for target in (5, 14):
        process = launch(run)
        deadline = time.monotonic() + 300
        while step_of(run) < target or not is_saving(run):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.0005)
        # torchrun puts its processes into separate groups.
        for doomed in [*psutil.Process(process.pid).children(recursive=True), process]:
            doomed.kill()
        process.wait()
        assert RunCheckpoints(run).incomplete() == {}
        assert step_of(run) < STEPS
    assert launch(run).wait(300) == 0, (tmp_path / "run.log").read_text()[-3000:]
    assert_same_end(tmp_path / "whole", run, 2)
