import json

import pytest


@pytest.mark.long
@pytest.mark.slow
def test_it_measures_each_layout(load_script, tmp_path, capsys):
    out = tmp_path / "protocol.json"
    options = ["--lines", "60", "--rounds", "1", "--folder", str(tmp_path), "--json", str(out)]
    assert load_script("benchmark_protocol").main(options) == 0
    results = json.loads(out.read_text())
    assert set(results["corpora"]) == {"asvspoof5", "asvspoof2021_df", "csv"}
    for measured in results["corpora"].values():
        assert measured["seconds"][0] > 0
        assert measured["peak_bytes"][0] > 1e8
    printed = capsys.readouterr().out
    assert "60 lines; libraries alone" in printed
    assert "asvspoof2021_df" in printed


def test_too_few_lines(load_script, capsys):
    with pytest.raises(SystemExit):
        load_script("benchmark_protocol").main(["--lines", "1"])
    assert "--lines must be at least 2" in capsys.readouterr().err
