"""A run epoch by epoch: what evaluation found, and how the views' gradients went together."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_gradalign.training.conflicts.record import epoch_number, find_conflict_record, read_conflict_rows, views_of

COSINE_EDGES = np.arange(-20, 21) / 20
"""Of the histogram of cosines."""
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def epoch_rows(log_history: Sequence[Mapping[str, Any]], folder: str | Path) -> list[dict[str, Any]]:
    """A row an epoch of a run.

    Args:
        log_history: The Trainer's.
        folder: The run's, with its conflict record, if it wrote one.

    Returns:
        Rows with `epoch` (from 1), `eval_loss`, `eval_eer` and, of the epoch's updates: `n_updates`, `loss_<view>`
        and `grad_norm_<view>` (means) of the first two views under the names `loss_first`, `loss_second`, ...; with two
        views or more `conflict_rate` (any two of them) and, of the first two, `cosine_mean`, `cosine_quantiles` (5, 25,
        50, 75, 95 %), `cosine_counts` (a histogram over `COSINE_EDGES`), `norm_ratio` (median of second over first),
        `second_loss_larger` and `second_norm_larger` (shares of updates); with recorded modules `module`,
        `module_conflict_rate` and `module_norm_share` (each one's mean share of the first view's squared norm).
    """
    evaluations: dict[int, dict[str, Any]] = {}
    for entry in log_history:
        if "eval_loss" in entry:
            epoch = epoch_number(entry["epoch"])
            evaluations[epoch] = {name: entry.get(name) for name in ("eval_loss", "eval_eer")}
    record = find_conflict_record(folder)
    updates: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in read_conflict_rows(record) if record is not None else ():
        updates[epoch_number(row["epoch"])].append(row)
    none = {"eval_loss": None, "eval_eer": None}
    return [
        {"epoch": epoch, **evaluations.get(epoch, none), **_summary(updates.get(epoch, []))}
        for epoch in sorted(evaluations.keys() | updates.keys())
    ]


def _summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    summary: dict[str, Any] = {"n_updates": len(rows)}
    if not rows:
        return summary
    views = views_of(rows[0])
    losses = [_column(rows, f"loss_{view}") for view in views]
    norms = [_column(rows, f"grad_norm_{view}") for view in views]
    for place, loss, norm in zip(("first", "second"), losses, norms, strict=False):  # of more views these two
        summary |= {f"loss_{place}": _mean(loss), f"grad_norm_{place}": _mean(norm)}
    if len(views) < 2:
        return summary
    conflicts = np.array([row.get("conflict") for row in rows], dtype=float)
    summary["conflict_rate"] = _mean(conflicts)
    cosines = _column(rows, f"cosine_{views[0]}_{views[1]}")
    cosines = cosines[np.isfinite(cosines)]
    if len(cosines):
        summary |= {
            "cosine_mean": float(cosines.mean()),
            "cosine_quantiles": np.quantile(cosines, _QUANTILES).tolist(),
            "cosine_counts": np.histogram(np.clip(cosines, -1, 1), COSINE_EDGES)[0].tolist(),
        }
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = norms[1] / norms[0]
    ratios = ratios[np.isfinite(ratios)]
    summary |= {
        "norm_ratio": float(np.median(ratios)) if len(ratios) else None,
        "second_loss_larger": _mean((losses[1] > losses[0]).astype(float)),
        "second_norm_larger": _mean((norms[1] > norms[0]).astype(float)),
    }
    return summary | _modules(rows, views)


def _modules(rows: Iterable[Mapping[str, Any]], views: Sequence[str]) -> dict[str, Any]:
    cosines: dict[str, list[float]] = {}
    shares: dict[str, list[float]] = {}
    for row in rows:
        names = row.get("module")
        if not names:
            continue
        squares = np.array(row[f"module_grad_norm_{views[0]}"], dtype=float) ** 2
        total = np.nansum(squares)
        for name, cosine, square in zip(names, row[f"module_cosine_{views[0]}_{views[1]}"], squares, strict=True):
            cosines.setdefault(name, []).append(np.nan if cosine is None else cosine)
            shares.setdefault(name, []).append(square / total if total > 0 else np.nan)
    if not cosines:
        return {}
    return {
        "module": list(cosines),
        "module_conflict_rate": [_mean(_conflicts(np.array(values))) for values in cosines.values()],
        "module_norm_share": [_mean(np.array(values)) for values in shares.values()],
    }


def _conflicts(cosines: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.isfinite(cosines), (cosines < 0).astype(float), np.nan)


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> NDArray[np.float64]:
    return np.array([row.get(name) for row in rows], dtype=float)


def _mean(values: NDArray[np.float64]) -> float | None:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else None


__all__ = ["COSINE_EDGES", "epoch_rows"]
