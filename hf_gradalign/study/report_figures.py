"""The figures of a study's report (matplotlib, the extra `plots`)."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_gradalign.study.comparison import ONE_SEED, StudyResults
from hf_gradalign.study.report_tables import ReportTables
from hf_gradalign.study.tables import TableRow
from hf_gradalign.utils.figure_style import COLORS, GRAY, import_matplotlib, save_figures

_MAX_MODULES = 40
_LEGEND_COLUMNS = 3
_MAX_LINEAR = 10  # larger ranges of ratios are drawn on a logarithmic axis


def draw_report(results: StudyResults, tables: ReportTables, folder: Path, formats: Sequence[str]) -> list[str]:
    """Draw all figures.

    Args:
        results: The study's results.
        tables: The tables of these results.
        folder: Gets the files.
        formats: File formats, as matplotlib names them.

    Returns:
        The files in the first format, relative to the parent of `folder`.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    with import_matplotlib().rc_context({"text.parse_math": False}):  # names may contain dollar signs
        figures = _draw_all(results, tables)
    save_figures(figures, folder, formats)
    suffix = formats[0].lstrip(".")
    return [f"{folder.name}/{name}.{suffix}" for name in figures]


def _draw_all(results: StudyResults, tables: ReportTables) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for name in results.evaluation_sets:
        rows = [row for row in tables.eer if row["evaluation_set"] == name]
        if not rows:
            continue
        figures[f"eer_{name}"] = draw_error_rates(rows)
        compared = [row for row in rows if row["verdict"]]
        if compared:
            figures[f"differences_{name}"] = draw_differences(compared)
    aligned = [row for row in tables.epochs if row["conflict_rate_mean"] is not None]
    if aligned:
        figures["conflicts_by_epoch"] = draw_by_epoch(aligned)
        figures["cosines_by_epoch"] = draw_cosines(aligned)
    modules = [row for row in tables.modules if row["conflict_rate"] is not None]
    if modules:
        figures["conflicts_by_module"] = draw_modules(modules)
    return figures


def draw_error_rates(rows: Sequence[TableRow]) -> Any:
    """Draw the equal error rate of every seed, with mean and standard deviation, one line per group."""
    figure, axis = _lines(len(rows))
    for line, row in enumerate(rows):
        values = [float(value) for value in row["eer_percent_by_seed"].split()]
        axis.plot(values, [line] * len(values), "o", color=COLORS[0], alpha=0.4, markersize=4, markeredgewidth=0)
        axis.errorbar(
            100 * row["eer_mean"], line, xerr=100 * (row["eer_sd"] or 0), fmt="D", color=COLORS[1], markersize=4
        )
    _label(axis, rows)
    axis.set_xlabel(f"EER on {rows[0]['evaluation_set']} (%): seeds, mean and standard deviation")
    return figure


def draw_differences(rows: Sequence[TableRow]) -> Any:
    """Draw every difference from the baseline with its interval; gray if it contains zero or is from one seed."""
    figure, axis = _lines(len(rows))
    axis.axvline(0, color=GRAY, linewidth=1)
    for line, row in enumerate(rows):
        color = GRAY if row["verdict"] in ("noise", ONE_SEED) else COLORS[1]
        axis.plot([100 * row["low"], 100 * row["high"]], [line, line], color=color)
        axis.plot(100 * row["difference"], line, "D", color=color, markersize=4)
    _label(axis, rows)
    unclear = [verdict for verdict in ("noise", ONE_SEED) if any(row["verdict"] == verdict for row in rows)]
    key = f"; gray: {' or '.join(unclear)}" if unclear else ""
    axis.set_xlabel(f"EER on {rows[0]['evaluation_set']} minus the baseline's (points), with interval{key}")
    return figure


def draw_by_epoch(rows: Sequence[TableRow]) -> Any:
    """Draw conflict rate, cosine and ratio of norms by epoch, one curve per group, mean over seeds."""
    from matplotlib.figure import Figure

    groups = [(key, list(group)) for key, group in groupby(rows, key=_group_key)]
    legend_lines = -(-len(groups) // _LEGEND_COLUMNS)
    figure = Figure(figsize=(12, 3.8 + 0.17 * max(0, legend_lines - 2)), layout="constrained")
    axes = figure.subplots(1, 3)
    for index, (key, group_rows) in enumerate(groups):
        epochs = [row["epoch"] for row in group_rows]
        color, linestyle = COLORS[index % len(COLORS)], ("-", "--", ":", "-.")[index // len(COLORS) % 4]
        for axis, name in zip(axes, ("conflict_rate_mean", "cosine_mean", "norm_ratio"), strict=True):
            scale = 100 if name == "conflict_rate_mean" else 1
            values = _column(group_rows, name, scale)
            label = f"{key[1]}, {key[0]}"
            axis.plot(epochs, values, label=label, color=color, linestyle=linestyle, marker="o", markersize=3)
            if name == "conflict_rate_mean":
                spread = _column(group_rows, "conflict_rate_sd", scale)
                axis.fill_between(epochs, values - spread, values + spread, color=color, alpha=0.1, linewidth=0)
    titles = (
        "updates in conflict (%), with spread of seeds",
        "mean cosine of the views' gradients",
        "norm of the second view's / first's",
    )
    ratios = _column(rows, "norm_ratio")
    ratios = ratios[np.isfinite(ratios)]
    if ratios.max(initial=0) > _MAX_LINEAR * ratios.min(initial=np.inf):
        axes[2].set_yscale("log")
        axes[2].yaxis.set_major_formatter("{x:g}")
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title)
        axis.set_xlabel("epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
    handles, labels = axes[0].get_legend_handles_labels()
    # Long enough to tell the dash patterns apart.
    figure.legend(handles, labels, loc="outside lower center", ncols=_LEGEND_COLUMNS, fontsize=7, handlelength=4)
    return figure


def draw_cosines(rows: Sequence[TableRow]) -> Any:
    """Draw the distribution of the cosine by epoch, one panel per group, mean over seeds.

    Each panel has the median, the middle half, and the range from 5 to 95 %.
    """
    from matplotlib.figure import Figure

    groups = [list(group) for _, group in groupby(rows, key=_group_key)]
    columns = min(len(groups), 4)
    lines = -(-len(groups) // columns)
    figure = Figure(figsize=(3 * columns, 2.4 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True).flatten()
    for axis, group_rows in zip(panels, groups, strict=False):
        epochs = [row["epoch"] for row in group_rows]
        for low, high, alpha in ((5, 95, 0.2), (25, 75, 0.35)):
            lower, upper = (_column(group_rows, f"cosine_{percent}") for percent in (low, high))
            axis.fill_between(epochs, lower, upper, color=COLORS[0], alpha=alpha, linewidth=0)
        axis.plot(epochs, _column(group_rows, "cosine_50"), color=COLORS[0])
        axis.axhline(0, color=GRAY, linewidth=1)
        axis.set_title(f"{group_rows[0]['method']}\n{group_rows[0]['condition']}", fontsize=7)
        axis.xaxis.get_major_locator().set_params(integer=True)
    for axis in panels[len(groups) :]:
        axis.set_visible(False)
    figure.supxlabel("epoch", fontsize=8)
    figure.supylabel("cosine of the views' gradients", fontsize=8)
    return figure


def draw_modules(rows: Sequence[TableRow]) -> Any:
    """Draw the share of updates in conflict by module and group.

    If there are more than 40 modules, only those with the largest share of the gradient's norm in any group are drawn.
    """
    from matplotlib.figure import Figure

    groups = list(dict.fromkeys(map(_group_key, rows)))
    shares: dict[str, float] = {}
    for row in rows:
        shares[row["module"]] = max(shares.get(row["module"], 0.0), row["norm_share"] or 0.0)
    largest = set(sorted(shares, key=shares.__getitem__, reverse=True)[:_MAX_MODULES])
    modules = [module for module in shares if module in largest]
    values = np.full((len(modules), len(groups)), np.nan)
    for row in rows:
        if row["module"] in largest:
            values[modules.index(row["module"]), groups.index(_group_key(row))] = 100 * row["conflict_rate"]
    figure = Figure(figsize=(3.5 + 0.5 * len(groups), 2.5 + 0.17 * len(modules)), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(values, aspect="auto", cmap="viridis", vmin=0)
    axis.set_yticks(range(len(modules)), modules, fontsize=6)
    axis.set_xticks(range(len(groups)), [f"{key[1]}, {key[0]}" for key in groups], rotation=60, ha="right", fontsize=6)
    figure.colorbar(image, ax=axis, label="updates in conflict (%)")
    if len(modules) < len(shares):
        axis.set_title(f"the {len(modules)} of {len(shares)} modules with the largest gradient norms", fontsize=8)
    return figure


def _group_key(row: TableRow) -> tuple[str, str, float]:
    return row["condition"], row["method"], row["epochs"]


def _column(rows: Sequence[TableRow], name: str, scale: float = 1) -> NDArray[np.float64]:
    return scale * np.array([row[name] for row in rows], dtype=float)


def _lines(n: int) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1.2 + 0.25 * n), layout="constrained")
    return figure, figure.subplots()


def _label(axis: Any, rows: Sequence[TableRow]) -> None:
    names = [f"{row['method']}, {row['condition']}, {row['epochs']:g} epochs" for row in rows]
    axis.set_yticks(range(len(rows)), names, fontsize=7)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.grid(axis="x", alpha=0.3)
