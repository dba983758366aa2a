import csv

import numpy as np
import pytest

from hf_gradalign.study import ReportSettings, StudyError, StudyTables, report, report_figures, write_report
from hf_gradalign.study.comparison import StudyResults, baseline_of
from hf_gradalign.study.report_tables import best_epoch, make_tables
from hf_gradalign.utils.figure_style import save_figures

QUICK = ReportSettings(n_draws=40)


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_groups_that_need_no_augmentation_are_listed_under_every_condition(finished_study):
    results = StudyResults(StudyTables(finished_study))
    result = {c.title: [(g.method, g.epochs, g.seeds) for g in groups] for c, groups in results.groups.items()}
    assert result == {
        "rawboost, own, batch 5": [("dual_path", 2, [0, 1]), ("pcgrad", 2, [0, 1])],
        "rawboost, own, batch 16": [
            ("clean", 4, [0, 1]),
            ("clean", 2, [0, 1]),
            ("dual_path", 2, [0, 1]),
            ("pcgrad", 2, [0, 1]),
        ],
    }


def test_baselines_have_as_many_epochs_or_as_many_forward_passes(finished_study):
    groups = next(g for c, g in StudyResults(StudyTables(finished_study)).groups.items() if c.batch_size == 16)
    long, short, dual, pcgrad = groups
    assert baseline_of(long, groups) is dual  # one view, trained twice as long
    assert baseline_of(short, groups) is dual
    assert baseline_of(pcgrad, groups) is dual
    assert baseline_of(dual, groups) is None
    assert baseline_of(dual, groups, "clean") is short
    assert baseline_of(dual, groups, "nothing") is None


def test_tables_agree_with_the_results(finished_study):
    results = StudyResults(StudyTables(finished_study))
    tables = make_tables(results, QUICK)
    assert len(tables.eer) == 12
    row = next(
        r for r in tables.eer if r["method"] == "pcgrad" and r["evaluation_set"] == "dev" and "16" in r["condition"]
    )
    group = next(g for c, gs in results.groups.items() if c.batch_size == 16 for g in gs if g.method == "pcgrad")
    rates = list(group.values("dev").values())
    assert row["eer_mean"] == pytest.approx(np.mean(rates))
    assert row["eer_sd"] == pytest.approx(np.std(rates, ddof=1))
    assert row["against"] == "dual path"
    assert row["n_paired"] == 2
    assert {r["system"] for r in tables.by_system} == {"A01", "A02"}
    training = next(r for r in tables.training if r["method"] == "pcgrad")
    assert (training["best_epoch_mean"], training["best_epoch_difference"]) == (2, 0)
    assert (training["conflict_rate_mean"], training["time_ratio"]) == (0.25, 1.0)
    clean = next(r for r in tables.training if r["method"] == "clean only" and r["epochs"] == 4)
    assert (clean["conflict_rate_mean"], clean["time_ratio"], clean["best_epoch_mean"]) == (None, 0.5, 4)
    assert next(r for r in tables.eer if r["epochs"] == 4)["against"] == "dual path, 2 epochs"


@pytest.mark.slow
def test_a_report_needs_only_the_tables_and_is_deterministic(finished_study, tmp_path_factory, monkeypatch):
    pytest.importorskip("matplotlib")
    first, second = tmp_path_factory.mktemp("first"), tmp_path_factory.mktemp("second")
    write_report(finished_study, first, QUICK, ["svg"])
    saved = []

    def save_half(figures, folder, formats):
        saved.extend(figures)
        return save_figures({name: figures[name] for name in list(figures)[::2]}, folder, formats)

    monkeypatch.setattr(report_figures, "save_figures", save_half)  # saving takes most of the time
    write_report(finished_study, second, QUICK, ["svg"])
    names = sorted(str(path.relative_to(first)) for path in first.rglob("*") if path.is_file())
    assert "report.md" in names
    assert {"eer.csv", "by_system.csv", "training.csv", "epochs.csv", "modules.csv"} <= set(names)
    drawn = {name.removeprefix("figures/") for name in names if name.startswith("figures/")}
    expected = ("eer_test", "conflicts_by_epoch", "cosines_by_epoch", "conflicts_by_module")
    assert {f"{name}.svg" for name in expected} <= drawn
    assert drawn == {f"{name}.svg" for name in saved}
    again = [path for path in second.rglob("*") if path.is_file()]
    assert len(again) == len(names) - len(saved) // 2
    for path in again:
        assert path.read_bytes() == (first / path.relative_to(second)).read_bytes()
    text = (first / "report.md").read_text()
    assert "(figures/differences_dev.svg)" in text
    for row in table(first / "eer.csv"):
        assert f"{100 * float(row['eer_mean']):.2f} ± {100 * float(row['eer_sd']):.2f}" in text
    assert len(table(first / "epochs.csv")) == 4 * 2 + 4 + 2


def test_the_report_begins_with_what_is_noise(finished_study, tmp_path):
    text = write_report(finished_study, tmp_path / "out", QUICK, []).read_text()
    rows = table(tmp_path / "out" / "eer.csv")
    verdicts = [row["verdict"] for row in rows if row["verdict"]]
    assert f"Of {len(verdicts)} differences {verdicts.count('noise')} are noise" in text
    assert not (tmp_path / "out" / "figures").exists()


def test_a_single_seed_gets_no_verdict(finished_study):
    results = StudyResults(StudyTables(finished_study))
    tables = make_tables(results, QUICK)
    compared = [row for row in tables.eer if row["verdict"]]
    compared[0].update(verdict="one seed", n_paired=1, p_value=None)
    text = report.render(results, tables, QUICK, [])
    assert f"Not judged, because a single seed says nothing about other runs: 1 of {len(compared)}." in text
    assert f"Of {len(compared) - 1} differences" in text
    for row in compared:
        row.update(verdict="one seed", n_paired=1, p_value=None)
    text = report.render(results, tables, QUICK, [])
    assert f"other runs: {len(compared)} of {len(compared)}." in text
    assert "are noise" not in text


def test_a_ratio_and_its_inverse_have_the_mean_one(finished_study):
    study = StudyTables(finished_study)
    for rows in study.epochs.values():
        for row in rows:
            if row["norm_ratio"] is not None:
                row["norm_ratio"] = 10_000.0 if row["epoch"] == 1 else 1e-4
    tables = make_tables(StudyResults(study), QUICK)
    ratios = [row["norm_ratio"] for row in tables.training if row["norm_ratio"] is not None]
    assert ratios == pytest.approx([1.0] * len(ratios))
    assert {round(row["norm_ratio"], 9) for row in tables.epochs if row["norm_ratio"] is not None} == {1e4, 1e-4}
    pytest.importorskip("matplotlib")
    aligned = [row for row in tables.epochs if row["conflict_rate_mean"] is not None]
    assert report_figures.draw_by_epoch(aligned).axes[2].get_yscale() == "log"
    for row in aligned:
        row["norm_ratio"] = 1.0 + row["epoch"] / 10
    assert report_figures.draw_by_epoch(aligned).axes[2].get_yscale() == "linear"


def test_the_best_epoch_is_the_first_of_equals():
    rows = [{"epoch": e, "eval_loss": loss} for e, loss in ((1, 0.5), (2, None), (3, 0.3), (4, 0.3))]
    assert best_epoch(rows) == 3
    assert best_epoch(rows[1:2]) is None


def test_nothing_to_report(tmp_path):
    with pytest.raises(StudyError, match="no results of finished trials"):
        write_report(tmp_path)


def test_a_baseline_that_is_not_there(finished_study):
    settings = ReportSettings(baseline="dual")
    with pytest.raises(StudyError, match=r"no finished trial has the baseline method 'dual'\. Finished methods:"):
        write_report(finished_study, settings=settings)


def test_names_in_a_report_are_text():
    assert report._table(["a|b"], [["<b>x</b>\n| y"]]).splitlines() == [r"| a\|b |", "|---|", r"| \<b>x\</b> \| y |"]


def test_a_hostile_system_stays_in_its_cell(finished_study, monkeypatch):
    results = StudyResults(StudyTables(finished_study))
    tables = make_tables(results, QUICK)
    for row in tables.by_system:
        row["system"] = "![x](http://e.org)|" + row["system"]
    text = report.render(results, tables, QUICK, ["figures/a b).png"])
    assert r"\[x\](http\://e.org)\|A01" in text
    assert "](figures/a%20b%29.png)" in text
