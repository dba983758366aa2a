def test_it_measures_what_is_asked_for(load_script, capsys, monkeypatch):
    script = load_script("benchmark_startup")
    monkeypatch.setattr(script, "BASELINES", {script.PYTHON: "pass"})
    assert script.main(["--rounds", "1", "--only", "plot_conflicts"]) == 0
    header, _, baseline, row = capsys.readouterr().out.splitlines()
    assert header.startswith("| start | wall, s | CPU, s |")
    assert baseline.startswith("| `python` | ")
    assert row.startswith("| `plot_conflicts.py --help` | ")
    assert row.endswith("| python |")
