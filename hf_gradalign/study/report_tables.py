"""The tables of a study's report, as rows of plain values."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_gradalign.metrics import equal_error_rate_by_system
from hf_gradalign.study.comparison import Group, PairedBootstrap, StudyResults, baseline_of, signed_rank_p
from hf_gradalign.study.report_settings import ReportSettings
from hf_gradalign.study.tables import TableRow


@dataclass
class ReportTables:
    """All tables of a report, each a list of rows. Rates are fractions.

    Attributes:
        eer: One row per group and evaluation set, with the difference from the baseline.
        by_system: One row per group, evaluation set and spoofing system.
        training: One row per group: best epoch, conflicts, norms and losses of the views, time and memory.
        epochs: One row per group and epoch.
        modules: One row per group and module.
    """

    eer: list[TableRow] = field(default_factory=list)
    by_system: list[TableRow] = field(default_factory=list)
    training: list[TableRow] = field(default_factory=list)
    epochs: list[TableRow] = field(default_factory=list)
    modules: list[TableRow] = field(default_factory=list)


def make_tables(results: StudyResults, settings: ReportSettings) -> ReportTables:
    """Compute all tables.

    Args:
        results: The study's results.
        settings: The settings of the report.

    Raises:
        ValueError: If the bootstrap is impossible with these settings.
    """
    tables = ReportTables()
    entries = [
        _Entry(condition.title, group, baseline_of(group, groups, settings.baseline))
        for condition, groups in results.groups.items()
        for group in groups
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
        for entry in entries:
            rates = entry.group.values(name)
            if not rates:
                continue
            row = entry.identity | {"evaluation_set": name, "n_seeds": len(rates)} | _spread("eer", rates.values())
            row["eer_percent_by_seed"] = " ".join(f"{100 * rate:.2f}" for rate in rates.values())
            tables.eer.append(row | _difference(entry, bootstrap, name))
            tables.by_system += [
                entry.identity | {"evaluation_set": name} | row
                for row in _by_system(entry.group, name, clips.labels, systems)
            ]
    for entry in entries:
        tables.training.append(entry.identity | _training(entry))
        tables.epochs += [entry.identity | row for row in _epochs(entry.group)]
        tables.modules += [entry.identity | row for row in _modules(entry.group)]
    return tables


@dataclass(frozen=True)
class _Entry:
    """A group under a condition. Groups without augmentation have an entry under several conditions."""

    condition: str
    group: Group
    baseline: Group | None

    @property
    def identity(self) -> TableRow:
        group = self.group
        return {"condition": self.condition, "method": group.title, "epochs": group.epochs, "passes": group.passes}


def best_epoch(history: Sequence[TableRow]) -> int | None:
    """Return the first epoch with the lowest validation loss, or None if nothing was evaluated."""
    evaluated = [row for row in history if row["eval_loss"] is not None]
    return min(evaluated, key=lambda row: row["eval_loss"])["epoch"] if evaluated else None


def _spread(name: str, values: Iterable[float | None]) -> TableRow:
    numbers = np.array([value for value in values if value is not None], dtype=float)
    if not len(numbers):
        return {f"{name}_mean": None, f"{name}_sd": None}
    return {
        f"{name}_mean": float(numbers.mean()),
        f"{name}_sd": float(numbers.std(ddof=1)) if len(numbers) > 1 else None,
    }


def _difference(entry: _Entry, bootstrap: PairedBootstrap, evaluation_set: str) -> TableRow:
    names = ("difference", "low", "high", "p_value", "n_paired", "verdict", "against")
    group, baseline = entry.group, entry.baseline
    difference = None if baseline is None else bootstrap.compare(group, baseline, evaluation_set)
    if difference is None or baseline is None:
        return dict.fromkeys(names)
    against = baseline.title + ("" if baseline.epochs == group.epochs else f", {baseline.epochs:g} epochs")
    values = (
        difference.mean,
        difference.low,
        difference.high,
        difference.p_value,
        difference.n_seeds,
        difference.verdict,
        against,
    )
    return dict(zip(names, values, strict=True))


def _by_system(group: Group, evaluation_set: str, labels: NDArray[np.int64], systems: Sequence[Any]) -> list[TableRow]:
    rates: dict[str, list[float]] = {}
    for seed in group.values(evaluation_set):
        scores = np.array(group.results[seed][evaluation_set]["scores"], dtype=float)
        is_scored = np.isfinite(scores)
        scored_systems = [system for system, keep in zip(systems, is_scored, strict=True) if keep]
        for system, rate in equal_error_rate_by_system(scores[is_scored], labels[is_scored], scored_systems).items():
            rates.setdefault(system, []).append(rate)
    return [{"system": system} | _spread("eer", values) for system, values in sorted(rates.items())]


def _best_epochs(group: Group) -> dict[int, int]:
    epochs = {seed: best_epoch(history) for seed, history in group.history.items()}
    return {seed: epoch for seed, epoch in epochs.items() if epoch is not None}


def _training(entry: _Entry) -> TableRow:
    group, baseline = entry.group, entry.baseline
    best = _best_epochs(group)
    row = _spread("best_epoch", best.values()) | {"best_epoch_difference": None, "best_epoch_p_value": None}
    if baseline is not None:
        theirs = _best_epochs(baseline)
        differences = np.array([best[seed] - theirs[seed] for seed in best if seed in theirs], dtype=float)
        if len(differences):
            row |= {"best_epoch_difference": differences.mean(), "best_epoch_p_value": signed_rank_p(differences)}
    row |= _spread("conflict_rate", group.run_values("conflict_rate").values())
    epochs = [epoch for history in group.history.values() for epoch in history]
    row["norm_ratio"] = _geometric_mean([epoch["norm_ratio"] for epoch in epochs])
    for name in ("second_loss_larger", "second_norm_larger"):
        row[name] = _mean([epoch[name] for epoch in epochs])
    seconds = _median_seconds(group)
    row |= {"seconds_per_update": seconds, "time_ratio": None}
    if baseline is not None and seconds is not None:
        baseline_seconds = _median_seconds(baseline)
        row["time_ratio"] = seconds / baseline_seconds if baseline_seconds is not None else None
    row["peak_memory_mib"] = max(group.run_values("peak_memory_mib").values(), default=None)
    return row


def _median_seconds(group: Group) -> float | None:
    seconds = list(group.run_values("seconds_per_update").values())
    return statistics.median(seconds) if seconds else None


def _epochs(group: Group) -> list[TableRow]:
    table = []
    numbers = sorted({row["epoch"] for history in group.history.values() for row in history})
    for epoch in numbers:
        rows = [row for history in group.history.values() for row in history if row["epoch"] == epoch]
        summary: TableRow = {"epoch": epoch, "n_seeds": len(rows)}
        for name in ("eval_loss", "eval_eer", "conflict_rate", "second_loss_larger"):
            summary |= _spread(name, [row[name] for row in rows])
        summary["norm_ratio"] = _geometric_mean([row["norm_ratio"] for row in rows])
        for name in ("cosine_mean", "loss_first", "loss_second", "grad_norm_first", "grad_norm_second"):
            summary[name] = _mean([row[name] for row in rows])
        quantiles = [row["cosine_quantiles"] for row in rows if row["cosine_quantiles"]]
        for index, percent in enumerate((5, 25, 50, 75, 95)):
            summary[f"cosine_{percent}"] = _mean([values[index] for values in quantiles])
        table.append(summary)
    return table


def _modules(group: Group) -> list[TableRow]:
    rates: dict[str, list[float | None]] = {}
    shares: dict[str, list[float | None]] = {}
    for history in group.history.values():
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


def _geometric_mean(values: Iterable[float | None]) -> float | None:
    """Return the geometric mean of ratios, in which a ratio and its inverse cancel out."""
    numbers = [value for value in values if value is not None and value > 0]
    return float(np.exp(np.mean(np.log(numbers)))) if numbers else None


def _mean(values: Iterable[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return float(np.mean(numbers)) if numbers else None
