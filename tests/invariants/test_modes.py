"""Every way of running a training gives the same update: `scripts/check_modes.py` in real processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "check_modes.py"
# One of each kind; the slow test has all.
QUICK = ("static_graph, 2 x 2", "bucket_view, 2 x 2", "FSDP2, 2 x 2", "gradvac by module", "with weights", "LoRA, DDP")


def check_modes(path, *options):
    command = [sys.executable, str(SCRIPT), "--json", str(path), *options]
    done = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    assert path.is_file(), done.stderr[-3000:]
    rows = json.loads(path.read_text())
    wrong = [row for row in rows if not row["same"]]
    assert not wrong, f"{wrong}\n{done.stderr[-2000:]}"
    assert done.returncode == 0
    return rows


@pytest.mark.long
@pytest.mark.slow
def test_some_modes(tmp_path):
    rows = check_modes(tmp_path / "rows.json", "--processes", "2", "--only", *QUICK)
    assert len(rows) == len(QUICK) + 1  # FSDP2 in float32 and in bf16
    assert all(row["movement"] > 0.05 for row in rows)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_all_modes(tmp_path):
    rows = check_modes(tmp_path / "rows.json")
    assert len(rows) > 45


@pytest.mark.slow
def test_a_mode_that_is_not_there(tmp_path):
    done = subprocess.run([sys.executable, str(SCRIPT), "--only", "DPP"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no mode has DPP in its name" in done.stderr
