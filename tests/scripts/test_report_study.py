import pytest
import yaml


@pytest.fixture
def script(load_script):
    return load_script("report_study")


def test_nothing_to_report(script, tmp_path, capsys):
    assert script.main([str(tmp_path)]) == 2
    assert "has no results of finished cells" in capsys.readouterr().err


@pytest.mark.slow
def test_a_study_from_its_file_to_its_report(load_script, script, tmp_path, capsys):
    options = {"max_steps": 2, "max_train_samples": 8, "max_eval_samples": 8, "window_seconds": 0.5}
    study = {
        "options": options | {"check_audio": False},
        "evaluate": {"dev": {"corpus": "demo", "split": "validation"}},
        "cells": [{"method": ["dual_path", "pcgrad"], "batch_size": 4, "seed": 0}],
    }
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(study))
    assert load_script("run_study").main([str(path), "--output_dir", str(tmp_path / "out"), "--slots", "2"]) == 0
    words = ["--bootstrap", "20", "--bootstrap_over", "system", "--formats", "none"]
    assert script.main([str(tmp_path / "out"), "--output_dir", str(tmp_path / "report"), *words]) == 0
    text = (tmp_path / "report" / "report.md").read_text()
    assert "a bootstrap over systems and seeds (20 draws" in text
    assert "| rawboost, own, batch 4 | pcgrad |" in text
    assert script.main([str(tmp_path / "out"), "--bootstrap_over", "nothing"]) == 2
    assert "nothing" in capsys.readouterr().err
