"""The pages of our studies agree with their Parquet files."""

import csv
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hf_gradalign.study import ReportSettings, Study, StudyTables, write_report

ROOT = Path(__file__).parents[2]
STUDIES = {"small_scale": ROOT / "docs" / "small_scale", "conflict": ROOT / "docs" / "studies" / "conflict"}
CONFLICT = STUDIES["conflict"]
OF_DRAWS = ("low", "high", "verdict")

each_study = pytest.mark.parametrize("name", STUDIES)


def text_of(path):
    return path.read_text(encoding="utf-8")


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


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
    return "\n".join(str({name: row[name] for name in row if name not in OF_DRAWS}) for row in rows_of(path))


@pytest.mark.slow
@each_study
def test_the_tables_are_made_of_the_results(name, tmp_path):
    write_report(STUDIES[name], tmp_path, ReportSettings(n_draws=2), formats=())
    report = STUDIES[name] / "report"
    for table in ("by_system", "training", "epochs", "modules"):
        assert_same(text_of(tmp_path / f"{table}.csv"), text_of(report / f"{table}.csv"))
    assert_same(without_draws(tmp_path / "eer.csv"), without_draws(report / "eer.csv"))


@pytest.mark.long
@pytest.mark.slow
@each_study
def test_the_report_is_made_of_the_results(name, tmp_path):
    pytest.importorskip("matplotlib")
    write_report(STUDIES[name], tmp_path, ReportSettings())
    report = STUDIES[name] / "report"
    for file in ["report.md", *(f"{table}.csv" for table in ("eer", "by_system", "training", "epochs", "modules"))]:
        assert_same(text_of(tmp_path / file), text_of(report / file))
    assert sorted(p.name for p in (tmp_path / "figures").iterdir()) == sorted(
        p.name for p in (report / "figures").iterdir()
    )


@pytest.mark.slow
def test_the_description_of_conflicts_is_made_of_the_updates(tmp_path):
    pytest.importorskip("matplotlib")
    script = ROOT / "scripts" / "describe_conflicts.py"
    subprocess.run([sys.executable, script, CONFLICT, "--output", tmp_path], check=True)
    assert_same(text_of(tmp_path / "conflicts.md"), text_of(CONFLICT / "conflicts.md"))
    assert {p.name for p in (tmp_path / "figures").iterdir()} == {p.name for p in (CONFLICT / "figures").iterdir()}


@each_study
def test_results_are_those_of_the_study_s_file(name):
    study = Study.read(ROOT / "scripts" / "studies" / f"{name}.yaml")
    tables = StudyTables(STUDIES[name])
    known = {trial.id for trial in study.trials}
    assert tables.results.keys() <= known
    finished = [trial for trial in study.trials if tables.has(trial, study.evaluation_sets)]
    assert len(finished) == len(tables.results)
    assert f"{len(finished)} of {len(study.trials)} trials" in text_of(STUDIES[name] / "README.md")


def percents(row, *names):
    return tuple(f"{round(100 * float(row[name] or 0), 2) + 0.0:.2f}" for name in names)  # never -0.00


@pytest.mark.parametrize(
    ("page", "studies"),
    [
        ("docs/small_scale/README.md", ["small_scale"]),
        ("docs/studies/conflict/README.md", ["conflict"]),
        ("README.md", [*STUDIES]),
    ],
)
def test_figures_of_the_page_are_in_the_report(page, studies):
    text = text_of(ROOT / page)
    if page == "README.md":
        text = re.search(r"\n## Results\n(.*?)\n## ", text, re.DOTALL)[1]
    rates, differences = set(), set()
    for report in (STUDIES[name] / "report" for name in studies):
        for row in rows_of(report / "eer.csv"):
            rates.add(percents(row, "eer_mean", "eer_sd"))
            if row["difference"]:
                differences.add(percents(row, "difference", "low", "high"))
        training = rows_of(report / "training.csv")
        rates |= {
            percents(row, "conflict_rate_mean", "conflict_rate_sd") for row in training if row["conflict_rate_mean"]
        }
    quoted = re.findall(r"(\d+\.\d+) ± (\d+\.\d+)", text)
    assert quoted
    assert set(quoted) <= rates
    interval = r"([+-]\d+\.\d+)(?: points)? \((?:95 % interval )?(-?\d+\.\d+) to (-?\d+\.\d+)\)"
    quoted = {(difference.removeprefix("+"), low, high) for difference, low, high in re.findall(interval, text)}
    assert quoted
    assert quoted <= differences
