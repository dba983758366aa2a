import json

import pytest

QUICK = [
    "--clips",
    "12",
    "--batch",
    "2",
    "--window_seconds",
    "0.1",
    "--updates",
    "4",
    "--rounds",
    "2",
    "--threads",
    "1",
]


@pytest.fixture
def script(load_script):
    return load_script("benchmark_data")


def rows_of(text):
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.long
@pytest.mark.slow
def test_says_where_time_goes_and_whether_training_waits(script, capsys, tmp_path):
    words = [*QUICK, "--workers", "0", "1", "--json", str(tmp_path / "figures.json")]
    assert script.main(words) == 0
    text = capsys.readouterr().out
    rows = rows_of(text)
    assert [row[0] for row in rows] == [
        "of a batch of 2 utterances, in one process",
        "rows of the table",
        "reading and decoding",
        "level",
        "augmentation (rawboost)",
        "window of both views",
        "collating and normalizing",
        "all of these",
        "loader workers",
        "model alone",
        "0",
        "1",
    ]
    assert sum("With " in line and " loader workers training is " in line for line in text.splitlines()) == 2
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert {name: len(values) for name, values in figures["step_seconds"].items()} == {"model alone": 2, "0": 2, "1": 2}
    assert all(0 < share < 1 for share in figures["waiting_share"]["0"])
    # Without workers the loop makes each batch itself, and waits for all of it.
    assert min(figures["waiting_share"]["0"]) > max(figures["waiting_share"]["model alone"])


@pytest.mark.slow
def test_with_augmentation_on_the_device(script, capsys):
    words = [*QUICK, "--workers", "0", "--augment_on_device", "--augmentation_scope", "window"]
    assert script.main(words) == 0
    assert "rawboost of the window" in capsys.readouterr().out


def test_a_loader_that_is_too_slow_is_called_so(script, capsys):
    turns = type("Turns", (), {})()
    turns.step_seconds = {script.MODEL_ALONE: [1.0, 1.0], "2": [2.0, 2.0]}
    turns.loader_seconds = {"2": [2.0, 2.0]}
    turns.waiting = {"2": [0.5, 0.6]}
    script.print_verdict(turns, script.parse(["--workers", "2"]))
    printed = capsys.readouterr().out
    assert "With 2 loader workers training is data-bound" in printed
    assert "it waits for 55.0 %, and the loader alone is 0.5 times as fast" in printed


def test_mistakes_are_told(script, capsys):
    with pytest.raises(SystemExit):
        script.main(["--updates", "3"])
    assert "--updates 4 or more" in capsys.readouterr().err
