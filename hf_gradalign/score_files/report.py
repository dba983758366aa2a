"""Evaluations and calibrations as Markdown tables and as figures (matplotlib, the extra `plots`)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, ndtri

from hf_gradalign.metrics import Breakdown, Comparison, CountedScores, Interval, Metric, RankedScores
from hf_gradalign.metrics.functional.eer import official_equal_error
from hf_gradalign.metrics.registry import format_value
from hf_gradalign.score_files.results import UTTERANCE, Evaluation, MetricRow, Settings
from hf_gradalign.utils.figure_style import BLUE, COLORS, GRAY, STYLE, VERMILION, import_matplotlib
from hf_gradalign.utils.plain_text import one_line, plain_text

_IN_CELLS = str.maketrans({"|": "\\|", "\n": " ", "\t": " "})
_AGAINST = {
    "all_bonafide": "spoofed clips of each value against all bona fide clips",
    "within": "clips of each value against each other",
    "one_class": "clips of each value",
}
_TICKS = (0.0001, 0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.99)
_HIGHEST = 0.6
_GRID = 0.002  # of the error curve, in standard deviations: finer than a pixel
_N_BINS = 80
_N_PROBABILITY_BINS = 10
_MAX_BARS = 60


def overall_table(evaluation: Evaluation) -> str:
    """Format all metrics, with intervals if there are any. Titles say which are percentages."""
    has_intervals = any(row.interval is not None for row in evaluation.rows.values())
    header = ["metric", "value"]
    if has_intervals:
        header.append(f"{100 * evaluation.settings.confidence:g} % interval")
    rows = []
    for row in evaluation.rows.values():
        cells = [titled(row.title, row.is_percentage), format_value(row.value, row.is_percentage)]
        rows.append([*cells, _range(row.interval, row.is_percentage)] if has_intervals else cells)
    return markdown_table(header, rows)


def described(evaluation: Evaluation) -> str:
    """Describe the number of clips, the computation of the intervals, and the thresholds."""
    if evaluation.n_trials:
        sizes = "{target} target, {nontarget} non-target and {spoof} spoofed trials".format_map(evaluation.n_trials)
    else:
        sizes = f"{evaluation.n_bonafide} bona fide and {evaluation.n_spoof} spoofed clips"
    text = f"{plain_text(evaluation.source)}: {sizes}."
    settings = evaluation.settings
    if settings.n_draws and any(row.interval is not None for row in evaluation.rows.values()):
        drawn = describe_draws(settings, "trials within each type") if evaluation.n_trials else describe_draws(settings)
        text += f" Intervals: bootstrap of {drawn}"
        minima = [row.title for row in evaluation.rows.values() if row.title.startswith("min")]
        text += f"; those of {', '.join(minima)} tend to be too narrow." if minima else "."
    if evaluation.eer_threshold is not None:
        text += f" Threshold of the EER: {evaluation.eer_threshold:.6g}."
    if settings.threshold is not None:
        text += f" Threshold of decisions: {settings.threshold:.6g} (this score or more is accepted)."
    return text


def describe_draws(settings: Settings, utterances: str = "clips within each class") -> str:
    """Describe what a bootstrap draws, how often, and its seed."""
    drawn = utterances if settings.over == UTTERANCE else f"the values of {plain_text(settings.over)}"
    return f"{drawn}, {settings.n_draws} draws, seed {settings.seed}"


def describe_costs(evaluation: Evaluation) -> str:
    """Describe the priors and costs of metrics, one line for those with the same ones; empty if there are none."""
    titles: dict[str, list[str]] = {}
    for name, costs in evaluation.costs.items():
        text = ", ".join(f"{parameter} {value:.6g}" for parameter, value in costs.items())
        titles.setdefault(text, []).append(evaluation.rows[name].title)
    return "\n".join(f"{', '.join(names)}: {text}." for text, names in titles.items())


def breakdown_table(column: str, breakdown: Breakdown, metrics: Mapping[str, Metric | MetricRow]) -> str:
    """Format metrics by the values of a column, `n/a` if a class is missing, and their means if there are several.

    Args:
        column: The column.
        breakdown: The metrics by value.
        metrics: Objects with the title of each metric, such as `Evaluation.rows`.
    """
    names = list(breakdown.groups[0].metrics)
    header = [column, "bona fide", "spoof", *(titled(metrics[n].title, metrics[n].is_percentage) for n in names)]
    rows = [
        [
            group.value,
            str(group.n_bonafide),
            str(group.n_spoof),
            *(format_value(group.metrics[name], metrics[name].is_percentage) for name in names),
        ]
        for group in breakdown.groups
    ]
    if len(rows) > 1:
        means = breakdown.means
        cells = (format_value(means[name], metrics[name].is_percentage) for name in names)
        rows.append(["(mean)", "", "", *cells])
    return f"By {plain_text(column)}, {_AGAINST[breakdown.against]}:\n\n{markdown_table(header, rows)}"


def comparison_table(comparisons: Mapping[str, Comparison], metrics: Mapping[str, Metric]) -> str:
    """Format the values of both systems, their difference with its interval, and the p-value."""
    confidence = next(iter(comparisons.values())).confidence
    header = ["metric", "first", "second", "first minus second", f"{100 * confidence:g} % interval", "p"]
    rows = []
    for name, comparison in comparisons.items():
        metric = metrics[name]
        values = map(metric.format, (comparison.first, comparison.second, comparison.difference))
        interval = f"{metric.format(comparison.low)} to {metric.format(comparison.high)}"
        rows.append([titled(metric.title, metric.is_percentage), *values, interval, f"{comparison.p_value:.3g}"])
    return markdown_table(header, rows)


def titled(title: str, is_percentage: bool) -> str:
    """Return the title of a column of a table."""
    return f"{title} (%)" if is_percentage else title


def _range(interval: Interval | None, is_percentage: bool) -> str:
    if interval is None:
        return ""
    return f"{format_value(interval.low, is_percentage)} to {format_value(interval.high, is_percentage)}"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format rows as a Markdown table. The first column has names, the others numbers."""
    # A column needs a width of two, because Markdown requires a hyphen next to the colon below the header.
    lines = [[plain_text(cell).translate(_IN_CELLS) for cell in line] for line in (header, *rows)]
    widths = [max(2, *map(len, column)) for column in zip(*lines, strict=True)]
    rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    padded = [
        [cell.rjust(widths[index]) if index else cell.ljust(widths[index]) for index, cell in enumerate(line)]
        for line in lines
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in (padded[0], rule, *padded[1:]))


def _styled(draw: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that draws in the style of all figures."""

    @wraps(draw)
    def styled(*arguments: Any, **options: Any) -> Any:
        with import_matplotlib().rc_context(STYLE):
            return draw(*arguments, **options)

    return styled


@_styled
def draw_det(systems: Mapping[str, tuple[NDArray, NDArray]]) -> Any:
    """Draw the detection error trade-off: rejected bona fide against accepted spoofed clips, on normal deviate axes.

    With normally distributed scores the curves are straight lines (Martin et al., "The DET curve in assessment of
    detection task performance", Eurospeech 1997). The equal error points are marked.

    Args:
        systems: Scores and labels, 1 bona fide and 0 spoof, by the name of the system.

    Returns:
        A matplotlib `Figure`.
    """
    figure = _new_figure(5, 5)
    axis = figure.subplots()
    curves = {name: RankedScores(scores, labels).counted() for name, (scores, labels) in systems.items()}
    rates = [official_equal_error(curve).rate for curve in curves.values()]
    highest = max(_HIGHEST, min(0.99, 1.2 * max(rates)))
    lowest = min(_lowest_visible(curve, highest) for curve in curves.values())
    for (name, curve), rate, color in zip(curves.items(), rates, itertools.cycle(COLORS[:6])):
        far, frr = (
            ndtri(np.clip(side, lowest, max(highest, 1 - lowest)))
            for side in (curve.false_acceptance_rate, curve.false_rejection_rate)
        )
        kept = _corners(far, frr)
        axis.plot(far[kept], frr[kept], color=color, label=f"{one_line(name)}: EER {100 * rate:.2f} %")
        if lowest < rate < 1 - lowest:
            axis.plot(ndtri(rate), ndtri(rate), "o", color=color, markersize=5)
    limits = ndtri(lowest), ndtri(highest)
    axis.plot(limits, limits, color=GRAY, linewidth=0.8, linestyle=":")
    ticks = [tick for tick in _TICKS if lowest <= tick <= highest]
    for direction, label in (("x", "spoofed clips accepted (%)"), ("y", "bona fide clips rejected (%)")):
        getattr(axis, f"set_{direction}lim")(*limits)
        getattr(axis, f"set_{direction}ticks")(ndtri(ticks), [f"{100 * tick:g}" for tick in ticks])
        getattr(axis, f"set_{direction}label")(label)
    axis.grid(color="#dddddd", linewidth=0.5)
    axis.set_aspect("equal")
    axis.legend(loc="upper right")
    return figure


@_styled
def draw_histograms(scores: NDArray[np.float64], labels: NDArray, threshold: float | None = None) -> Any:
    """Draw the distribution of the scores of both classes, each with area 1, and the equal error threshold."""
    figure = _new_figure(6, 3.2)
    axis = figure.subplots()
    low, high = np.quantile(scores, [0.0005, 0.9995])  # a single outlier must not compress all others
    low, high = (low, high) if low < high else (low - 0.5, high + 0.5)
    edges = np.linspace(low, high, _N_BINS + 1)
    for value, name, color in ((1, "bona fide", BLUE), (0, "spoof", VERMILION)):
        own = np.clip(scores[labels == value], low, high)
        axis.hist(own, edges, density=True, histtype="stepfilled", alpha=0.5, color=color, label=name)
    if threshold is not None and low <= threshold <= high:
        axis.axvline(threshold, color=GRAY, linestyle="--", linewidth=1, label="EER threshold")
    axis.set_xlabel("score")
    axis.set_ylabel("density")
    axis.legend()
    return figure


@_styled
def draw_bars(column: str, breakdown: Breakdown, pooled: float | None = None, metric: str = "eer") -> Any:
    """Draw the equal error rate of each value of a column, and of all clips together."""
    groups = breakdown.groups[:_MAX_BARS]
    figure = _new_figure(max(4.0, 1.2 + 0.32 * len(groups)), 3.2)
    axis = figure.subplots()
    positions = np.arange(len(groups))
    values = np.array([100 * group.metrics[metric] for group in groups])
    axis.bar(positions, np.nan_to_num(values), color=BLUE, width=0.7)
    for position, value in zip(positions, values, strict=True):
        text = "n/a" if np.isnan(value) else f"{value:.1f}"
        axis.annotate(
            text, (position, np.nan_to_num(value)), (0, 2), textcoords="offset points", ha="center", fontsize=6
        )
    if pooled is not None:
        axis.axhline(100 * pooled, color=VERMILION, linestyle="--", linewidth=1, label="all clips")
        axis.legend(loc="upper right", bbox_to_anchor=(1, 1.15))
    axis.set_xticks(positions, [one_line(group.value) for group in groups], rotation=60, ha="right")
    axis.set_xlim(-0.6, len(groups) - 0.4)
    axis.margins(y=0.12)
    axis.set_ylim(0, None if np.nanmax(values, initial=0) > 0 else 1)
    axis.set_ylabel("EER (%)")
    axis.set_xlabel(one_line(column))
    if len(breakdown.groups) > len(groups):
        axis.set_title(f"the first {len(groups)} of {len(breakdown.groups)}")
    return figure


class Reliability(NamedTuple):
    """Bins of clips with similar probabilities.

    Attributes:
        predicted: The mean probability of bona fide in each bin, ascending, shape (bins,).
        observed: The share of bona fide clips in each bin, if both classes were equally probable, shape (bins,).
        counts: The number of clips in each bin, shape (bins,).
    """

    predicted: NDArray[np.float64]
    observed: NDArray[np.float64]
    counts: NDArray[np.int64]


def reliability(
    ratios: NDArray[np.float64], labels: NDArray[np.int64], n_bins: int = _N_PROBABILITY_BINS
) -> Reliability:
    """Compare the probabilities that log-likelihood ratios imply with the shares of bona fide clips.

    Both classes have the same weight, whatever their number of clips, so the prior is 0.5.

    Args:
        ratios: Log-likelihood ratios, shape (clips,).
        labels: 1 bona fide and 0 spoof, of both classes, shape (clips,).
        n_bins: Largest number of bins. All have the same weight of clips; clips with equal ratios share a bin.
    """
    weights = np.where(labels == 1, 0.5 / np.count_nonzero(labels == 1), 0.5 / np.count_nonzero(labels == 0))
    group_of = np.unique(ratios, return_inverse=True)[1]
    below = np.cumsum(np.bincount(group_of, weights)) - np.bincount(group_of, weights)
    # Rounding keeps sums that should be on an edge from falling below it.
    bins = np.unique(np.floor(np.round(below * n_bins, 9)), return_inverse=True)[1][group_of]
    total = np.bincount(bins, weights)
    return Reliability(
        np.bincount(bins, weights * expit(ratios)) / total,
        np.bincount(bins, weights * (labels == 1)) / total,
        np.bincount(bins),
    )


@_styled
def draw_reliability(systems: Mapping[str, NDArray[np.float64]], labels: NDArray[np.int64]) -> Any:
    """Draw the share of bona fide clips over their probability, and the distribution of probabilities below.

    Args:
        systems: Log-likelihood ratios, shape (clips,) each, by a name such as "before" or "after" calibration.
        labels: 1 bona fide and 0 spoof, of both classes, shape (clips,).

    Returns:
        A matplotlib `Figure`.
    """
    figure = _new_figure(4.5, 5.5)
    axis, below = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    axis.plot([0, 1], [0, 1], color=GRAY, linewidth=0.8, linestyle=":", label="perfect")
    for color, (name, ratios) in zip(COLORS, systems.items(), strict=False):
        points = reliability(ratios, labels)
        axis.plot(points.predicted, points.observed, "o-", color=color, markersize=4, label=one_line(name))
        below.hist(expit(ratios), np.linspace(0, 1, 2 * _N_PROBABILITY_BINS + 1), histtype="step", color=color)
    axis.set_ylabel("share of bona fide clips")
    axis.set_aspect("equal")
    axis.set_xlim(-0.02, 1.02)
    axis.set_ylim(-0.02, 1.02)
    axis.grid(color="#dddddd", linewidth=0.5)
    axis.legend(loc="upper left")
    below.set_ylabel("clips")
    below.set_xlabel("probability of bona fide (prior 0.5)")
    return figure


def _new_figure(width: float, height: float) -> Any:
    """Return an empty figure of this size in inches."""
    from matplotlib.figure import Figure  # not pyplot: no window, no state

    return Figure(figsize=(width, height), layout="constrained")


def _lowest_visible(curve: CountedScores, highest: float) -> float:
    """Return half of the lowest rate on the visible part of a curve, but at least half the share of one clip."""
    far, frr = curve.false_acceptance_rate, curve.false_rejection_rate
    corner = min(far[frr <= highest].min(), frr[far <= highest].min())
    return max(corner, 1 / max(curve.n_bonafide, curve.n_spoof), 1e-6) / 2


def _corners(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the points that are visibly distinct. A curve with a million points needs only a few thousand."""
    pixels = np.stack([np.round(x / _GRID), np.round(y / _GRID)])
    moved = (pixels[:, 1:] != pixels[:, :-1]).any(axis=0)
    return np.flatnonzero(np.append(moved, True) | np.append(True, moved))
