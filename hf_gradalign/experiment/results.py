"""What a run found, as files and as a table."""

import json
import platform
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import accelerate
import datasets
import numpy
import torch
import transformers
from transformers import TrainerState
from transformers.trainer import TRAINER_STATE_NAME

import hf_gradalign
from hf_gradalign.experiment.arguments import RunArguments
from hf_gradalign.experiment.file_names import RESULTS_NAME
from hf_gradalign.utils.files import write_text_atomically


@dataclass
class RunResults:
    """A run's findings; rates are fractions in [0, 1].

    Attributes:
        metrics: `eval_eer`, `test_eer`, `eval_loss`, `train_loss`, `train_runtime` (s), ...
        eer_by_system: Split to spoofing system to EER.
        conflict_rate: Fraction of the updates in which any two views conflicted; None with one view.
        conflict_rate_by_epoch: The same by epoch, from the first.
        averaged_checkpoints: How many checkpoints the weights are the mean of; 0 where none were averaged.
        nonfinite_updates: Updates whose gradients were not finite, those that fp16's loss scaling left out included.
        skipped_updates: Updates that `--on_nonfinite skip` dropped.
        remarks: What is odd about the scores, a sentence each, which begins with the split.
        settings: The arguments that the run was given, and the defaults it took; `views` has the recipes by name.
    """

    metrics: dict[str, float]
    eer_by_system: dict[str, dict[str, float]]
    conflict_rate: float | None
    conflict_rate_by_epoch: dict[int, float]
    averaged_checkpoints: int
    nonfinite_updates: int
    settings: dict[str, Any]
    versions: dict[str, str] = field(default_factory=lambda: package_versions())
    remarks: list[str] = field(default_factory=list)
    skipped_updates: int = 0

    def write(self, folder: str | Path) -> Path:
        """Write `all_results.json` into `folder`."""
        content: dict[str, Any] = dict(self.metrics)
        for split, rates in self.eer_by_system.items():
            content[f"{split}_eer_by_system"] = rates
        content["train_conflict_rate"] = self.conflict_rate
        content["train_conflict_rate_by_epoch"] = list(self.conflict_rate_by_epoch.values())
        content["averaged_checkpoints"] = self.averaged_checkpoints
        content["train_nonfinite_updates"] = self.nonfinite_updates
        content["train_skipped_updates"] = self.skipped_updates
        if self.remarks:
            content["remarks"] = self.remarks
        content["settings"] = self.settings
        content["versions"] = self.versions
        path = Path(folder, RESULTS_NAME)
        write_text_atomically(path, json.dumps(content, indent=2) + "\n")
        return path


def describe_settings(run: RunArguments) -> dict[str, Any]:
    """The arguments of a run, ready for JSON and without tokens."""
    # to_dict masks every *_token.
    settings = {"model": asdict(run.model), "data": asdict(run.data), "training": run.training.to_dict()}
    return settings | {"views": run.data.view_recipes}


def read_train_metrics(folder: str | Path) -> dict[str, float]:
    """What an earlier start of the run found of its training; empty where it did not get to write it."""
    path = Path(folder, RESULTS_NAME)
    if not path.is_file():
        return {}
    results = json.loads(path.read_text(encoding="utf-8"))
    names = ("epoch", "total_flos", "train_loss", "train_runtime", "train_samples_per_second", "train_steps_per_second")
    return {name: results[name] for name in names if name in results}


def without_timing(metrics: dict[str, float]) -> dict[str, float]:
    """Metrics without those that say how long something took."""
    timing = ("_runtime", "_samples_per_second", "_steps_per_second")
    return {name: value for name, value in metrics.items() if not name.endswith(timing)}


def steps_of(checkpoint: str) -> int:
    """The number of updates behind a checkpoint."""
    return TrainerState.load_from_json(str(Path(checkpoint, TRAINER_STATE_NAME))).global_step


def package_versions() -> dict[str, str]:
    """Versions of what a run's figures depend on."""
    packages = (hf_gradalign, torch, transformers, datasets, accelerate, numpy)
    return {"python": platform.python_version()} | {package.__name__: package.__version__ for package in packages}


_SPLITS = {"eval": "validation", "test": "test"}


def summary_table(results: RunResults, method: str) -> str:
    """Equal error rates by split and system and conflict rates by epoch, in per cent, as text."""
    lines = ["Equal error rate (%)"]
    for prefix, split in _SPLITS.items():
        if f"{prefix}_eer" not in results.metrics:
            continue
        lines.append(f"  {split:<12}{100 * results.metrics[f'{prefix}_eer']:6.2f}")
        for system, rate in sorted(results.eer_by_system.get(prefix, {}).items()):
            lines.append(f"    {system:<10}{100 * rate:6.2f}")
    views = results.settings.get("views", {})
    if len(views) == 1:
        lines.append(f"One view ({', '.join(views)}), so no gradients to align")
    else:
        which = f"any two of the views ({', '.join(views)})" if len(views) > 2 else "the views"
        lines.append(f"Updates in which the gradients of {which} conflicted (%), alignment: {method}")
    if results.conflict_rate is not None:
        by_epoch = [f"{100 * rate:.0f}" for rate in results.conflict_rate_by_epoch.values()]
        lines.append(f"  {'all':<12}{100 * results.conflict_rate:6.2f}")
        lines.append(f"  {'by epoch':<12}{' '.join(f'{rate:>5}' for rate in by_epoch)}")
    if results.nonfinite_updates:
        lines.append(f"  {results.nonfinite_updates} updates had gradients that were not finite")
    if results.skipped_updates:
        lines.append(f"  {results.skipped_updates} updates were skipped (--on_nonfinite skip)")
    lines += results.remarks
    return "\n".join(lines)
