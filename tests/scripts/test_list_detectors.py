import json
from pathlib import Path

import pytest

from hf_gradalign.conversion import published_detectors


@pytest.fixture
def run(load_script):
    return lambda *words: load_script("list_detectors").main(list(words))


def test_all_detectors(run, capsys):
    assert run() == 0
    printed = capsys.readouterr().out
    for detector in published_detectors():
        assert f"{detector.name}: {detector.what}" in printed
    assert printed.count("  license    ") == printed.count("  checked    ") == len(published_detectors())


def test_a_filter_and_json(run, capsys):
    assert run("xls-r-1b-anti-deepfake", "nda") == 0
    printed = capsys.readouterr().out
    assert "  load       nii-yamagishilab/xls-r-1b-anti-deepfake-nda\n  license    CC-BY-NC-SA-4.0\n" in printed
    assert "  EER (%)    In-the-Wild 1.36, ADD 2023 6.58, Deepfake-Eval-2024 26.17 (README, before the" in printed
    assert run("AASIST-L.pth", "--json") == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert (entry["name"], entry["license"], entry["sha256"]) == ("AASIST-L", "mit", ["814331d0"])
    assert run("no", "such", "--json") == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out) == []
    assert captured.err == "error: no published detector matches no and such\n"


def test_the_page_is_the_one_that_the_code_writes(load_script, tmp_path):
    load_script("write_detectors_page").main([str(tmp_path / "page.md")])
    kept = Path(__file__).parents[2] / "docs" / "published.md"
    assert kept.read_text() == (tmp_path / "page.md").read_text(), "run scripts/write_detectors_page.py"
