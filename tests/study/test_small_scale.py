"""docs/small_scale agrees with its Parquet files."""

import csv
import math
import re
from pathlib import Path

import pytest

from hf_gradalign.study import ReportSettings, Study, StudyTables, write_report

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "small_scale"
OF_DRAWS = ("low", "high", "verdict")


def text_of(path):
    return path.read_text(encoding="utf-8")


def numbers_apart(text):
    """Return a text without its numbers, and the numbers."""
    return re.sub(r"-?\d+\.\d+", "#", text), [float(number) for number in re.findall(r"-?\d+\.\d+", text)]


def assert_same(made, committed):
    (made_text, made_numbers), (text, numbers) = numbers_apart(made), numbers_apart(committed)
    assert made_text == text
    # The last digit may differ between processors and NumPy versions.
    assert all(math.isclose(a, b, rel_tol=1e-6, abs_tol=0.011) for a, b in zip(made_numbers, numbers, strict=True))


def without_draws(path):
    """The rows of `eer.csv` without what the bootstrap finds."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return "\n".join(str({name: row[name] for name in row if name not in OF_DRAWS}) for row in rows)


@pytest.mark.slow
def test_the_tables_are_made_of_the_results(tmp_path):
    write_report(FOLDER, tmp_path, ReportSettings(n_draws=2), formats=())
    for name in ("by_system", "training", "epochs", "modules"):
        assert_same(text_of(tmp_path / f"{name}.csv"), text_of(FOLDER / "report" / f"{name}.csv"))
    assert_same(without_draws(tmp_path / "eer.csv"), without_draws(FOLDER / "report" / "eer.csv"))


@pytest.mark.long
@pytest.mark.slow
def test_the_report_is_made_of_the_results(tmp_path):
    pytest.importorskip("matplotlib")
    write_report(FOLDER, tmp_path, ReportSettings())
    for name in ["report.md", *(f"{name}.csv" for name in ("eer", "by_system", "training", "epochs", "modules"))]:
        assert_same(text_of(tmp_path / name), text_of(FOLDER / "report" / name))
    assert sorted(p.name for p in (tmp_path / "figures").iterdir()) == sorted(
        p.name for p in (FOLDER / "report" / "figures").iterdir()
    )


def test_results_are_those_of_the_study_s_file():
    study = Study.read(ROOT / "scripts" / "studies" / "small_scale.yaml")
    tables = StudyTables(FOLDER)
    known = {trial.id for trial in study.trials}
    assert tables.results.keys() <= known
    finished = [trial for trial in study.trials if tables.has(trial, study.evaluation_sets)]
    assert len(finished) == len(tables.results)
    assert f"{len(finished)} of {len(study.trials)} trials" in text_of(FOLDER / "README.md")


@pytest.mark.parametrize("page", ["docs/small_scale/README.md", "README.md"])
def test_figures_of_the_page_are_in_the_report(page):
    with (FOLDER / "report" / "eer.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    text = text_of(ROOT / page)
    if page == "README.md":
        text = re.search(r"\n## Results\n(.*?)\n## ", text, re.DOTALL)[1]
    quoted = re.findall(r"(\d+\.\d+) ± (\d+\.\d+)", text)
    there = {(f"{100 * float(row['eer_mean']):.2f}", f"{100 * float(row['eer_sd'] or 0):.2f}") for row in rows}
    with (FOLDER / "report" / "training.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["conflict_rate_mean"]:
                there.add(tuple(f"{100 * float(row[f'conflict_rate_{what}'] or 0):.2f}" for what in ("mean", "sd")))
    assert quoted
    assert set(quoted) <= there
