"""The figures of docs/verdicts.md, on made-up scores."""

import numpy as np
import pyarrow as pa
import pytest

from hf_gradalign.score_files import Clips


@pytest.fixture
def script(load_script):
    return load_script("calibrate_demo_model")


def make_split(shift, n_clips=160):
    labels = np.arange(n_clips) % 2
    scores = np.random.default_rng(0).normal(size=n_clips) + 3 * labels + shift
    names = pa.array([f"clip_{index}" for index in range(n_clips)])
    speakers = pa.array([f"s{index // 20}" for index in range(n_clips)])
    return Clips("demo", names, scores, labels, columns={"speaker": speakers})


def test_report(script, tmp_path, monkeypatch, capsys):
    splits = {"validation": make_split(3), "test": make_split(0)}
    monkeypatch.setattr(script, "SpoofScorer", lambda model, raw_scores: None)
    monkeypatch.setattr(script, "scored_split", lambda scorer, split: splits[split])
    assert script.main(["model", "--output_dir", str(tmp_path), "--bootstrap", "5"]) == 0
    report = (tmp_path / "report.md").read_text()
    assert report in capsys.readouterr().out
    first, second = (table.splitlines() for table in report.strip().split("\n\n"))
    assert [line.split("|")[1].strip() for line in first[2:]] == [
        "not calibrated",
        "fitted on the validation split",
        "fitted on the other speakers",
        "fitted on other clips",
    ]
    cllr = [float(line.split("|")[2].split()[0]) for line in first[2:]]
    assert max(cllr[2:]) < min(cllr[:2])  # the validation split is shifted
    assert all(line.split("|")[2].strip().startswith("0 %, ") for line in second[2:])  # no band, nothing undecided
    assert (tmp_path / "reliability.svg").is_file()


def test_a_model_that_is_not_there(script, capsys):
    assert script.main(["runs/nowhere"]) == 2
    assert "runs/nowhere" in capsys.readouterr().err
