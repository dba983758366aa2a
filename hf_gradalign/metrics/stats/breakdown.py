"""Metrics by the values of a column, such as the attack, codec, speaker, language or spoofing system."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_gradalign.metrics.functional.checks import check_scores
from hf_gradalign.metrics.functional.eer import official_equal_error
from hf_gradalign.metrics.functional.ranked_scores import RankedScores
from hf_gradalign.metrics.registry import MetricLike, named_metrics
from hf_gradalign.metrics.stats.bootstrap import SampleValues, is_missing

Against = Literal["all_bonafide", "within", "one_class"]

UNNAMED = "unknown"


@dataclass(frozen=True)
class Group:
    """The clips of one value of the column.

    Attributes:
        value: The value's name.
        n_bonafide: The number of bona fide clips in the comparison.
        n_spoof: The number of spoofed clips in the comparison.
        metrics: Values by name; NaN if one of the classes is missing.
    """

    value: str
    n_bonafide: int
    n_spoof: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class Breakdown:
    """Metrics by the values of a column.

    Attributes:
        against: "all_bonafide" if the spoofed clips of each value were compared with all bona fide clips, "within" if
            they were compared with the bona fide clips of the same value, "one_class" if there is only one class.
        groups: One group per value, in natural order of the names (A2 before A10).
    """

    against: Against
    groups: list[Group]

    @property
    def means(self) -> dict[str, float]:
        """The macro averages: means over the values in which a metric is defined, each counted once; NaN if none."""
        names = self.groups[0].metrics if self.groups else {}
        values = {name: np.array([group.metrics[name] for group in self.groups]) for name in names}
        defined = {name: own[~np.isnan(own)] for name, own in values.items()}
        return {name: float(own.mean()) if len(own) else float("nan") for name, own in defined.items()}


def break_down(
    metrics: MetricLike | Sequence[MetricLike],
    scores: ArrayLike,
    labels: ArrayLike,
    values: Sequence[Any] | NDArray,
    *,
    against: Against | None = None,
) -> Breakdown:
    """Compute metrics for each value of a column.

    A column such as the attack describes only spoofed clips, so each attack's clips are compared with all bona fide
    clips. A column such as the codec describes both classes, so each codec's clips are compared with each other. By
    default, the comparison is chosen by the column: it describes only spoofed clips if bona fide clips have no value
    (None, NaN, empty or "-"), or all have the same value, which no spoofed clip has ("bonafide"). Clips without a value
    form the group "unknown".

    Args:
        metrics: As for `bootstrap_intervals`.
        scores: One number per clip, higher for bona fide, shape (clips,).
        labels: One label per clip, 1 bona fide and 0 spoof, shape (clips,).
        values: The column, length `clips`.
        against: "all_bonafide" or "within" to choose the comparison; default: chosen by the column.

    Returns:
        The groups, including those with only one class, whose metrics are NaN.

    Raises:
        ValueError: If the numbers of values and clips differ, or `against` is unknown; as for `equal_error_rate`.
    """
    scores, is_bonafide = check_scores(scores, labels)
    if len(values) != len(scores):
        raise ValueError(f"There are {len(scores)} scores but {len(values)} values. Pass one value per clip.")
    if against not in (None, "all_bonafide", "within"):
        raise ValueError(f"against must be all_bonafide or within, not {against!r}.")
    names = _group_names(values)
    against = against or ("all_bonafide" if _describes_only_spoofs(names, is_bonafide) else "within")
    compared = np.flatnonzero(~is_bonafide) if against == "all_bonafide" else np.arange(len(scores))
    always = np.flatnonzero(is_bonafide) if against == "all_bonafide" else np.empty(0, dtype=np.intp)
    groups = []
    for name, own in clips_by_value(names[compared]).items():
        clips = np.concatenate([always, compared[own]])
        groups.append(_group(name, metrics, scores[clips], is_bonafide[clips]))
    return Breakdown(against, groups)


def clips_by_value(values: Sequence[Any] | NDArray) -> dict[str, NDArray[np.intp]]:
    """Return the indices of the clips with each value, ascending, with values in natural order (A2 before A10)."""
    distinct, group_of = np.unique(_group_names(values), return_inverse=True)
    # Sort clips by group, so that each group is a slice.
    ordered = np.argsort(group_of, kind="stable")
    edges = np.searchsorted(group_of[ordered], np.arange(len(distinct) + 1))
    numbers = sorted(range(len(distinct)), key=lambda number: _natural_order(str(distinct[number])))
    return {str(distinct[number]): ordered[edges[number] : edges[number + 1]] for number in numbers}


def _group_names(values: Sequence[Any] | NDArray) -> NDArray[np.str_]:
    return np.array([UNNAMED if is_missing(value) else str(value) for value in values], dtype=str)


def _group(
    name: str, metrics: MetricLike | Sequence[MetricLike], scores: NDArray[np.float64], is_bonafide: NDArray[np.bool_]
) -> Group:
    n_bonafide = int(np.count_nonzero(is_bonafide))
    n_spoof = len(scores) - n_bonafide
    if n_bonafide and n_spoof:
        measured = SampleValues(metrics, scores, is_bonafide.astype(int))
        numbers = dict(zip(measured.names, measured().tolist(), strict=True))
    else:
        numbers = dict.fromkeys(named_metrics(metrics), float("nan"))
    return Group(name, n_bonafide, n_spoof, numbers)


def _describes_only_spoofs(names: NDArray[np.str_], is_bonafide: NDArray[np.bool_]) -> bool:
    of_bonafide, of_spoof = set(names[is_bonafide].tolist()), set(names[~is_bonafide].tolist())
    return of_bonafide == {UNNAMED} != of_spoof or (len(of_bonafide) == 1 and not of_bonafide & of_spoof)


def _natural_order(name: str) -> list[tuple[bool, int, str]]:
    """Return a sort key that puts A2 before A10."""
    parts = re.split(r"(\d+)", name)
    return [(False, int(part), "") if part.isdigit() else (True, 0, part) for part in parts if part]


def equal_error_rate_by_system(scores: ArrayLike, labels: ArrayLike, systems: Sequence[Any]) -> dict[str, float]:
    """Compute the equal error rate of each spoofing system's clips against all bona fide clips.

    For other metrics and columns, use `break_down`.

    Args:
        scores: One number per clip, higher for bona fide, shape (clips,).
        labels: One label per clip, 1 bona fide and 0 spoof, shape (clips,).
        systems: The spoofing system of each clip, length `clips`. Systems of bona fide clips are ignored. Spoofed clips
            without a name (None or empty) form the system "unknown".

    Returns:
        Fractions in [0, 1] by system, sorted by name.

    Raises:
        ValueError: If the numbers of systems and clips differ; as for `equal_error_rate`.
    """
    scores, is_bonafide = check_scores(scores, labels)
    if len(systems) != len(scores):
        raise ValueError(f"There are {len(scores)} scores but {len(systems)} systems. Pass one system per clip.")
    names = np.array([UNNAMED if name is None or name == "" else str(name) for name in systems], dtype=object)
    rates = {}
    for name in sorted(set(names[~is_bonafide])):
        chosen = is_bonafide | (names == name)
        rates[name] = official_equal_error(RankedScores(scores[chosen], is_bonafide[chosen]).counted()).rate
    return rates
