import sys

import pytest
from conflict_rows import make_rows, write_rows

from hf_gradalign.utils.file_locks import hold_output


@pytest.fixture
def plot(load_script):
    return load_script("plot_conflicts").main


def test_a_run_and_a_file(plot, tmp_path, capsys):
    record = write_rows(tmp_path / "run", make_rows(modules=["a", "b"]))
    figures = tmp_path / "run" / "figures"
    assert plot([str(tmp_path / "run")]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert sorted(printed) == sorted(str(path) for path in figures.iterdir())
    assert len(printed) == 4
    assert plot([str(record), "--output_dir", str(tmp_path / "mine"), "--formats", "svg"]) == 0
    assert {path.name for path in (tmp_path / "mine").iterdir()} == {"conflicts.svg", "conflicts_by_module.svg"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "error: nowhere does not exist"),
        (["."], "train with --conflict_record jsonl"),
        (["all_results.json"], "all_results.json is not a conflict record"),
        (["run", "--formats", "xyz"], "'xyz' is not supported"),
    ],
)
def test_mistakes_are_told(plot, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "run", make_rows())
    (tmp_path / "all_results.json").write_text('{\n  "eval_eer": 0.1\n}\n')
    assert plot(words) == 2
    assert message in capsys.readouterr().err


def test_one_at_a_time(plot, tmp_path, capsys):
    write_rows(tmp_path / "run", make_rows())
    with hold_output(tmp_path / "figures" / "conflicts"):
        assert plot([str(tmp_path / "run"), "--output_dir", str(tmp_path / "figures")]) == 2
    assert "figures/conflicts is in use by process" in capsys.readouterr().err
    assert not (tmp_path / "figures").exists()  # it was new, and stayed empty


def test_without_matplotlib(plot, tmp_path, monkeypatch, capsys):
    write_rows(tmp_path, make_rows())
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert plot([str(tmp_path)]) == 2
    assert "its extra `plots`" in capsys.readouterr().err


@pytest.mark.slow
def test_draws_what_a_run_recorded(run_script, plot, tmp_path):
    out = tmp_path / "out"
    run_script.draw_figures()
    assert run_script("--align_gradients", "--conflict_record_modules", output_dir=out) == 0
    card = (out / "README.md").read_text()
    for name in ("conflicts", "conflicts_by_module"):
        assert f"](figures/{name}.png)" in card
        assert (out / "figures" / f"{name}.png").is_file()
    assert "[conflicts.jsonl](conflicts.jsonl)" in card
    assert plot([str(out), "--formats", "svg"]) == 0
    assert (out / "figures" / "conflicts_by_module.svg").is_file()


def test_a_run_can_be_told_to_keep_no_record(run_script, tmp_path):
    out = tmp_path / "out"
    assert run_script("--align_gradients", "--conflict_record", "none", output_dir=out) == 0
    assert not list(out.glob("*conflicts*"))
    assert not (out / "figures").exists()
    assert "conflicts.jsonl" not in (out / "README.md").read_text()
