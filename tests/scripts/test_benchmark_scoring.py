import json

import pytest


@pytest.fixture
def script(load_script, monkeypatch):
    script = load_script("benchmark_scoring")
    sizes = {"conv_dim": (8,) * 7, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    monkeypatch.setitem(script.SIZES, "base", sizes)
    return script


def test_the_scorer_beside_its_bare_model(script, capsys, tmp_path):
    words = ["--clips", "3", "--batch_size", "2", "--rounds", "2", "--threads", "1", "--workers", "0"]
    assert script.main([*words, "--json", str(tmp_path / "figures.json")]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ") and "worker" in line]
    assert len(rows) == 3  # the whole, its start-up, and what the workers hand over
    seconds = json.loads((tmp_path / "figures.json").read_text())["seconds"]
    assert [len(times) for times in seconds.values()] == [2, 2]
