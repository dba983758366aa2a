"""Figures of scores (matplotlib, the extra `plots`): error curves, histograms, bars by group."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from hf_gradalign.metrics import Breakdown, CountedScores, RankedScores
from hf_gradalign.metrics.functional.eer import official_equal_error
from hf_gradalign.utils.figure_style import BLUE, COLORS, GRAY, STYLE, VERMILION, import_matplotlib
from hf_gradalign.utils.plain_text import one_line

_TICKS = (0.0001, 0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.99)
_HIGHEST = 0.6
_GRID = 0.002  # of the error curve, in standard deviations: finer than a pixel
_BINS = 80
_MOST_BARS = 60


def _styled(draw: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(draw)
    def styled(*arguments: Any, **options: Any) -> Any:
        with import_matplotlib().rc_context(STYLE):
            return draw(*arguments, **options)

    return styled


@_styled
def draw_det(systems: Mapping[str, tuple[NDArray, NDArray]]) -> Any:
    """The detection error trade-off: miss against false acceptance, both on normal deviate axes.

    Curves of normally distributed scores are straight lines there (Martin et al., "The DET curve in assessment of
    detection task performance", Eurospeech 1997). The equal error points are marked.

    Args:
        systems: Scores and labels, 1 bona fide and 0 spoof, by the system's name.

    Returns:
        A matplotlib `Figure`.
    """
    figure = _figure(5, 5)
    axis = figure.subplots()
    curves = {name: RankedScores(scores, labels).counted() for name, (scores, labels) in systems.items()}
    rates = [official_equal_error(curve).rate for curve in curves.values()]
    highest = max(_HIGHEST, min(0.99, 1.2 * max(rates)))
    lowest = min(_lowest_shown(curve, highest) for curve in curves.values())
    for (name, curve), rate, colour in zip(curves.items(), rates, _cycle(len(curves)), strict=True):
        far, frr = (
            ndtri(np.clip(side, lowest, 1 - lowest))
            for side in (curve.false_acceptance_rate, curve.false_rejection_rate)
        )
        kept = _corners(far, frr)
        axis.plot(far[kept], frr[kept], color=colour, label=f"{one_line(name)}: EER {100 * rate:.2f} %")
        if lowest < rate < 1 - lowest:
            axis.plot(ndtri(rate), ndtri(rate), "o", color=colour, markersize=5)
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
    """The distribution of both classes' scores, each with area 1, and the equal error threshold."""
    figure = _figure(6, 3.2)
    axis = figure.subplots()
    low, high = np.quantile(scores, [0.0005, 0.9995])  # a single outlier must not squeeze all the rest
    low, high = (low, high) if low < high else (low - 0.5, high + 0.5)
    edges = np.linspace(low, high, _BINS + 1)
    for value, name, colour in ((1, "bona fide", BLUE), (0, "spoof", VERMILION)):
        own = np.clip(scores[labels == value], low, high)
        axis.hist(own, edges, density=True, histtype="stepfilled", alpha=0.5, color=colour, label=name)
    if threshold is not None and low <= threshold <= high:
        axis.axvline(threshold, color=GRAY, linestyle="--", linewidth=1, label="EER threshold")
    axis.set_xlabel("score")
    axis.set_ylabel("density")
    axis.legend()
    return figure


@_styled
def draw_bars(column: str, breakdown: Breakdown, pooled: float | None = None, metric: str = "eer") -> Any:
    """The equal error rate of each value of a column, and of all clips together."""
    groups = breakdown.groups[:_MOST_BARS]
    figure = _figure(max(4.0, 1.2 + 0.32 * len(groups)), 3.2)
    axis = figure.subplots()
    places = np.arange(len(groups))
    values = np.array([100 * group.metrics[metric] for group in groups])
    axis.bar(places, np.nan_to_num(values), color=BLUE, width=0.7)
    for place, value in zip(places, values, strict=True):
        text = "n/a" if np.isnan(value) else f"{value:.1f}"
        axis.annotate(text, (place, np.nan_to_num(value)), (0, 2), textcoords="offset points", ha="center", fontsize=6)
    if pooled is not None:
        axis.axhline(100 * pooled, color=VERMILION, linestyle="--", linewidth=1, label="all clips")
        axis.legend(loc="upper right", bbox_to_anchor=(1, 1.15))
    axis.set_xticks(places, [one_line(group.value) for group in groups], rotation=60, ha="right")
    axis.set_xlim(-0.6, len(groups) - 0.4)
    axis.margins(y=0.12)
    axis.set_ylabel("EER (%)")
    axis.set_xlabel(one_line(column))
    if len(breakdown.groups) > len(groups):
        axis.set_title(f"the first {len(groups)} of {len(breakdown.groups)}")
    return figure


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure  # not pyplot: no window, no state

    return Figure(figsize=(width, height), layout="constrained")


def _lowest_shown(curve: CountedScores, highest: float) -> float:
    """Half of the lowest rate that a curve has while its other rate is shown, or of what one clip makes."""
    far, frr = curve.false_acceptance_rate, curve.false_rejection_rate
    corner = min(far[frr <= highest].min(), frr[far <= highest].min())
    return max(corner, 1 / max(curve.n_bonafide, curve.n_spoof), 1e-6) / 2


def _cycle(n: int) -> list[str]:
    return [COLORS[place % 6] for place in range(n)]


def _corners(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.intp]:
    """The points that can be told apart: a curve of a million points is drawn from some thousand."""
    cells = np.stack([np.round(x / _GRID), np.round(y / _GRID)])
    moved = (cells[:, 1:] != cells[:, :-1]).any(axis=0)
    return np.flatnonzero(np.append(moved, True) | np.append(True, moved))
