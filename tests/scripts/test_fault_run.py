"""The fault run: it detects what is lost, mixed or wrong, and a small one runs from end to end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def outcomes(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    from fault_trials import outcomes

    return outcomes


def lines(*numbers, model=0):
    return "".join(f"clip_{number} {number}.{model}\n" for number in numbers).encode()


FIRST = {"scores.txt": lines(*range(9)), "model.safetensors": b"first"}
SECOND = {"scores.txt": lines(*range(9), model=1), "model.safetensors": b"second"}


@pytest.mark.parametrize(
    ("found", "outcome"),
    [
        (FIRST, None),
        (SECOND, None),
        ({**FIRST, "scores.txt": lines(0, 1, 2, 3) + lines(4, 5, 6, 7, 8, model=1)}, "mixed"),
        ({**FIRST, "model.safetensors": b"second"}, "mixed"),
        ({**FIRST, "scores.txt": lines(0, 1, 2, 3)}, "lost"),
        ({"scores.txt": FIRST["scores.txt"]}, "lost"),
        ({}, "lost"),
        ({**FIRST, "model.safetensors": b"fir\0t"}, "silent"),
        ({**FIRST, "scores.txt": lines(0, 1, 2, 3) + b"clip_4 5.5"}, "silent"),
        ({**FIRST, "more.txt": b"what nobody writes"}, "silent"),
    ],
)
def test_the_judge_can_fail(outcomes, found, outcome):
    fault = outcomes.judge(found, [FIRST, SECOND])
    assert (fault and fault[0]) == outcome


def test_the_messages_that_count_are_those_of_the_package(outcomes):
    from fault_trials.bench import MESSAGES

    package = SCRIPTS.parent / "hf_gradalign"
    source = "".join(file.read_text(encoding="utf-8") for file in package.rglob("*.py"))
    assert [message for message in MESSAGES if message not in source] == []


def test_what_is_compared(outcomes, tmp_path):
    for name, content in {
        "all_results.json": json.dumps({"eval_loss": 0.5, "eval_runtime": 3.0, "where": f"{tmp_path}/a"}),
        "scores.txt": "a 1.0\n",
        "checkpoint-3/model.safetensors": "x",
        "_running.lock": "",
        "deep/log.txt": "x",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    files = outcomes.read_results(tmp_path)
    assert json.loads(files.pop("all_results.json")) == {"eval_loss": 0.5, "where": "FOLDER/a"}
    assert files == {"scores.txt": b"a 1.0\n"}


def test_the_record_survives_a_kill_and_is_counted(outcomes, tmp_path):
    record = outcomes.Record(tmp_path / "trials.jsonl")
    for trial, outcome in enumerate(["as uninterrupted", "as uninterrupted", "mixed"]):
        record.add(outcomes.Outcome("kill", trial, outcome))
    with record.path.open("a") as file:
        file.write('{"kind": "kill", "tri')
    record = outcomes.Record(record.path)
    record.add(outcomes.Outcome("kill", 3, "refused or skipped"))
    record = outcomes.Record(record.path)
    assert list(record.outcomes) == [("kill", number) for number in range(4)]
    assert record.table(["kill"]).splitlines()[1].split() == ["kill", "4", "2", "1", "0", "1", "0"]


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_small_one(tmp_path):
    counts = ["--kills", "2", "--double_starts", "1", "--full_disks", "2", "--damaged", "3"]
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / "fault_run.py"), "--output_dir", str(tmp_path), *counts],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    kinds = {line.split()[0]: int(line.split()[1]) for line in done.stdout.rpartition("\n\n")[2].splitlines()[1:]}
    assert kinds["kill_training"] == 2
    assert kinds["hub_html"] == 8
