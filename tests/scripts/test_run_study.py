import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from pyarrow import parquet

from hf_gradalign.experiment import read_arguments
from hf_gradalign.file_locks import hold_lock
from hf_gradalign.study import Study, StudyError, StudyRunner, cell_process
from hf_gradalign.study.cell_folder import CellFolder
from hf_gradalign.study.tables import RESOURCES

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
    return table.drop_columns([column for column in RESOURCES if column in table.column_names]).to_pylist()


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
        # In three different stretches of the work: the first cells, and what is left after another kill. How much of it
        # is done in a second is the machine's affair.
        while process.poll() is None and len(list(killed.glob("cells/*/cell.json"))) <= n_before:
            time.sleep(0.05)
        time.sleep(chance.uniform(0, 1))
        assert process.poll() is None, process.stdout.read()
        # The runner alone, or all that it started too.
        (os.killpg if kill % 2 else os.kill)(process.pid, signal.SIGKILL)
        process.wait()
        n_before = len(list(killed.glob("cells/*/cell.json")))
    assert n_before < 8
    before = {path: path.stat().st_mtime_ns for path in killed.glob("cells/*/cell.json")}
    last = start(study, killed, "--slots", "2")
    output, _ = last.communicate()
    assert last.returncode == 0, output
    assert "8 of 8 cells are finished" in output
    for name in ("results.parquet", "epochs.parquet", "clips.parquet"):
        assert rows(killed, name) == rows(tmp_path / "whole", name)
    assert len(rows(killed, "results.parquet")) == 8
    # What was finished was not done again.
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.long
@pytest.mark.slow
def test_failed_cells_are_listed_and_tried_again(study_file, tmp_path):
    cells = [{"method": "pcgrad", "seed": 0, "batch_size": 4, "model": ["small", str(tmp_path / "nothing")]}]
    process = start(study_file(cells=cells), tmp_path / "out")
    output, _ = process.communicate()
    assert process.returncode == 1
    assert "1 of 2 cells are finished" in output
    (line,) = [line for line in output.splitlines() if line.startswith("failed: ")]
    assert "nothing" in Path(line.split("; see ")[1]).read_text()
    assert start(study_file(cells=cells), tmp_path / "out").communicate()[0].count("failed: ") == 1


@pytest.fixture
def script(load_script):
    return load_script("run_study")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cells": [{"metod": "pcgrad"}]}, "entry 1 names no method"),
        ({"options": {"learning_rat": 1}}, "the options of the cell method pcgrad"),
        ({"options": {"corpus": "${NOWHERE_AT_ALL}"}}, "set the environment variable NOWHERE_AT_ALL first"),
    ],
)
def test_mistakes_are_told_before_anything_starts(script, study_file, tmp_path, capsys, changes, message):
    path = study_file(**{"cells": [{"method": "pcgrad"}], **changes})
    assert script.main([str(path), "--output_dir", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("out/cells/*"))


class InThisProcess:
    """Stands in for multiprocessing: a cell's work is a function's, called at once."""

    Pipe = staticmethod(multiprocessing.Pipe)

    def __init__(self, work):
        self._work = work

    def Process(self, target, args):
        process = SimpleNamespace(join=lambda: None, pid=None)
        process.start = lambda: setattr(process, "exitcode", self._work(*args))
        return process


def test_tokens_are_written_nowhere(study_file, tmp_path, monkeypatch):
    """Neither as they are nor expanded; the run gets them all the same."""
    seen = []

    def train(folder, tokens):
        seen.append(read_arguments([str(folder.options_file), *cell_process.token_words(tokens)])["hub_token"])
        raise ValueError("enough")

    def work(path, clips, sets, parent, device, tokens):
        with pytest.raises(ValueError, match="enough"):
            cell_process.run_cell(CellFolder(path), clips, sets, tokens)
        return 2

    monkeypatch.setattr(cell_process, "_train", train)
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


def test_cells_are_listed(script, study_file, tmp_path, capsys):
    assert script.main([str(study_file()), "--list", "--output_dir", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("to do") == 8
    assert "8 cells, each scored on dev" in printed


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
    assert "cells, each scored on" in capsys.readouterr().out
