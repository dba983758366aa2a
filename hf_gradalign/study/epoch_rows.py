"""Summarizes a run by epoch: the evaluation results, and how well the views' gradients agreed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_gradalign.training.conflicts.record import (
    ConflictHistory,
    epoch_number,
    find_conflict_record,
    read_conflict_rows,
)

COSINE_EDGES = np.arange(-20, 21) / 20
"""The edges of the histogram of cosines."""
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def epoch_rows(log_history: Sequence[Mapping[str, Any]], folder: str | Path) -> list[dict[str, Any]]:
    """Return one row per epoch of a run.

    Args:
        log_history: The log of the Trainer's state.
        folder: The run's folder, with its conflict record if it wrote one.

    Returns:
        Rows with `epoch` (from 1), `eval_loss`, `eval_eer` and, for the updates of the epoch: `n_updates`, and of the
        first two views, named `first` and `second`, `loss_first`, `grad_norm_first`, ... (means). With two views or
        more: `conflict_rate` (any two views) and, for the first two, `cosine_mean`, `cosine_quantiles` (5, 25, 50, 75,
        95 %), `cosine_counts` (a histogram over `COSINE_EDGES`), `norm_ratio` (median of second over first),
        `second_loss_larger` and `second_norm_larger` (shares of updates). With recorded modules: `module`,
        `module_conflict_rate` and `module_norm_share` (mean share of the first view's squared norm).
    """
    evaluations: dict[int, dict[str, Any]] = {}
    for entry in log_history:
        if "eval_loss" in entry:
            epoch = epoch_number(entry["epoch"])
            evaluations[epoch] = {name: entry.get(name) for name in ("eval_loss", "eval_eer")}
    record = find_conflict_record(folder)
    history = ConflictHistory(read_conflict_rows(record) if record is not None else ())
    none = {"eval_loss": None, "eval_eer": None}
    return [
        {"epoch": epoch, **evaluations.get(epoch, none), **_summary(history, history.epochs == epoch)}
        for epoch in sorted(evaluations.keys() | set(history.epochs.tolist()))
    ]


def _summary(history: ConflictHistory, chosen: NDArray[np.bool_]) -> dict[str, Any]:
    summary: dict[str, Any] = {"n_updates": int(np.count_nonzero(chosen))}
    if not summary["n_updates"]:
        return summary
    views = history.views[:2]
    losses = [history.losses[view][chosen] for view in views]
    norms = [history.norms[view][chosen] for view in views]
    for name, loss, norm in zip(("first", "second"), losses, norms, strict=False):
        summary |= {f"loss_{name}": _mean(loss), f"grad_norm_{name}": _mean(norm)}
    if len(views) < 2:
        return summary
    pair = history.pairs[0]
    summary["conflict_rate"] = _mean(history.conflicts[chosen])
    cosines = history.cosines[pair][chosen]
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
    cosines, norms = history.module_cosines[pair][chosen], history.module_norms[views[0]][chosen]
    return summary | _modules(history.modules, cosines, norms)


def _modules(names: Sequence[str], cosines: NDArray[np.float64], norms: NDArray[np.float64]) -> dict[str, Any]:
    squares = norms**2
    with np.errstate(invalid="ignore"):
        shares = squares / np.nansum(squares, axis=1, keepdims=True)
    conflicts = np.where(np.isfinite(cosines), (cosines < 0).astype(float), np.nan)
    recorded = [
        index for index in range(len(names)) if (np.isfinite(cosines[:, index]) | np.isfinite(norms[:, index])).any()
    ]
    if not recorded:
        return {}
    return {
        "module": [names[index] for index in recorded],
        "module_conflict_rate": [_mean(conflicts[:, index]) for index in recorded],
        "module_norm_share": [_mean(shares[:, index]) for index in recorded],
    }


def _mean(values: NDArray[np.float64]) -> float | None:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else None
