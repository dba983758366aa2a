import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

TINY = {"conv_dim": (8,) * 7, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
QUICK = ["--seconds", "0.2", "--steps", "2", "--warm_up", "0", "--threads", "1", "--heads", "linear", "mhfa"]


@pytest.fixture
def script(load_script, monkeypatch):
    script = load_script("benchmark_heads")
    monkeypatch.setitem(script.SIZES, "small", TINY)
    return script


def rows_of(text):
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_a_table_for_scoring_and_one_for_training(script, monkeypatch, capsys, tmp_path):
    peaks = {"backbone alone": (100.0, 10.0), "linear": (110.0, 15.0), "mhfa": (150.0, 40.0)}
    monkeypatch.setattr(script, "peak_memory", lambda make, options, name, kind, threads: peaks[name])
    assert script.main([*QUICK, "--json", str(tmp_path / "figures.json")]) == 0
    rows = rows_of(capsys.readouterr().out)
    names = ["backbone alone", "linear", "mhfa"]
    assert [row[0] for row in rows] == ["forward", *names, "forward and backward", *names]
    assert {len(row) for row in rows} == {8}
    assert rows[1][3] == rows[5][3] == "1.000 (1.000 to 1.000)"
    assert rows[2][4:] == rows[6][4:] == ["110", "15", "1.10", "1.50"]
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert [len(times) for times in figures["seconds"]["forward"].values()] == [2, 2, 2]
    assert figures["peak_mib"]["forward and backward"] == {name: peak for name, (peak, _) in peaks.items()}


def test_without_memory(script, capsys):
    assert script.main([*QUICK, "--no-memory"]) == 0
    assert {len(row) for row in rows_of(capsys.readouterr().out)} == {4}


def test_scoring_leaves_no_gradients_and_training_leaves_all(script):
    bench = script.HeadBench("small", 2, 0.2, [script.BACKBONE, "linear"])
    backbone, detector = bench.models[script.BACKBONE], bench.models["linear"]
    assert detector.backbone is backbone
    assert backbone.config._attn_implementation == "sdpa"
    assert bench.parameters["linear"] == sum(p.numel() for p in detector.head.parameters())
    bench.step("linear", script.FORWARD)()
    assert not detector.training
    assert all(p.grad is None for p in detector.parameters())
    torch.manual_seed(0)  # of the head's dropout
    bench.step("linear", script.BOTH)()
    assert detector.training
    assert all(p.grad is not None for n, p in detector.named_parameters() if n != "backbone.masked_spec_embed")
    before = [p.grad.clone() for p in detector.head.parameters()]
    torch.manual_seed(0)
    bench.step("linear", script.BOTH)()  # anew, not on top
    torch.testing.assert_close([p.grad for p in detector.head.parameters()], before)


def test_mistakes_are_told(script, capsys):
    with pytest.raises(SystemExit):
        script.main(["--steps", "1"])
    assert "--steps must be 2 or more" in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.slow
def test_takes_peak_memory_in_processes():
    path = Path(__file__).parents[2] / "scripts" / "benchmark_heads.py"
    words = [*QUICK[:-1], "--batch", "1"]
    done = subprocess.run([sys.executable, str(path), *words], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    rows = rows_of(done.stdout)
    assert all(float(row[4]) > float(row[5]) > 0 for row in (rows[1], rows[2], rows[4], rows[5]))
