"""Figures of a study's report (matplotlib, the extra `plots`)."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_gradalign.study.arms import StudyResults
from hf_gradalign.study.report_tables import ReportTables, Row
from hf_gradalign.utils.figure_style import COLORS, GRAY, import_matplotlib, save_figures

_MOST_MODULES = 40


def draw_report(results: StudyResults, tables: ReportTables, folder: Path, formats: Sequence[str]) -> list[str]:
    """Draw all figures.

    Args:
        results: The study's results.
        tables: Made of them.
        folder: Gets the files.
        formats: As matplotlib names them.

    Returns:
        The files in the first of the formats, relative to the folder that `folder` is in.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    with import_matplotlib().rc_context({"text.parse_math": False}):  # names with a dollar sign stay text
        figures = _draw_all(results, tables)
    save_figures(figures, folder, formats)
    ending = formats[0].lstrip(".")
    return [f"{folder.name}/{name}.{ending}" for name in figures]


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


def draw_error_rates(rows: Sequence[Row]) -> Any:
    """Every seed's equal error rate, with mean and standard deviation, a line an arm."""
    figure, axis = _lines(len(rows))
    for place, row in enumerate(rows):
        values = [float(value) for value in row["values"].split()]
        axis.plot(values, [place] * len(values), "o", color=COLORS[0], alpha=0.4, markersize=4, markeredgewidth=0)
        axis.errorbar(
            100 * row["eer_mean"], place, xerr=100 * (row["eer_sd"] or 0), fmt="D", color=COLORS[1], markersize=4
        )
    _label(axis, rows)
    axis.set_xlabel(f"EER on {rows[0]['evaluation_set']} (%): seeds, mean and standard deviation")
    return figure


def draw_differences(rows: Sequence[Row]) -> Any:
    """Every difference to its baseline with its interval; grey where that holds zero."""
    figure, axis = _lines(len(rows))
    axis.axvline(0, color=GRAY, linewidth=1)
    for place, row in enumerate(rows):
        colour = GRAY if row["verdict"] == "noise" else COLORS[1]
        axis.plot([100 * row["low"], 100 * row["high"]], [place, place], color=colour)
        axis.plot(100 * row["difference"], place, "D", color=colour, markersize=4)
    _label(axis, rows)
    axis.set_xlabel(f"EER on {rows[0]['evaluation_set']} minus the baseline's (points), with interval; grey: noise")
    return figure


def draw_by_epoch(rows: Sequence[Row]) -> Any:
    """Conflict rate, cosine and ratio of norms by epoch, a line an arm, mean over seeds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.8), layout="constrained")
    axes = figure.subplots(1, 3)
    arms = groupby(rows, key=lambda row: (row["condition"], row["method"], row["epochs"]))
    for place, (key, group) in enumerate(arms):
        own = list(group)
        epochs = [row["epoch"] for row in own]
        style = {"color": COLORS[place % len(COLORS)], "marker": "o", "markersize": 3}
        style["linestyle"] = ("-", "--", ":", "-.")[place // len(COLORS) % 4]
        for axis, name in zip(axes, ("conflict_rate_mean", "cosine_mean", "norm_ratio_mean"), strict=True):
            scale = 100 if name == "conflict_rate_mean" else 1
            values = _column(own, name, scale)
            axis.plot(epochs, values, label=f"{key[1]}, {key[0]}", **style)
            if name == "conflict_rate_mean":
                spread = _column(own, "conflict_rate_sd", scale)
                axis.fill_between(
                    epochs, values - spread, values + spread, color=style["color"], alpha=0.1, linewidth=0
                )
    titles = (
        "updates in conflict (%), with spread of seeds",
        "mean cosine of the views' gradients",
        "norm of the second view's / first's",
    )
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title)
        axis.set_xlabel("epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=7)
    return figure


def draw_cosines(rows: Sequence[Row]) -> Any:
    """Distribution of the cosine by epoch: median, middle half and 5 to 95 %, a panel an arm, mean over seeds."""
    from matplotlib.figure import Figure

    arms = [list(group) for _, group in groupby(rows, key=lambda row: (row["condition"], row["method"], row["epochs"]))]
    columns = min(len(arms), 4)
    lines = -(-len(arms) // columns)
    figure = Figure(figsize=(3 * columns, 2.4 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True).flatten()
    for axis, own in zip(panels, arms, strict=False):
        epochs = [row["epoch"] for row in own]
        for low, high, alpha in ((5, 95, 0.2), (25, 75, 0.35)):
            bounds = (_column(own, f"cosine_{percent}") for percent in (low, high))
            axis.fill_between(epochs, *bounds, color=COLORS[0], alpha=alpha, linewidth=0)
        axis.plot(epochs, _column(own, "cosine_50"), color=COLORS[0])
        axis.axhline(0, color=GRAY, linewidth=1)
        axis.set_title(f"{own[0]['method']}\n{own[0]['condition']}", fontsize=7)
        axis.xaxis.get_major_locator().set_params(integer=True)
    for axis in panels[len(arms) :]:
        axis.set_visible(False)
    figure.supxlabel("epoch", fontsize=8)
    figure.supylabel("cosine of the views' gradients", fontsize=8)
    return figure


def draw_modules(rows: Sequence[Row]) -> Any:
    """Share of updates in conflict, modules by arms; of many modules those with most of the gradient in any arm."""
    from matplotlib.figure import Figure

    arms = list(dict.fromkeys((row["condition"], row["method"], row["epochs"]) for row in rows))
    shares: dict[str, float] = {}
    for row in rows:
        shares[row["module"]] = max(shares.get(row["module"], 0.0), row["norm_share"] or 0.0)
    shown = set(sorted(shares, key=shares.__getitem__, reverse=True)[:_MOST_MODULES])
    modules = [module for module in shares if module in shown]
    values = np.full((len(modules), len(arms)), np.nan)
    for row in rows:
        if row["module"] in shown:
            column = arms.index((row["condition"], row["method"], row["epochs"]))
            values[modules.index(row["module"]), column] = 100 * row["conflict_rate"]
    figure = Figure(figsize=(3.5 + 0.5 * len(arms), 2.5 + 0.17 * len(modules)), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(values, aspect="auto", cmap="viridis", vmin=0)
    axis.set_yticks(range(len(modules)), modules, fontsize=6)
    axis.set_xticks(range(len(arms)), [f"{arm[1]}, {arm[0]}" for arm in arms], rotation=60, ha="right", fontsize=6)
    figure.colorbar(image, ax=axis, label="updates in conflict (%)")
    if len(modules) < len(shares):
        axis.set_title(f"the {len(modules)} of {len(shares)} modules with most of the gradient's norm", fontsize=8)
    return figure


def _column(rows: Sequence[Row], name: str, scale: float = 1) -> NDArray[np.float64]:
    return scale * np.array([row[name] for row in rows], dtype=float)


def _lines(n: int) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1.2 + 0.25 * n), layout="constrained")
    return figure, figure.subplots()


def _label(axis: Any, rows: Sequence[Row]) -> None:
    names = [f"{row['method']}, {row['condition']}, {row['epochs']:g} epochs" for row in rows]
    axis.set_yticks(range(len(rows)), names, fontsize=7)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.grid(axis="x", alpha=0.3)


__all__ = ["draw_by_epoch", "draw_cosines", "draw_differences", "draw_error_rates", "draw_modules", "draw_report"]
