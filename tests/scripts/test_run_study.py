import errno
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from multiprocessing import forkserver
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from pyarrow import parquet

from hf_gradalign.experiment import parse_arguments
from hf_gradalign.study import Study, StudyError, StudyRunner, StudyTables, trial_process
from hf_gradalign.study import runner as runner_module
from hf_gradalign.study.trial_folder import TrialFolder
from hf_gradalign.utils.file_locks import hold_lock

SCRIPT = Path(__file__).parents[2] / "scripts" / "run_study.py"

TINY = {
    "options": {
        "max_steps": 4,
        "max_train_samples": 16,
        "max_eval_samples": 12,
        "window_seconds": 0.5,
        "check_audio": False,
        "conflict_record_modules": True,
        "save_strategy": "steps",
        "save_steps": 2,
        "eval_strategy": "steps",
        "eval_steps": 2,
    },
    "evaluate": {"dev": {"corpus": "demo", "split": "validation"}},
    "cells": [{"method": ["augmented", "pcgrad"], "batch_size": [2, 4], "seed": "0..1", "head": "linear"}],
}


@pytest.fixture
def study_file(tmp_path):
    def write(**changes):
        path = tmp_path / "tiny.yaml"
        path.write_text(yaml.safe_dump({**TINY, **changes}))
        return path

    return write


def start(study, folder, *words):
    command = [sys.executable, SCRIPT, study, "--output_dir", folder, "--no_progress", *words]
    return subprocess.Popen(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def rows(folder, name):
    table = parquet.read_table(folder / name)
    resources = {"seconds_per_update", "peak_memory_mib"}  # differ between two runs of the same study
    return table.select([column for column in table.column_names if column not in resources]).to_pylist()


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_study_ends_with_the_same_results(study_file, tmp_path):
    study, chance = study_file(), random.Random(0)
    whole = start(study, tmp_path / "whole", "--slots", "2")
    output, _ = whole.communicate()
    assert whole.returncode == 0, output
    killed, n_before = tmp_path / "killed", 0
    for kill in range(3):
        process = start(study, killed, "--slots", "2")
        # At three different stages: among the first trials, and then in what the last kill left. How far the work gets
        # in a second depends on the machine.
        while process.poll() is None and len(list(killed.glob("cells/*/cell.json"))) <= n_before:
            time.sleep(0.05)
        time.sleep(chance.uniform(0, 1))
        assert process.poll() is None, process.stdout.read()
        # Only the runner, or also all processes that it started.
        (os.killpg if kill % 2 else os.kill)(process.pid, signal.SIGKILL)
        process.wait()
        n_before = len(list(killed.glob("cells/*/cell.json")))
    assert n_before < 8
    before = {path: path.stat().st_mtime_ns for path in killed.glob("cells/*/cell.json")}
    last = start(study, killed, "--slots", "2")
    output, _ = last.communicate()
    assert last.returncode == 0, output
    assert "8 of 8 trials are finished" in output
    for name in ("results.parquet", "epochs.parquet", "clips.parquet"):
        assert rows(killed, name) == rows(tmp_path / "whole", name)
    assert len(rows(killed, "results.parquet")) == 8
    # Finished trials were not repeated.
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.long
@pytest.mark.slow
def test_failed_trials_are_listed_and_tried_again(study_file, tmp_path):
    cells = [{"method": "pcgrad", "seed": 0, "batch_size": 4, "model": ["small", str(tmp_path / "nothing")]}]
    process = start(study_file(cells=cells), tmp_path / "out")
    output, _ = process.communicate()
    assert process.returncode == 1
    assert "1 of 2 trials are finished" in output
    (line,) = [line for line in output.splitlines() if line.startswith("failed: ")]
    assert "nothing" in Path(line.split("; see ")[1]).read_text()
    assert start(study_file(cells=cells), tmp_path / "out").communicate()[0].count("failed: ") == 1


@pytest.fixture
def script(load_script):
    return load_script("run_study")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cells": [{"metod": "pcgrad"}]}, "entry 1 has no method"),
        ({"options": {"learning_rat": 1}}, "the options of the trial method pcgrad"),
        ({"options": {"corpus": "${NOWHERE_AT_ALL}"}}, "set the environment variable NOWHERE_AT_ALL first"),
    ],
)
def test_mistakes_are_errors_before_anything_starts(script, study_file, tmp_path, capsys, changes, message):
    path = study_file(**{"cells": [{"method": "pcgrad"}], **changes})
    assert script.main([str(path), "--output_dir", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("out/cells/*"))


class InThisProcess:
    """Replaces multiprocessing: the work of a trial is a function, which is called at once."""

    Pipe = staticmethod(multiprocessing.Pipe)

    def get_start_method(self):
        return "none"

    def __init__(self, work):
        self._work = work

    def Process(self, target, args):
        process = SimpleNamespace(join=lambda: None, pid=None)
        process.start = lambda: setattr(process, "exitcode", self._work(*args))
        return process


@pytest.fixture
def run_in_process(script, study_file, tmp_path, monkeypatch):
    """Run the script. The work of trials is a function that gets their folders."""

    def start(work, *words):
        stand_in = InThisProcess(lambda path, *rest: work(TrialFolder(path)))
        monkeypatch.setattr(runner_module, "_make_context", lambda slots: stand_in)
        return script.main([str(study_file()), "--output_dir", str(tmp_path / "out"), "--no_progress", *words])

    return start


def test_a_failed_trial_says_why_and_finished_ones_how_to_report(run_in_process, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(StudyTables, "update", lambda self, study: None)
    statuses = [0, 2, -signal.SIGKILL]

    def work(folder):
        status = statuses.pop(0) if statuses else 0
        if status == 2:
            with folder.log.open("a") as log:
                log.write("loading\nerror: \x1b[31mno corpus at /x\n")
        return status

    assert run_in_process(work) == 1
    printed = capsys.readouterr()
    assert "6 of 8 trials are finished" in printed.out
    assert f"python scripts/report_study.py {tmp_path / 'out'}\n" in printed.out
    failed = [line for line in printed.err.splitlines() if line.startswith("failed: ")]
    reasons = {line.split(": ", 2)[2].rpartition("; see ")[0] for line in failed}  # trials may overtake each other
    assert reasons == {"error: no corpus at /x", "killed, perhaps for lack of memory"}


def test_a_single_interrupted_trial_interrupts_the_study(run_in_process, capsys, monkeypatch):
    monkeypatch.setattr(StudyTables, "update", lambda self, study: None)
    statuses = [trial_process.INTERRUPTED]
    assert run_in_process(lambda folder: statuses.pop() if statuses else 0) == 130
    printed = capsys.readouterr()
    assert "7 of 8 trials are finished" in printed.out
    assert "run the same command again to resume" in printed.err


def test_a_full_disk_ends_the_study_with_a_line(run_in_process, capsys, monkeypatch, tmp_path):
    updates, ran = [], []

    def update(self, study):
        updates.append(study)
        if len(updates) > 1:
            raise OSError(errno.ENOSPC, "No space left on device", "/disk/results.parquet")

    monkeypatch.setattr(StudyTables, "update", update)

    def work(folder):
        ran.append(folder)
        time.sleep(0.1)
        return 0

    assert run_in_process(work) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: /disk/results.parquet: No space left on device (")
    assert last.endswith(" bytes are free); free some space, and run the same command again")
    assert len(ran) < 8  # it stopped early


@pytest.mark.parametrize("name", ["out", "out/cells", "out/evaluation_sets", "out/results.parquet", "out/study.lock"])
def test_a_file_in_the_way_is_named(run_in_process, tmp_path, capsys, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.mkdir() if path.suffix else path.write_text("a file")
    assert run_in_process(lambda folder: 0) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ")
    assert str(path) in last


def test_a_trial_s_folder_that_cannot_be_written_ends_the_study(run_in_process, tmp_path, capsys):
    first = Study.from_mapping(TINY, "tiny").trials[0]
    (tmp_path / "out" / "cells").mkdir(parents=True)
    (tmp_path / "out" / "cells" / first.id).write_text("a file")
    assert run_in_process(lambda folder: 0) == 2
    assert f"{first.id}: File exists; move the existing file away" in capsys.readouterr().err


@pytest.mark.parametrize("moment", ["hf_gradalign.study.definition.Study.read", "hf_gradalign.study.StudyRunner.run"])
def test_ctrl_c_prints_nothing_of_its_own(run_in_process, capsys, monkeypatch, moment):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(moment, interrupt)
    with pytest.raises(KeyboardInterrupt):  # `commands.run_command` prints the line
        run_in_process(lambda folder: 0)
    assert capsys.readouterr().err == ""


def test_trials_on_macos_are_not_forked(monkeypatch):
    """Metal, which computes on Apple's GPU, fails in a forked process."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # restores what is set here
    assert runner_module._make_context(1).get_start_method() == "forkserver"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert runner_module._make_context(1).get_start_method() == "spawn"


def test_ctrl_c_does_not_reach_what_trials_come_from(monkeypatch):
    """Otherwise it would print a traceback while it imports. Its children inherit its handling of the signal."""
    handlers = []
    monkeypatch.setattr(forkserver, "ensure_running", lambda: handlers.append(signal.getsignal(signal.SIGINT)))
    before = signal.getsignal(signal.SIGINT)
    runner_module._start_forkserver_without_ctrl_c()
    assert handlers == [signal.SIG_IGN]
    assert signal.getsignal(signal.SIGINT) == before


def test_ctrl_c_while_trials_run_starts_no_other(run_in_process, capsys, monkeypatch):
    ran = []

    def wait(*args, **options):
        while not ran:
            time.sleep(0.01)
        raise KeyboardInterrupt

    def work(folder):
        ran.append(folder)
        time.sleep(0.2)
        return 0

    monkeypatch.setattr(runner_module, "wait", wait)
    assert run_in_process(work) == 130
    assert "interrupted" in capsys.readouterr().err
    assert len(ran) == 1


def test_tokens_are_written_nowhere(study_file, tmp_path, monkeypatch):
    """Neither unexpanded nor expanded. The run gets them anyway."""
    seen = []

    def train(folder, tokens):
        words = [str(folder.options_file), *trial_process.token_words(tokens)]
        seen.append(parse_arguments(words).options["hub_token"])
        raise ValueError("enough")

    def work(path, clips, sets, parent, device, tokens):
        with pytest.raises(ValueError, match="enough"):
            trial_process.run_trial(TrialFolder(path), clips, sets, tokens)
        return 2

    monkeypatch.setattr(trial_process, "_train", train)
    token = "hf_" + "Secret1" * 5
    monkeypatch.setenv("MY_TOKEN", token)
    cells = [{"method": "pcgrad", "seed": 0}]
    study = Study.read(study_file(cells=cells, options={**TINY["options"], "hub_token": "${MY_TOKEN}"}))
    runner = StudyRunner(study, tmp_path / "out", progress=False)
    runner._context = InThisProcess(work)
    assert len(runner.run().failed) == 1
    assert seen == [token]
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert "options.yaml" in [path.name for path in written]
    assert not [path for path in written if b"Secret1" in path.read_bytes()]
    study = Study.read(study_file(cells=cells, options={**TINY["options"], "corpus": "${MY_TOKEN}"}))
    with pytest.raises(StudyError, match="looks like an access token"):
        StudyRunner(study, tmp_path / "out2", progress=False).run()


def test_trials_are_listed(script, study_file, tmp_path, capsys):
    assert script.main([str(study_file()), "--list", "--output_dir", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("to do") == 8
    assert "8 trials, each scored on dev" in printed


def test_a_study_is_run_once_at_a_time(script, study_file, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    with hold_lock(tmp_path / "out" / "study.lock", "it"):
        assert script.main([str(study_file()), "--output_dir", str(tmp_path / "out")]) == 2
    assert f"the study in {tmp_path / 'out'} is in use by process {os.getpid()} on" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["quick", "small_scale"])
def test_studies_in_the_repository_are_sound(script, monkeypatch, tmp_path, capsys, name):
    monkeypatch.setenv("CORPORA", str(tmp_path))
    assert (
        script.main([str(SCRIPT.with_name("studies") / f"{name}.yaml"), "--list", "--output_dir", str(tmp_path)]) == 0
    )
    assert "trials, each scored on" in capsys.readouterr().out
