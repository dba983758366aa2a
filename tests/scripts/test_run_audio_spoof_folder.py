"""The main job and its folder: one writer, no other files replaced, two starts of a preemptible job."""

import json
import os
import runpy
import shutil
import stat
import sys
from pathlib import Path

import forked_group
import forked_python
import pytest
from lock_holder import other_process_holding
from safetensors.torch import load_file

from hf_gradalign.experiment import output_folder
from hf_gradalign.utils.file_locks import hold_lock

SCRIPT = Path(__file__).parents[2] / "scripts" / "run_audio_spoof.py"


@pytest.fixture
def other_run(tmp_path):
    """A process that holds `out`, where nothing is yet."""
    (tmp_path / "out").mkdir()
    with other_process_holding(lambda: hold_lock(tmp_path / "out" / output_folder.LOCK_NAME, "it")) as process:
        yield process


def test_a_second_start_is_refused_and_one_of_a_preemptible_job_waits(
    run_script, finished_run, tmp_path, capsys, other_run, monkeypatch
):
    out = tmp_path / "out"
    before = sorted(out.iterdir())
    assert run_script(output_dir=out) == 2
    assert f"is in use by process {other_run.pid} on" in capsys.readouterr().err
    assert sorted(out.iterdir()) == before

    def finish(seconds):
        for path in finished_run.iterdir():
            if not path.name.startswith("_"):
                (shutil.copytree if path.is_dir() else shutil.copy2)(path, out / path.name)
        other_run.kill()
        other_run.join()

    monkeypatch.setattr(output_folder.time, "sleep", finish)
    weights = (finished_run / "model.safetensors").read_bytes()
    assert run_script("--align_gradients", "--resume_from_checkpoint", output_dir=out) == 0
    assert f"The run in {out} is complete" in capsys.readouterr().out
    assert (out / "model.safetensors").read_bytes() == weights


@pytest.mark.slow
def test_files_of_others_are_replaced_on_request_when_the_run_is_whole(run_script, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    for name in ("README.md", "scores_test.txt", "conflicts.jsonl", "notes.txt"):
        (out / name).write_text("mine")
    assert run_script(output_dir=out) == 2
    assert "(README.md, scores_test.txt, conflicts.jsonl)" in capsys.readouterr().err
    assert run_script("--overwrite", output_dir=out, dataset_name="no/such") == 2
    assert sorted(path.name for path in out.iterdir() if path.read_bytes() == b"mine") == [
        "README.md",
        "conflicts.jsonl",
        "notes.txt",
        "scores_test.txt",
    ]
    assert run_script("--overwrite", output_dir=out) == 0
    assert (out / "notes.txt").read_text() == "mine"
    assert "mine" not in (out / "README.md").read_text().splitlines()
    assert len((out / "scores_test.txt").read_text().splitlines()) == 12
    assert not (out / "_replaced").exists()

    # A run, too: its checkpoints are not taken for those of the new one.
    assert run_script("--overwrite", output_dir=out, seed=3) == 0
    assert json.loads((out / "run_arguments.json").read_text())["seed"] == 3
    assert run_script(output_dir=out) == 2
    assert "already contains a run" in capsys.readouterr().err


def test_a_run_is_resumed_on_the_same_thing(run_script, finished_run, capsys, stop_before_training):
    out = finished_run
    weights = (out / "model.safetensors").read_bytes()
    resume = ("--resume_from_checkpoint", str(out))
    assert run_script(*resume, seed=7, max_train_samples=12) == 2
    error = capsys.readouterr().err
    assert "clips of train: 16 then, 12 now" in error
    assert "--seed: 42 then, 7 now" in error
    assert (out / "model.safetensors").read_bytes() == weights
    assert run_script(*resume, logging_steps=1, dataloader_num_workers=1) == stop_before_training
    assert run_script(*resume, "--allow_changes", seed=7) == stop_before_training
    assert run_script(*resume) == stop_before_training  # it has the seed of the last start
    assert json.loads((out / "run_arguments.json").read_text())["seed"] == 7
    (out / "run_fingerprint.json").unlink()
    assert run_script(*resume, seed=8) == stop_before_training
    assert run_script(*resume, seed=9) == 2


def test_a_token_is_written_nowhere_and_files_have_the_umask(run_script, tmp_path, capsys):
    out, token = tmp_path / "out", "hf_secretsecretsecret"
    before = os.umask(0o027)
    try:
        assert run_script("--align_gradients", "--hub_token", token, output_dir=out, report_to="tensorboard") == 0
    finally:
        os.umask(before)
    files = [path for path in out.rglob("*") if path.is_file()]
    assert len(files) > 20
    assert {path.name for path in files} >= {"training_args.bin", "run_arguments.json", "README.md"}
    for path in files:
        assert token.encode() not in path.read_bytes(), path
        assert stat.S_IMODE(path.stat().st_mode) == 0o640, path
    printed = capsys.readouterr()
    assert token not in printed.out + printed.err


def test_a_received_run_is_resumed_without_what_it_asks_for(run_script, finished_run, tmp_path, capsys, monkeypatch):
    out = finished_run
    assert "Taken from" not in capsys.readouterr().out
    kept = json.loads((out / "run_arguments.json").read_text())
    hostile = {"push_to_hub": True, "hub_model_id": "a/b", "hub_token": "hf_x", "report_to": ["wandb"]}
    (out / "run_arguments.json").write_text(json.dumps({**kept, **hostile, "output_dir": str(tmp_path / "other")}))
    monkeypatch.setattr(run_script.script.experiment, "publish_run", None)
    assert run_script("--resume_from_checkpoint", str(out)) == 0
    printed = capsys.readouterr().out
    assert "--align_gradients pcgrad" in printed
    assert "Not taken from it: --push_to_hub True --hub_model_id a/b --report_to wandb (options" in printed
    assert not (tmp_path / "other").exists()


def run_command(words):
    sys.argv = [str(SCRIPT), *words]
    sys.path.insert(0, str(SCRIPT.parent))
    runpy.run_path(str(SCRIPT), run_name="__main__")


@pytest.mark.slow
def test_a_preemptible_job_started_three_times_at_once_ends_as_once(quick_options, tmp_path):
    words = ["--align_gradients", "--resume_from_checkpoint"]
    starts = [("once", "once"), *(("out", f"out {number}") for number in range(3))]
    logs = [tmp_path / f"{log}.log" for _, log in starts]
    processes = []
    for (name, _), log in zip(starts, logs, strict=True):
        options = quick_options(output_dir=tmp_path / name, save_total_limit=1)
        processes.append(forked_group.start(run_command, [*words, *options], log=log))
    for process in processes:
        process.join()
    log_texts = [log.read_text() for log in logs]
    assert [process.exitcode for process in processes] == [0] * 4, log_texts
    assert sum("is complete: the process that held it finished it" in text for text in log_texts) == 2
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("once", "out"))
    assert all((value == second[name]).all() for name, value in first.items())
    names = [sorted(path.name for path in (tmp_path / name).iterdir()) for name in ("once", "out")]
    assert names[0] == names[1]


@pytest.mark.slow
def test_two_processes_count_as_one_and_are_refused_together(quick_options, tmp_path, other_run):
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    options = quick_options(output_dir=tmp_path / "out", use_cpu=True, ddp_backend="gloo", max_eval_samples=11)
    command = [sys.executable, *launcher, str(SCRIPT), "--align_gradients", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = forked_python.run(command, environment)
    assert done.returncode != 0
    assert f"is in use by process {other_run.pid} on" in done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["_running.lock", "_running.lock.holder"]
