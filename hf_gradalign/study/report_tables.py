"""The tables of a study's report, as rows of plain values."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_gradalign.metrics import equal_error_rate_by_system
from hf_gradalign.study.arms import Arm, StudyResults, baseline_of
from hf_gradalign.study.paired_differences import PairedBootstrap, signed_rank_p
from hf_gradalign.study.report_settings import ReportSettings

Row = dict[str, Any]


@dataclass
class ReportTables:
    """All tables, each a list of rows; rates are fractions.

    Attributes:
        eer: A row an arm and evaluation set, with the difference to the baseline.
        by_system: A row an arm, evaluation set and spoofing system.
        training: A row an arm: best epoch, conflicts, norms and losses of the views, time and memory.
        epochs: A row an arm and epoch.
        modules: A row an arm and module.
    """

    eer: list[Row] = field(default_factory=list)
    by_system: list[Row] = field(default_factory=list)
    training: list[Row] = field(default_factory=list)
    epochs: list[Row] = field(default_factory=list)
    modules: list[Row] = field(default_factory=list)


def make_tables(results: StudyResults, settings: ReportSettings) -> ReportTables:
    """Compute all tables.

    Args:
        results: The study's.
        settings: How.

    Raises:
        ValueError: If the bootstrap cannot be as the settings say.
    """
    tables = ReportTables()
    places = [
        _Place(condition.title, arm, baseline_of(arm, arms, settings.baseline))
        for condition, arms in results.arms.items()
        for arm in arms
    ]
    for name in results.evaluation_sets:
        clips = results.clips[name]
        bootstrap = PairedBootstrap(
            clips,
            n_draws=settings.n_draws,
            over=settings.over,
            confidence=settings.confidence,
            seed=settings.seed,
        )
        systems = clips.column("system")
        for place in places:
            rates = place.arm.values(name)
            if not rates:
                continue
            row = place.identity | {"evaluation_set": name, "n_seeds": len(rates)} | _spread("eer", rates.values())
            row["values"] = " ".join(f"{100 * rate:.2f}" for rate in rates.values())
            tables.eer.append(row | _difference(place, bootstrap, name))
            tables.by_system += [
                place.identity | {"evaluation_set": name} | row
                for row in _by_system(place.arm, name, clips.labels, systems)
            ]
    for place in places:
        tables.training.append(place.identity | _training(place))
        tables.epochs += [place.identity | row for row in _epochs(place.arm)]
        tables.modules += [place.identity | row for row in _modules(place.arm)]
    return tables


@dataclass(frozen=True)
class _Place:
    """An arm under a condition; arms without augmentation stand under several."""

    condition: str
    arm: Arm
    baseline: Arm | None

    @property
    def identity(self) -> Row:
        arm = self.arm
        return {"condition": self.condition, "method": arm.title, "epochs": arm.epochs, "passes": arm.passes}


def best_epoch(history: Sequence[Row]) -> int | None:
    """The epoch with the lowest validation loss, the first of equals; None where nothing was evaluated."""
    evaluated = [row for row in history if row["eval_loss"] is not None]
    return min(evaluated, key=lambda row: row["eval_loss"])["epoch"] if evaluated else None


def _spread(name: str, values: Iterable[float | None]) -> Row:
    numbers = np.array([value for value in values if value is not None], dtype=float)
    if not len(numbers):
        return {f"{name}_mean": None, f"{name}_sd": None}
    return {
        f"{name}_mean": float(numbers.mean()),
        f"{name}_sd": float(numbers.std(ddof=1)) if len(numbers) > 1 else None,
    }


def _difference(place: _Place, bootstrap: PairedBootstrap, evaluation_set: str) -> Row:
    names = ("difference", "low", "high", "p_value", "n_paired", "verdict", "against")
    found = None if place.baseline is None else bootstrap.compare(place.arm, place.baseline, evaluation_set)
    if found is None:
        return dict.fromkeys(names)
    against = place.baseline.title + (
        "" if place.baseline.epochs == place.arm.epochs else f", {place.baseline.epochs:g} epochs"
    )
    values = (found.mean, found.low, found.high, found.p_value, found.n_seeds, found.verdict, against)
    return dict(zip(names, values, strict=True))


def _by_system(arm: Arm, evaluation_set: str, labels: NDArray[np.int64], systems: Sequence[Any]) -> list[Row]:
    rates: dict[str, list[float]] = {}
    for seed in arm.values(evaluation_set):
        scores = np.array(arm.results[seed][evaluation_set]["scores"], dtype=float)
        there = np.isfinite(scores)
        kept = [system for system, is_there in zip(systems, there, strict=True) if is_there]
        for system, rate in equal_error_rate_by_system(scores[there], labels[there], kept).items():
            rates.setdefault(system, []).append(rate)
    return [{"system": system} | _spread("eer", values) for system, values in sorted(rates.items())]


def _training(place: _Place) -> Row:
    arm = place.arm
    best = {seed: best_epoch(history) for seed, history in arm.history.items()}
    row = _spread("best_epoch", best.values()) | {"best_epoch_difference": None, "best_epoch_p_value": None}
    if place.baseline is not None:
        theirs = {seed: best_epoch(history) for seed, history in place.baseline.history.items()}
        both = [seed for seed in best if best[seed] is not None and theirs.get(seed) is not None]
        if both:
            differences = np.array([best[seed] - theirs[seed] for seed in both], dtype=float)
            row |= {"best_epoch_difference": differences.mean(), "best_epoch_p_value": signed_rank_p(differences)}
    row |= _spread("conflict_rate", arm.run_values("conflict_rate").values())
    later = [r for history in arm.history.values() for r in history]
    for name in ("norm_ratio", "second_loss_larger", "second_norm_larger"):
        row[name] = _mean([r[name] for r in later])
    seconds = list(arm.run_values("seconds_per_update").values())
    own = statistics.median(seconds) if seconds else None
    row |= {"seconds_per_update": own, "time_ratio": None}
    if place.baseline is not None and own is not None:
        theirs = list(place.baseline.run_values("seconds_per_update").values())
        row["time_ratio"] = own / statistics.median(theirs) if theirs else None
    row["peak_memory_mib"] = max(arm.run_values("peak_memory_mib").values(), default=None)
    return row


def _epochs(arm: Arm) -> list[Row]:
    rows = []
    numbers = sorted({row["epoch"] for history in arm.history.values() for row in history})
    for epoch in numbers:
        there = [row for history in arm.history.values() for row in history if row["epoch"] == epoch]
        own: Row = {"epoch": epoch, "n_seeds": len(there)}
        for name in ("eval_loss", "eval_eer", "conflict_rate", "norm_ratio", "second_loss_larger"):
            own |= _spread(name, [row[name] for row in there])
        for name in ("cosine_mean", "loss_first", "loss_second", "grad_norm_first", "grad_norm_second"):
            own[name] = _mean([row[name] for row in there])
        quantiles = [row["cosine_quantiles"] for row in there if row["cosine_quantiles"]]
        for place, percent in enumerate((5, 25, 50, 75, 95)):
            own[f"cosine_{percent}"] = _mean([values[place] for values in quantiles])
        rows.append(own)
    return rows


def _modules(arm: Arm) -> list[Row]:
    rates: dict[str, list[float | None]] = {}
    shares: dict[str, list[float | None]] = {}
    for history in arm.history.values():
        for row in history:
            for name, rate, share in zip(
                row["module"] or (), row["module_conflict_rate"] or (), row["module_norm_share"] or (), strict=True
            ):
                rates.setdefault(name, []).append(rate)
                shares.setdefault(name, []).append(share)
    return [
        {"module": name, "conflict_rate": _mean(values), "norm_share": _mean(shares[name])}
        for name, values in rates.items()
    ]


def _mean(values: Iterable[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return float(np.mean(numbers)) if numbers else None


__all__ = ["ReportSettings", "ReportTables", "best_epoch", "make_tables"]
