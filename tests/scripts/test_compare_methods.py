import json
import sys
from types import SimpleNamespace

import pytest


@pytest.fixture
def compare(load_script, monkeypatch, quick_options):
    script = load_script("compare_methods")

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["compare_methods.py", *map(str, words), "--", *quick_options()])
        return script.main()

    return run


@pytest.mark.slow
def test_goes_on_where_it_was(compare, tmp_path, capsys):
    finished = tmp_path / "none-seed5"
    finished.mkdir()
    results = {"eval_eer": 0.05, "test_eer": 0.25, "train_conflict_rate": 0.1, "train_conflict_rate_by_epoch": [0, 0.2]}
    (finished / "all_results.json").write_text(json.dumps(results))
    assert compare("--output_dir", tmp_path, "--methods", "none", "pcgrad", "--seeds", "5") == 0
    printed = capsys.readouterr().out
    assert "training none" not in printed
    assert "training pcgrad, seed 5" in printed
    assert "| none | 5.0 ± 0.0 (5.0) | 25.0 ± 0.0 (25.0) | 10.0 ± 0.0 (10.0) | 0 20 |" in printed
    assert (tmp_path / "pcgrad-seed5" / "all_results.json").is_file()
    assert "| pcgrad | " in printed


@pytest.mark.slow
def test_failed_runs_are_listed(compare, tmp_path, capsys):
    assert compare("--output_dir", tmp_path, "--methods", "pcgard", "--seeds", "1") == 1
    assert "failed: pcgard, seed 1; see" in capsys.readouterr().err
    assert "no alignment method 'pcgard'" in (tmp_path / "pcgard-seed1.log").read_text()


def test_runs_of_one_view_have_no_conflicts(load_script, tmp_path):
    script = load_script("compare_methods")
    folder = tmp_path / "none-seed1"
    folder.mkdir()
    results = {"eval_eer": 0.05, "train_conflict_rate": None, "train_conflict_rate_by_epoch": []}
    (folder / "all_results.json").write_text(json.dumps(results))
    arguments = SimpleNamespace(output_dir=tmp_path, methods=["none"], seeds=[1])
    assert "| none | 5.0 ± 0.0 (5.0) | - | - | - |" in script.table(arguments)


def test_mean_and_spread(load_script):
    assert load_script("compare_methods").spread([0.1, 0.2, 0.3]) == "20.0 ± 10.0 (10.0, 20.0, 30.0)"
    assert load_script("compare_methods").spread([]) == "-"
