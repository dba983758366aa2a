import json

import pytest

QUICK = ["--samples", "3000", "--rounds", "2", "--calls", "1", "--batch", "2"]


@pytest.fixture
def script(load_script):
    return load_script("benchmark_augmentation")


def tables(text):
    """Rows of each table, without the line below the header."""
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("| ")]
    return [
        [[cell.strip() for cell in row.strip("|").split("|")] for row in block if not row.startswith("|-")]
        for block in blocks
    ]


def test_compares_times_and_outputs(script, capsys, tmp_path):
    words = [*QUICK, "--recipes", "rawboost5", "time_frequency_mask", "--json", str(tmp_path / "figures.json")]
    assert script.main(words) == 0
    comparison, parts, recipes, batches = tables(capsys.readouterr().out)
    assert [row[0][0] for row in comparison[1:]] == list("12345678")
    assert all(0 < float(row[1]) < 1e-5 for row in comparison[1:])
    assert [row[0] for row in parts[1:]] == list(script.PARTS.values())
    assert parts[1][2] == "100 %"
    assert [row[0] for row in recipes[1:]] == ["rawboost5", "time_frequency_mask"]
    assert len(batches) == 3
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert [len(of["ratio"]) for of in figures["comparison"].values()] == [2] * 8
    one = figures["comparison"]["4"]
    assert one["ratio"] == pytest.approx([b / a for a, b in zip(one["ours_ms"], one["direct_ms"], strict=True)])


def test_a_difference_that_is_too_large_fails(script, monkeypatch, capsys):
    direct = script.direct_rawboost
    monkeypatch.setattr(script, "direct_rawboost", lambda *arguments: direct(*arguments) + 2e-5)
    assert script.main([*QUICK, "--algorithms", "2", "--recipes"]) == 1


def test_mistakes_are_told(script, capsys):
    with pytest.raises(SystemExit):
        script.main(["--rounds", "1"])
    assert "--rounds must be 2 or more" in capsys.readouterr().err
