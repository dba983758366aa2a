"""Evaluates a score file like the Arena, and writes the results into a model's folder and its card."""

import hashlib
import math
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from huggingface_hub import EvalResult, constants
from huggingface_hub.repocard import metadata_load, metadata_save
from huggingface_hub.repocard_data import eval_results_to_model_index

from hf_gradalign.hub.arena import ArenaError
from hf_gradalign.hub.arena.dataset import EQUAL_ERROR_RATE, SPOOF_ACCEPTANCE, ArenaDataset
from hf_gradalign.hub.arena.forms import ARENA_URL, Calibration, as_yaml, require_form, run_record
from hf_gradalign.hub.arena.system_info import ArenaSystem
from hf_gradalign.metrics import interpolated_equal_error_rate
from hf_gradalign.score_files import read_scores
from hf_gradalign.utils.files import require_free, write_text_atomically
from hf_gradalign.utils.plain_text import markdown_text
from hf_gradalign.utils.settings_files import read_settings

RESULTS_FOLDER, SCORES_FILE, RECORD_FILE = ".eval_results", "scores.txt", "result.yaml"
MAX_SKIPPED = 0.05  # the Arena's tool stops if more clips are skipped
_MAX_LISTED = 5
# Scores are refused if rounding leaves fewer than this share of the distinct scores, and changes a metric by more than
# this many points.
_MIN_KEPT, _MAX_CHANGE = 0.5, 0.1
_CARD_METRICS = {
    "eer_percent": (
        "eer",
        "Equal error rate (interpolated, as in the Speech Anti-Spoofing Arena), a fraction in [0, 1]",
    ),
    "srr_complement": ("srr_complement", "1 - spoof rejection rate, a fraction in [0, 1]"),
}


@dataclass(frozen=True)
class ArenaScores:
    """Scores in the Arena's format, with six decimals, and their metrics.

    Attributes:
        text: Content of the score file, `utterance_id score` per line, in the data set's order.
        scores: Scores by utterance id, rounded as in the text.
        n_trials: Number of clips in the data set.
        n_skipped: Number of clips without a score.
        metrics: Metrics in percent, by their names in the Arena.
        threshold: The score at the equal error rate. None for data sets without bona fide clips.
    """

    text: str
    scores: Mapping[str, float]
    n_trials: int
    n_skipped: int
    metrics: Mapping[str, float]
    threshold: float | None

    @property
    def sha256(self) -> str:
        """Hash of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()


@dataclass(frozen=True)
class ArenaResult:
    """The results that were written.

    Attributes:
        folder: `.eval_results/<organization>/<name>` in the model's folder.
        record: The content of its `result.yaml`.
        scores: The scores and metrics.
    """

    folder: Path
    record: Mapping[str, Any]
    scores: ArenaScores


def write_arena_results(
    model_dir: str | Path,
    scores: str | Path | Mapping[str, float],
    dataset: ArenaDataset,
    system: ArenaSystem,
    *,
    calibration: Calibration | None = None,
    bench_version: str | None = None,
    update_card: bool = True,
    overwrite: bool = False,
) -> ArenaResult:
    """Write the results on a data set into a model's folder, in the Arena's format.

    Writes `scores.txt` and `result.yaml` to `.eval_results/<organization>/<name>/`. Until the scores have a URL,
    `result.yaml` is the record of a run. `push_arena_results` turns it into a badge.

    Args:
        model_dir: The model's folder.
        scores: A score file, as for `hf_gradalign.score_files.read_scores`, or scores by utterance id. Higher means
            bona fide.
        dataset: The data set that was scored.
        system: The model's description for the Arena (`describe_system`).
        calibration: The threshold for data sets without bona fide clips.
        bench_version: The software that computed the metrics. Defaults to this library, or, for score files of the
            Arena's tool, the version in its record.
        update_card: Whether to add the result to the model card's `model-index`. The rest of the card does not change.
        overwrite: Whether to replace files that are not results. Older results are always replaced.

    Raises:
        ArenaError: If the Arena would not accept the scores.
        FileExistsError: If other files are in the way.
        ScoreFileError: If the score file cannot be read.
    """
    folder = Path(model_dir, RESULTS_FOLDER, *dataset.id.split("/"))
    if not overwrite:
        require_form(folder / RECORD_FILE)
        if not (folder / RECORD_FILE).exists():  # without a record, the scores may belong to something else
            require_free(folder / SCORES_FILE)
    source = None if isinstance(scores, Mapping) else Path(scores)
    if not isinstance(scores, Mapping):
        clips = read_scores(scores)
        scores = dict(zip(clips.utterance_ids.to_pylist(), np.asarray(clips.scores).tolist(), strict=True))
    evaluated = evaluate_scores(scores, dataset, calibration)
    record = run_record(
        system,
        {"id": dataset.id, "revision": dataset.revision, "split": dataset.split},
        {**evaluated.metrics, "n_trials": evaluated.n_trials, "n_skipped": evaluated.n_skipped},
        evaluated.sha256,
        bench_version or _tool_version(source) or f"hf_gradalign=={version('hf-gradalign')}",
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_text_atomically(folder / SCORES_FILE, evaluated.text)
    write_text_atomically(folder / RECORD_FILE, as_yaml(record))
    if update_card:
        add_results_to_card(model_dir, system.name, _card_results(dataset, system, evaluated))
    return ArenaResult(folder, record, evaluated)


def _card_results(dataset: ArenaDataset, system: ArenaSystem, evaluated: ArenaScores) -> list[EvalResult]:
    return [
        EvalResult(
            task_type="audio-classification",
            task_name="Speech deepfake detection",
            dataset_type=dataset.id,
            dataset_name=dataset.name,
            dataset_split=dataset.split,
            dataset_revision=dataset.revision,
            metric_type=_CARD_METRICS[metric][0],
            metric_name=_CARD_METRICS[metric][1],
            metric_value=round(value / 100, 8),
            source_name="Speech Anti-Spoofing Arena",
            source_url=f"{ARENA_URL}?system={system.slug}",
        )
        for metric, value in evaluated.metrics.items()
    ]


def _tool_version(scores: Path | None) -> str | None:
    """Return the version in the record of a score file of the Arena's tool."""
    if scores is None or not (record := scores.with_name(RECORD_FILE)).is_file():
        return None
    try:
        return str(read_settings(record)["artifact"]["bench_version"])
    except (ValueError, KeyError, TypeError):
        return None


def evaluate_scores(
    scores: Mapping[str, float], dataset: ArenaDataset, calibration: Calibration | None = None
) -> ArenaScores:
    """Compute the Arena's metrics, from scores with six decimals.

    Args:
        scores: Scores by utterance id. Higher means bona fide. Scores that are not finite count as missing.
        dataset: The data set that was scored.
        calibration: The threshold for data sets without bona fide clips.

    Returns:
        The text of the score file, and the metrics.

    Raises:
        ArenaError: If more than 5 % of the clips have no score, scores belong to clips that are not in the data set, an
            id contains a space, a class or the calibration is missing, or rounding changes a metric.
    """
    if strange := [name for name in scores if name not in dataset.labels]:
        listed = ", ".join(strange[:_MAX_LISTED]) + (", ..." if len(strange) > _MAX_LISTED else "")
        raise ArenaError(
            f"{len(strange)} of {len(scores)} scored clips are not in {dataset.id} at {dataset.revision} ({listed}): "
            "these are scores of another data set"
        )
    lines = {}
    for name in dataset.labels:
        if math.isfinite(scores.get(name, math.nan)):
            lines[name] = f"{scores[name]:.6f}"
    if blank := [name for name in lines if re.search(r"\s", name)]:
        raise ArenaError(f"the Arena's score files do not allow utterance ids with spaces, such as {blank[0]!r}")
    n_trials, n_skipped = len(dataset.labels), len(dataset.labels) - len(lines)
    if n_skipped > MAX_SKIPPED * n_trials:
        missing = [name for name in dataset.labels if name not in lines][:_MAX_LISTED]
        raise ArenaError(
            f"{n_skipped} of {n_trials} clips of {dataset.id} have no score, such as {', '.join(missing)}; the Arena "
            f"accepts at most {MAX_SKIPPED:.0%}"
        )
    read = {name: float(number) for name, number in lines.items()}
    values = np.array(list(read.values()))
    labels = np.array([dataset.labels[name] for name in read])
    metrics, threshold = _measured(values, labels, dataset, calibration)
    given = np.array([scores[name] for name in lines])
    if len(np.unique(values)) < _MIN_KEPT * len(np.unique(given)):
        exact, _ = _measured(given, labels, dataset, calibration)
        for metric, value in metrics.items():
            if abs(value - exact[metric]) > _MAX_CHANGE:
                raise ArenaError(
                    f"with six decimals, as in the Arena's files, most scores are equal, and {metric} is {value:.4f} "
                    f"instead of {exact[metric]:.4f}: multiply all scores by the same number (and the threshold of "
                    "--calibration_threshold too), or use logits"
                )
    text = "".join(f"{name} {number}\n" for name, number in lines.items())
    return ArenaScores(text, read, n_trials, n_skipped, metrics, threshold)


def _measured(
    values: np.ndarray, labels: np.ndarray, dataset: ArenaDataset, calibration: Calibration | None
) -> tuple[dict[str, float], float | None]:
    """Return the metrics in percent, and the threshold at the equal error rate, if that is one of the metrics."""
    metrics, threshold = {}, None
    for metric in dataset.metrics:
        if metric == EQUAL_ERROR_RATE:
            if set(labels.tolist()) != {0, 1}:
                raise ArenaError(f"an equal error rate on {dataset.id} needs scored clips of both classes")
            point = interpolated_equal_error_rate(values, labels)
            metrics[metric], threshold = 100 * point["eer"], point["threshold"]
        else:
            metrics[metric] = 100 * _spoof_acceptance(values, labels, dataset, calibration)
    return metrics, threshold


def _spoof_acceptance(
    values: np.ndarray, labels: np.ndarray, dataset: ArenaDataset, calibration: Calibration | None
) -> float:
    """Return the share of spoofed clips at or above the threshold: one minus the spoof rejection rate."""
    if calibration is None:
        raise ArenaError(
            f"{dataset.id} is evaluated by the share of spoofed clips that a threshold accepts ({SPOOF_ACCEPTANCE}). "
            "Pass the threshold at the equal error rate on another data set with --calibration_threshold"
        )
    if not math.isfinite(calibration.threshold):
        raise ArenaError(f"the calibrated threshold is {calibration.threshold}, not a finite number")
    if not (labels == 0).any():
        raise ArenaError(f"{dataset.id} has no spoofed clip with a score")
    return float(np.mean(values[labels == 0] >= calibration.threshold))


_NEW_CARD = """---
library_name: transformers
pipeline_tag: audio-classification
tags: [hf_gradalign, audio-deepfake-detection, anti-spoofing, speech]
---

# {name}

This model tells bona fide (human) speech from spoofed speech: synthesized, converted or otherwise faked.
"""


def add_results_to_card(folder: str | os.PathLike[str], model_name: str, results: Sequence[EvalResult]) -> Path:
    """Add results to a model card. Replaces older results of the same metric on the same split of the same data set.

    The rest of the metadata keeps its content and order, and the text does not change. A folder without a card gets a
    short one.

    Args:
        folder: The model's folder.
        model_name: The model's name in `model-index`, if it has no entry yet.
        results: The results to add.

    Returns:
        The path of the card.

    Raises:
        ValueError: If the card's metadata cannot be read.
    """
    path = Path(folder) / constants.REPOCARD_NAME
    draft = path.with_name(f"{path.name}.draft")
    if path.is_file():
        shutil.copyfile(path, draft)
    else:
        draft.write_text(_NEW_CARD.format(name=markdown_text(model_name)), encoding="utf-8")
    try:
        metadata = metadata_load(draft) or {}
        models = metadata.setdefault("model-index", [])
        entry = _entry(models, model_name)
        for block in eval_results_to_model_index(model_name, list(results))[0]["results"]:
            entry["results"] = _add_block(entry.get("results") or [], block)
        metadata_save(draft, metadata)
        os.replace(draft, path)
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, KeyError) as error:
        draft.unlink()
        raise ValueError(f"the metadata of {path} cannot be read, and no result was added: {error}") from error
    return path


def _entry(models: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """Return the model's entry. Without one, return the first entry, whose name is an older one."""
    for entry in [*(entry for entry in models if entry.get("name") == name), *models]:
        return entry
    models.append({"name": name, "results": []})
    return models[-1]


def _add_block(blocks: Iterable[dict[str, Any]], new: dict[str, Any]) -> list[dict[str, Any]]:
    """Add a block to a model's results. Removes its metrics from other blocks of the same split."""
    kept: list[dict[str, Any]] = []
    position: int | None = None
    replaced = {_metric(metric) for metric in new["metrics"]}
    for block in blocks:
        if _split(block) == _split(new):
            remaining = [metric for metric in block.get("metrics", []) if _metric(metric) not in replaced]
            if len(remaining) < len(block.get("metrics", [])):
                position = len(kept) if position is None else position
                if not remaining:
                    continue
                block = {**block, "metrics": remaining}
        kept.append(block)
    kept.insert(len(kept) if position is None else position, new)
    return kept


def _split(block: dict[str, Any]) -> tuple[Any, ...]:
    dataset = block.get("dataset", {})
    return block.get("task", {}).get("type"), dataset.get("type"), dataset.get("config"), dataset.get("split")


def _metric(metric: dict[str, Any]) -> tuple[Any, Any]:
    return metric.get("type"), metric.get("name")
