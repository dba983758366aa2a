"""Evaluations as Markdown tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from hf_gradalign.metrics import Breakdown, Comparison, Interval, Metric
from hf_gradalign.score_files.evaluation import UTTERANCE, Evaluation
from hf_gradalign.utils.plain_text import plain_text

_IN_CELLS = str.maketrans({"|": "\\|", "\n": " ", "\t": " "})
_AGAINST = {
    "all_bonafide": "each one's spoofed clips against all bona fide clips",
    "within": "each one's clips with one another",
}


def overall_table(evaluation: Evaluation) -> str:
    """Every metric, with its interval if there is one; percentages where the title says so."""
    has_intervals = any(row.interval is not None for row in evaluation.rows.values())
    header = ["metric", "value"]
    if has_intervals:
        header.append(f"{100 * evaluation.settings.confidence:g} % interval")
    rows = []
    for row in evaluation.rows.values():
        cells = [_title(row.title, row.is_percentage), _shown(row.value, row.is_percentage)]
        rows.append([*cells, _range(row.interval, row.is_percentage)] if has_intervals else cells)
    return _markdown(header, rows)


def described(evaluation: Evaluation) -> str:
    """How many clips there are, and how intervals came about."""
    text = f"{plain_text(evaluation.source)}: {evaluation.n_bonafide} bona fide and {evaluation.n_spoof} spoofed clips."
    settings = evaluation.settings
    if settings.n_draws and any(row.interval is not None for row in evaluation.rows.values()):
        of = "clips, class by class" if settings.over == UTTERANCE else f"the values of {settings.over}"
        text += f" Intervals: bootstrap of {of}, {settings.n_draws} draws, seed {settings.seed}."
    if evaluation.eer_threshold is not None:
        text += f" Threshold of the EER: {evaluation.eer_threshold:.6g}."
    return text


def breakdown_table(column: str, breakdown: Breakdown, metrics: Mapping[str, Metric]) -> str:
    """Metrics by the values of a column; `n/a` where a class is missing."""
    names = list(breakdown.groups[0].metrics)
    header = [column, "bona fide", "spoof", *(_title(metrics[n].title, metrics[n].is_percentage) for n in names)]
    rows = [
        [
            group.value,
            str(group.n_bonafide),
            str(group.n_spoof),
            *(_shown(group.metrics[name], metrics[name].is_percentage) for name in names),
        ]
        for group in breakdown.groups
    ]
    return f"By {plain_text(column)}, {_AGAINST[breakdown.against]}:\n\n{_markdown(header, rows)}"


def comparison_table(comparisons: Mapping[str, Comparison], metrics: Mapping[str, Metric]) -> str:
    """Both systems' values, their difference with its interval, and the p-value."""
    confidence = next(iter(comparisons.values())).confidence
    header = ["metric", "first", "second", "first minus second", f"{100 * confidence:g} % interval", "p"]
    rows = []
    for name, found in comparisons.items():
        is_percentage = metrics[name].is_percentage
        values = (_shown(value, is_percentage) for value in (found.first, found.second, found.difference))
        interval = f"{_shown(found.low, is_percentage)} to {_shown(found.high, is_percentage)}"
        rows.append([_title(metrics[name].title, is_percentage), *values, interval, f"{found.p_value:.3g}"])
    return _markdown(header, rows)


def _title(title: str, is_percentage: bool) -> str:
    return f"{title} (%)" if is_percentage else title


def _shown(value: float, is_percentage: bool) -> str:
    if np.isnan(value):
        return "n/a"
    return f"{100 * value:.3f}" if is_percentage else f"{value:.5f}"


def _range(interval: Interval | None, is_percentage: bool) -> str:
    return (
        "" if interval is None else f"{_shown(interval.low, is_percentage)} to {_shown(interval.high, is_percentage)}"
    )


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    # Markdown wants a hyphen beside the colon of the rule.
    header, *rows = [[plain_text(cell).translate(_IN_CELLS) for cell in line] for line in (header, *rows)]
    widths = [max(2, *map(len, column)) for column in zip(header, *rows, strict=True)]
    # The first column is of names, the others of numbers.
    rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [
        [cell.ljust(widths[0]) if place == 0 else cell.rjust(widths[place]) for place, cell in enumerate(line)]
        for line in (header, *rows)
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], rule, *lines[1:]))
