"""Metrics by the values of a column: attack, codec, speaker, language, spoofing system."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_gradalign.metrics.functional.checks import checked
from hf_gradalign.metrics.functional.eer import official_equal_error
from hf_gradalign.metrics.functional.ranked_scores import RankedScores
from hf_gradalign.metrics.registry import MetricLike, named_metrics
from hf_gradalign.metrics.stats.bootstrap import SampleValues

Against = Literal["all_bonafide", "within"]

UNNAMED = "unknown"
_NO_NAME = ("", "-")


@dataclass(frozen=True)
class Group:
    """The clips of one value of the column.

    Attributes:
        value: The value's name.
        n_bonafide: Bona fide clips that were compared.
        n_spoof: Spoofed ones.
        metrics: Values by name; NaN where one of the classes is missing.
    """

    value: str
    n_bonafide: int
    n_spoof: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class Breakdown:
    """Metrics by the values of a column.

    Attributes:
        against: "all_bonafide" if each value's spoofed clips were compared with all bona fide ones, "within" if each
            value's clips with one another.
        groups: In the order of their names, with numbers in them in their own.
    """

    against: Against
    groups: list[Group]


def break_down(
    metrics: MetricLike | Sequence[MetricLike],
    scores: ArrayLike,
    labels: ArrayLike,
    values: Sequence[Any] | NDArray,
    *,
    against: Against | None = None,
) -> Breakdown:
    """Metrics of the clips of each value of a column.

    A column such as the attack is of spoofed clips only: each attack's clips are then compared with all bona fide ones.
    A column such as the codec is of both classes, and each codec's clips are compared with one another. Which it is
    shows in the column: it is of spoofed clips only where bona fide clips have no value (None, NaN, empty or "-"), or
    all the same one, which no spoofed clip has ("bonafide"). Clips without a value are together as "unknown".

    Args:
        metrics: As `bootstrap_intervals` takes them.
        scores: One number a clip, higher for bona fide, shape (clips,).
        labels: One label a clip, 1 bona fide and 0 spoof, shape (clips,).
        values: The column, `clips` values.
        against: "all_bonafide" or "within" to say how it is to be done.

    Returns:
        The groups. Those with one class only are among them, with NaN.

    Raises:
        ValueError: If there is not one value a clip, `against` is something else, or as `equal_error_rate`.
    """
    scores, is_bonafide = checked(scores, labels)
    if len(values) != len(scores):
        raise ValueError(f"There are {len(scores)} scores but {len(values)} values: give one of each a clip.")
    if against not in (None, "all_bonafide", "within"):
        raise ValueError(f"against must be all_bonafide or within, not {against!r}.")
    names = np.array([UNNAMED if _is_missing(value) else str(value) for value in values], dtype=str)
    found, group_of = np.unique(names, return_inverse=True)
    against = against or ("all_bonafide" if _is_of_spoofs(names, is_bonafide) else "within")
    compared = ~is_bonafide if against == "all_bonafide" else np.ones(len(scores), dtype=bool)
    # Clips of a group lie together, so that no group looks through all the others' clips.
    ordered = np.flatnonzero(compared)[np.argsort(group_of[compared], kind="stable")]
    edges = np.searchsorted(group_of[ordered], np.arange(len(found) + 1))
    always = np.flatnonzero(is_bonafide) if against == "all_bonafide" else np.empty(0, dtype=np.intp)
    groups = []
    for number in sorted(range(len(found)), key=lambda number: _natural_order(str(found[number]))):
        own = ordered[edges[number] : edges[number + 1]]
        if len(own):
            clips = np.concatenate([always, own])
            groups.append(_group(str(found[number]), metrics, scores[clips], is_bonafide[clips]))
    return Breakdown(against, groups)


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


def _is_of_spoofs(names: NDArray[np.str_], is_bonafide: NDArray[np.bool_]) -> bool:
    of_bonafide, of_spoof = set(names[is_bonafide].tolist()), set(names[~is_bonafide].tolist())
    return of_bonafide == {UNNAMED} != of_spoof or (len(of_bonafide) == 1 and not of_bonafide & of_spoof)


def _natural_order(name: str) -> list[tuple[bool, int, str]]:
    """Sorts A2 before A10."""
    parts = re.split(r"(\d+)", name)
    return [(False, int(part), "") if part.isdigit() else (True, 0, part) for part in parts if part]


def _is_missing(value: Any) -> bool:
    return value is None or value != value or str(value).strip() in _NO_NAME


_UNNAMED = "unknown"


def equal_error_rate_by_system(scores: ArrayLike, labels: ArrayLike, systems: Sequence[Any]) -> dict[str, float]:
    """Equal error rate of each spoofing system's clips against all bona fide clips.

    Other metrics, other columns and intervals: `break_down`.

    Args:
        scores: One number a clip, higher for bona fide, shape (clips,).
        labels: One label a clip, 1 bona fide and 0 spoof, shape (clips,).
        systems: The name of each clip's spoofing system, `clips` of them. That of a bona fide clip is not looked at.
            Spoofed clips without a name (None or empty) are counted together as "unknown".

    Returns:
        Fractions in [0, 1] by system, in the order of their names.

    Raises:
        ValueError: If there is not one system a clip, or as `equal_error_rate`.
    """
    scores, is_bonafide = checked(scores, labels)
    if len(systems) != len(scores):
        raise ValueError(f"There are {len(scores)} scores but {len(systems)} systems: give one of each a clip.")
    names = np.array([_UNNAMED if name is None or name == "" else str(name) for name in systems], dtype=object)
    rates = {}
    for name in sorted(set(names[~is_bonafide])):
        chosen = is_bonafide | (names == name)
        rates[name] = official_equal_error(RankedScores(scores[chosen], is_bonafide[chosen]).counted()).rate
    return rates
