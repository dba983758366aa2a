"""All ways of running a training give the same update: `scripts/check_modes.py` in real processes."""

import argparse
import importlib
import json
import sys
from pathlib import Path

import forked_group
import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
# One of each kind; the long test runs all modes.
QUICK = ("FSDP2, 2 x 2",)
SLOW = ("static_graph, 2 x 2", "bucket_view, 2 x 2", "gradvac by module", "with weights", "LoRA, DDP", "layer, FSDP2")


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("check_modes")


@pytest.fixture
def main(script, monkeypatch):
    def main(*words):
        monkeypatch.setattr(sys, "argv", ["check_modes.py", *map(str, words)])
        return script.main()

    return main


@pytest.fixture
def forked(script, monkeypatch, tmp_path):
    """Fork the script's processes from one with all imports, instead of starting them with torchrun."""

    def launch(processes, arguments, folder):
        arguments = argparse.Namespace(**{**vars(arguments), "work": processes, "folder": folder})
        process = forked_group.start(work, arguments, log=tmp_path / "log", processes=processes)
        process.join()
        return process.exitcode

    monkeypatch.setattr(script, "launch", launch)


def work(arguments):
    """As the script, with half as many updates."""
    tiny_training = importlib.import_module("training_modes.tiny_training")
    tiny_training.UPDATES //= 2
    importlib.import_module("check_modes").work(arguments)


def check_modes(main, path, *options):
    status = main("--json", path, *options)
    rows = json.loads(path.read_text())
    wrong = [row for row in rows if not row["same"]]
    assert not wrong
    assert status == 0
    return rows


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("names", [QUICK, pytest.param(SLOW, marks=pytest.mark.slow)], ids=["quick", "slow"])
def test_some_modes(main, tmp_path, names):
    rows = check_modes(main, tmp_path / "rows.json", "--processes", "2", "--only", *names)
    assert len(rows) == len(names) + (names is QUICK)  # FSDP2 in float32 and in bf16
    assert all(row["movement"] > 0.05 for row in rows)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_all_modes(main, tmp_path):
    rows = check_modes(main, tmp_path / "rows.json")
    assert len(rows) > 45


def test_a_mode_that_is_not_there(main, capsys):
    with pytest.raises(SystemExit, match="2"):
        main("--only", "DPP")
    assert "no mode has DPP in its name" in capsys.readouterr().err
