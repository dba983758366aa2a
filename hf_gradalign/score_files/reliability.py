"""Reliability diagram: whether clips that get a probability of 80 % are bona fide in 80 % of the cases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from hf_gradalign.score_files.report import new_figure, styled
from hf_gradalign.utils.figure_style import COLORS, GRAY
from hf_gradalign.utils.plain_text import one_line

N_BINS = 10


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


def reliability(ratios: NDArray[np.float64], labels: NDArray[np.int64], n_bins: int = N_BINS) -> Reliability:
    """Compare the probabilities that log-likelihood ratios imply with the shares of bona fide clips.

    Both classes count alike, whatever their number of clips, so the prior is 0.5.

    Args:
        ratios: Log-likelihood ratios, shape (clips,).
        labels: 1 bona fide and 0 spoof, of both classes, shape (clips,).
        n_bins: The most bins. Each has the same weight of clips; clips with equal ratios share one.
    """
    weights = np.where(labels == 1, 0.5 / np.count_nonzero(labels == 1), 0.5 / np.count_nonzero(labels == 0))
    group_of = np.unique(ratios, return_inverse=True)[1]
    below = np.cumsum(np.bincount(group_of, weights)) - np.bincount(group_of, weights)
    # The rounding keeps sums that should be on an edge from falling below it.
    bins = np.unique(np.floor(np.round(below * n_bins, 9)), return_inverse=True)[1][group_of]
    total = np.bincount(bins, weights)
    return Reliability(
        np.bincount(bins, weights * expit(ratios)) / total,
        np.bincount(bins, weights * (labels == 1)) / total,
        np.bincount(bins),
    )


@styled
def draw_reliability(systems: Mapping[str, NDArray[np.float64]], labels: NDArray[np.int64]) -> Any:
    """Draw the share of bona fide clips over their probability, and the distribution of probabilities below.

    Args:
        systems: Log-likelihood ratios by what they are, such as before and after calibration, shape (clips,) each.
        labels: 1 bona fide and 0 spoof, of both classes, shape (clips,).

    Returns:
        A matplotlib `Figure`.
    """
    figure = new_figure(4.5, 5.5)
    axis, below = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    axis.plot([0, 1], [0, 1], color=GRAY, linewidth=0.8, linestyle=":", label="perfect")
    for color, (name, ratios) in zip(COLORS, systems.items(), strict=False):
        points = reliability(ratios, labels)
        axis.plot(points.predicted, points.observed, "o-", color=color, markersize=4, label=one_line(name))
        below.hist(expit(ratios), np.linspace(0, 1, 2 * N_BINS + 1), histtype="step", color=color)
    axis.set_ylabel("share of bona fide clips")
    axis.set_aspect("equal")
    axis.set_xlim(-0.02, 1.02)
    axis.set_ylim(-0.02, 1.02)
    axis.grid(color="#dddddd", linewidth=0.5)
    axis.legend(loc="upper left")
    below.set_ylabel("clips")
    below.set_xlabel("probability of bona fide (prior 0.5)")
    return figure
