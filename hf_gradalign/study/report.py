"""A study's report: Markdown, CSV files and figures, made only from its tables."""

import csv
import io
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hf_gradalign.study.comparison import ONE_SEED, StudyResults
from hf_gradalign.study.definition import StudyError
from hf_gradalign.study.report_settings import ReportSettings
from hf_gradalign.study.report_tables import ReportTables, make_tables
from hf_gradalign.study.tables import StudyTables, TableRow
from hf_gradalign.utils.figure_style import import_matplotlib
from hf_gradalign.utils.file_locks import hold_output
from hf_gradalign.utils.files import write_text_atomically
from hf_gradalign.utils.plain_text import markdown_cell, markdown_text

REPORT_NAME = "report.md"
_CSV_NAMES = ("eer", "by_system", "training", "epochs", "modules")


def write_report(
    folder: str | Path,
    output_dir: str | Path | None = None,
    settings: ReportSettings | None = None,
    formats: Sequence[str] = ("png",),
) -> Path:
    """Write a study's report.

    Args:
        folder: The folder with the study's tables.
        output_dir: Gets `report.md`, the CSV files and `figures/`; default: `report/` in the folder.
        settings: The settings of comparisons.
        formats: File formats of the figures, as matplotlib names them. An empty list draws no figures.

    Returns:
        The path of `report.md`.

    Raises:
        LockHeldError: If another process is writing a report there.
        StudyError: If there are no results, or none for the baseline.
        ValueError: If the comparison is impossible with these settings, or a format is unknown.
        ImportError: If figures are requested and matplotlib is not installed.
    """
    settings = settings or ReportSettings()
    if formats:
        import_matplotlib(formats, is_optional=True)
    results = StudyResults(StudyTables(folder))
    methods = dict.fromkeys(group.method for groups in results.groups.values() for group in groups)
    if settings.baseline not in methods:
        raise StudyError(
            f"no finished trial has the baseline method {settings.baseline!r}. Finished methods: {', '.join(methods)}"
        )
    tables = make_tables(results, settings)
    output_dir = Path(folder, "report") if output_dir is None else Path(output_dir)
    path = output_dir / REPORT_NAME
    with hold_output(path):
        for name in _CSV_NAMES:
            write_text_atomically(output_dir / f"{name}.csv", _as_csv(getattr(tables, name)))
        figures: list[str] = []
        if formats:
            from hf_gradalign.study.report_figures import draw_report

            figures = draw_report(results, tables, output_dir / "figures", formats)
        write_text_atomically(path, render(results, tables, settings, figures))
    return path


def render(results: StudyResults, tables: ReportTables, settings: ReportSettings, figures: Sequence[str]) -> str:
    """Format the report as Markdown.

    Args:
        results: The study's results.
        tables: The tables of these results.
        settings: The settings of the tables.
        figures: Paths of figures, relative to the report.
    """
    distinct = {id(group): group for groups in results.groups.values() for group in groups}
    n_trials = sum(len(group.seeds) for group in distinct.values())
    scored_on, over = markdown_text(", ".join(results.evaluation_sets)), markdown_text(settings.over)
    parts = [
        "# Report",
        f"{n_trials} runs, scored on {scored_on}. Rates in %, mean ± standard deviation over seeds. Differences are "
        f"from the baseline with the same seeds and clips. Their intervals are from a bootstrap over {over}s and "
        f"seeds ({settings.n_draws} draws, {100 * settings.confidence:g} %), and p is from the signed-rank test over "
        "seeds. **noise**: the interval contains zero. About 1 in 20 comparisons of equal methods will still look "
        "like a difference. With few seeds, intervals are too narrow: expect up to 1 in 10 with ten seeds, 1 in 6 "
        "with five, 1 in 4 with three, and 1 in 2 with two.",
        *_at_a_glance(tables),
        *_error_rates(results, tables),
        *_systems(results, tables),
        *_dynamics(tables),
        *_modules(tables),
        *_cost(tables),
    ]
    if figures:
        parts += ["## Figures", *(f"![{markdown_text(Path(path).stem)}]({quote(path)})" for path in figures)]
    return "\n\n".join(parts) + "\n"


def _at_a_glance(tables: ReportTables) -> list[str]:
    compared = [row for row in tables.eer if row["verdict"]]
    if not compared:
        return []
    judged = [row for row in compared if row["verdict"] != ONE_SEED]
    clear = [row for row in judged if row["verdict"] != "noise"]
    lines = ["## At a glance"]
    if len(judged) < len(compared):
        n_others = len(compared) - len(judged)
        lines.append(f"Not judged, because a single seed says nothing about other runs: {n_others} of {len(compared)}.")
    if judged:
        lines.append(
            f"Of {len(judged)} differences {len(judged) - len(clear)} are noise"
            + (f" and {len(clear)} are not:" if clear else ".")
        )
    return [*lines, "\n".join(map(_clear_difference, clear))] if clear else lines


def _clear_difference(row: TableRow) -> str:
    return (
        f"- {_describe_row(row)} ({markdown_text(row['condition'])}, {row['epochs']:g} epochs) is "
        f"**{row['verdict']}** than {markdown_text(row['against'])} by {_points(abs(row['difference']))} points "
        f"({_points(row['low'])} to {_points(row['high'])}, p = {row['p_value']:.3f}, {row['n_paired']} seeds)"
    )


def _describe_row(row: TableRow) -> str:
    return markdown_text(f"{row['evaluation_set']}: {row['method']}")


def _error_rates(results: StudyResults, tables: ReportTables) -> list[str]:
    parts = ["## Equal error rates"]
    for name in results.evaluation_sets:
        rows = [row for row in tables.eer if row["evaluation_set"] == name]
        parts.append(f"### {markdown_text(name)}")
        parts.append(
            _table(
                ["condition", "method", "epochs", "passes", "EER", "seeds", "difference", "interval", "p", ""],
                [
                    [
                        row["condition"],
                        row["method"],
                        f"{row['epochs']:g}",
                        f"{row['passes'] / 1000:.1f}k",
                        _mean_sd(row, "eer"),
                        str(row["n_seeds"]),
                        _signed(row["difference"]),
                        "" if row["low"] is None else f"{_points(row['low'])} to {_points(row['high'])}",
                        "" if row["p_value"] is None else f"{row['p_value']:.3f}",
                        row["verdict"] or "",
                    ]
                    for row in rows
                ],
            )
        )
    return parts


def _systems(results: StudyResults, tables: ReportTables) -> list[str]:
    parts = ["## By spoofing system", "Each system's clips against all bona fide ones, EER in %, mean over seeds."]
    for name in results.evaluation_sets:
        rows = [row for row in tables.by_system if row["evaluation_set"] == name]
        systems = sorted({row["system"] for row in rows})
        if not systems:
            continue
        lines = []
        for key, group in groupby(rows, key=lambda row: (row["condition"], row["method"], row["epochs"])):
            rates = {row["system"]: row["eer_mean"] for row in group}
            lines.append([key[0], key[1], f"{key[2]:g}", *(_points(rates.get(system), 1) for system in systems)])
        parts += [f"### {markdown_text(name)}", _table(["condition", "method", "epochs", *systems], lines)]
    return parts


def _dynamics(tables: ReportTables) -> list[str]:
    rows = [
        [
            row["condition"],
            row["method"],
            f"{row['epochs']:g}",
            _plain_mean_sd(row, "best_epoch"),
            "" if row["best_epoch_difference"] is None else f"{row['best_epoch_difference']:+.1f}",
            "" if row["best_epoch_p_value"] is None else f"{row['best_epoch_p_value']:.3f}",
            _mean_sd(row, "conflict_rate"),
            _number(row["norm_ratio"]),
            _points(row["second_loss_larger"], 0),
            _points(row["second_norm_larger"], 0),
        ]
        for row in tables.training
    ]
    header = [
        "condition",
        "method",
        "epochs",
        "best epoch",
        "to baseline",
        "p",
        "conflicts (%)",
        "norm ratio",
        "loss larger (%)",
        "norm larger (%)",
    ]
    by_epoch: list[list[str]] = []
    for key, group in groupby(
        [row for row in tables.epochs if row["conflict_rate_mean"] is not None],
        key=lambda row: (row["condition"], row["method"], row["epochs"]),
    ):
        rates = " ".join(f"{100 * row['conflict_rate_mean']:.0f}" for row in group)
        by_epoch.append([key[0], key[1], rates])
    return [
        "## Training",
        "Best epoch: the one with the lowest validation loss. Norm ratio: median of the second view's gradient norm "
        "over the first's, geometric mean over epochs and seeds. Larger: share of updates in which the second view's "
        "loss, or norm, is the larger.",
        _table(header, rows),
        "Updates in conflict by epoch (%), mean over seeds:",
        _table(["condition", "method", "epochs from the first"], by_epoch),
    ]


def _modules(tables: ReportTables) -> list[str]:
    if not tables.modules:
        return []
    keys = list(dict.fromkeys((row["condition"], row["method"]) for row in tables.modules))
    chosen = [row for row in tables.modules if (row["condition"], row["method"]) == keys[0]]
    return [
        "## By module",
        f"{markdown_text(', '.join(reversed(keys[0])))} (all others: modules.csv). Share: of the clean view's squared "
        "gradient norm.",
        _table(
            ["module", "updates in conflict (%)", "share of the norm (%)"],
            [[row["module"], _points(row["conflict_rate"], 1), _points(row["norm_share"], 1)] for row in chosen],
        ),
    ]


def _cost(tables: ReportTables) -> list[str]:
    rows = [
        [
            row["condition"],
            row["method"],
            "" if row["seconds_per_update"] is None else f"{row['seconds_per_update']:.3f}",
            _number(row["time_ratio"]),
            "" if row["peak_memory_mib"] is None else f"{row['peak_memory_mib']:.0f}",
        ]
        for row in tables.training
    ]
    return [
        "## Cost",
        "Median seconds per update over the seeds' medians, and the peak memory. Trials that run in parallel slow "
        "each other down; scripts/benchmark_step.py compares methods in one run.",
        _table(["condition", "method", "seconds per update", "relative to baseline", "peak memory (MiB)"], rows),
    ]


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(map(markdown_cell, cells))} |"

    return "\n".join([line(header), "|" + "---|" * len(header), *map(line, rows)])


def _points(fraction: float | None, digits: int = 2) -> str:
    if fraction is None:
        return ""
    text = f"{100 * fraction:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text  # never "-0.00"


def _signed(fraction: float | None) -> str:
    text = _points(fraction)
    return text if not text or text.startswith("-") or float(text) == 0 else f"+{text}"


def _mean_sd(row: TableRow, name: str) -> str:
    mean, deviation = row[f"{name}_mean"], row[f"{name}_sd"]
    return _points(mean) + ("" if deviation is None else f" ± {_points(deviation)}")


def _plain_mean_sd(row: TableRow, name: str) -> str:
    mean, deviation = row[f"{name}_mean"], row[f"{name}_sd"]
    if mean is None:
        return ""
    return f"{mean:.1f}" + ("" if deviation is None else f" ± {deviation:.1f}")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _as_csv(rows: Sequence[TableRow]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _csv_value(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def _csv_value(value: Any) -> Any:
    # Further digits differ between machines.
    return f"{value:.8g}" if isinstance(value, float) else value
