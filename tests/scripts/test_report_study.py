import pytest
import yaml


@pytest.fixture
def script(load_script):
    return load_script("report_study")


def test_nothing_to_report(script, tmp_path, capsys):
    assert script.main([str(tmp_path)]) == 2
    assert "has no results of finished trials" in capsys.readouterr().err
    assert script.main([str(tmp_path / "absent")]) == 2
    assert "absent does not exist; pass the folder of a study" in capsys.readouterr().err


def test_unreadable_tables_give_one_line(script, tmp_path, capsys):
    (tmp_path / "results.parquet").write_text("<html>")
    assert script.main([str(tmp_path)]) == 2
    printed = capsys.readouterr().err
    assert f"{tmp_path / 'results.parquet'} is damaged, or not a table of a study" in printed
    assert f"python scripts/report_study.py {tmp_path} --rebuild_tables" in printed
    assert script.main([str(tmp_path), "--rebuild_tables"]) == 2
    assert "has no finished trials to rebuild tables from" in capsys.readouterr().err
    assert (tmp_path / "results.parquet").read_text() == "<html>"


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
