import json


def test_both_ways_are_timed_and_agree(load_script, capsys, tmp_path):
    script = load_script("benchmark_metrics")
    words = ["--clips", "3000", "--draws", "20", "--rounds", "3", "--block", "10", "--json", str(tmp_path / "out.json")]
    assert script.main(words) == 0
    text = capsys.readouterr().out
    assert "3000 scores, 20 draws" in text
    assert "copies / counts, round by round" in text
    results = json.loads((tmp_path / "out.json").read_text())
    assert set(results["seconds"]) == {"EER", "EER, over speakers", "all metrics"}
    assert [len(times) for times in results["seconds_by_round"].values()] == [3, 3]
    assert len(results["ratios"]) == 3


def test_both_ways_draw_from_one_distribution(load_script):
    import numpy as np
    import pytest

    script = load_script("benchmark_metrics")
    scores, labels, _ = script.make_scores(1000, 0)
    ours, plain = script.Counting(scores, labels, 0), script.Copying(scores, labels, 0)
    ours.draw(300)
    plain.draw(300)
    assert len(set(ours.values)) > 25
    assert np.mean(ours.values) == pytest.approx(np.mean(plain.values), abs=0.003)
    assert np.std(ours.values) == pytest.approx(np.std(plain.values), rel=0.2)
