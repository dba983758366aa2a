import sys


def test_prints_ratios_against_two_passes(load_script, monkeypatch, capsys):
    script = load_script("benchmark_step")
    monkeypatch.setitem(script.SIZES, "small", {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2})
    monkeypatch.setitem(script.EXTRACTORS, "small", {"conv_dim": (8,) * 7})
    monkeypatch.setattr(script, "peak_memory", lambda arguments, variant: 100.0)
    monkeypatch.setattr(sys, "argv", ["benchmark_step.py", "--seconds", "0.2", "--steps", "2", "--methods", "pcgrad"])
    assert script.main() == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [row.split("|")[1].strip() for row in rows] == ["step", "two passes", "pcgrad"]
    assert rows[1].split("|")[3].strip() == "1.000"
