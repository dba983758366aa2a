"""The main job on a cluster that preempts jobs: one command line for every start, and SIGKILL in between."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from glob import glob
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toy import timeless

from hf_gradalign.training.run_checkpoints import UNFINISHED_DIR, RunCheckpoints

SCRIPT = Path(__file__).parents[2] / "scripts" / "run_audio_spoof.py"
STEPS = 8


def start(words, log):
    command = [sys.executable, str(SCRIPT), *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with log.open("a") as output:
        return subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)


def results_of(folder):
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    results = json.loads((folder / "all_results.json").read_text())
    [figures] = timeless([results])
    return timeless(history), {name: value for name, value in figures.items() if name != "settings"}


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_and_started_again_by_the_same_command_line(quick_options, tmp_path):
    def words(folder):
        return [
            "--align_gradients",
            "gradvac",
            "--resume_from_checkpoint",
            *quick_options(
                output_dir=folder,
                max_steps=STEPS,
                save_strategy="steps",
                save_steps=1,
                save_total_limit=1,
                eval_strategy="steps",
                eval_steps=2,
                logging_steps=3,
                average_best_checkpoints=2,
                metric_for_best_model="loss",
                load_best_model_at_end=False,
                dataloader_num_workers=2,
            ),
        ]

    log = tmp_path / "log"
    assert start(words(tmp_path / "whole"), log).wait(300) == 0, log.read_text()[-3000:]
    run = tmp_path / "run"
    draw = random.Random(0)

    def reached(step):
        return lambda: (run / f"checkpoint-{step}").is_dir()

    moments = [
        (run / "run_arguments.json").is_file,  # before the first checkpoint
        lambda: reached(2)() and bool(glob(f"{run}/{UNFINISHED_DIR}/checkpoint-*")),
        reached(5),
        reached(STEPS),  # when the training is over, and the results are not written
    ]
    for moment in moments:
        process = start(words(run), log)
        deadline = time.monotonic() + 300
        while not moment():
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline
            time.sleep(0.0005)
        time.sleep(draw.uniform(0, 0.02))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert RunCheckpoints(run).incomplete() == {}
        assert not (run / "all_results.json").exists()
    assert start(words(run), log).wait(300) == 0, log.read_text()[-3000:]
    assert "has no complete checkpoint to resume from, so the run starts over" in log.read_text()

    weights = load_file(run / "model.safetensors")
    expected = load_file(tmp_path / "whole" / "model.safetensors")
    assert all(torch.equal(value, weights[name]) for name, value in expected.items())
    for name in ("scores_validation.txt", "scores_test.txt"):
        assert (run / name).read_text() == (tmp_path / "whole" / name).read_text()
    (rows, results), (expected_rows, expected_results) = results_of(run), results_of(tmp_path / "whole")
    assert rows == expected_rows
    assert results == expected_results
