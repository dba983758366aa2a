"""Evaluate a score file like the Arena, and write the results into a model's folder and its card."""

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
_CARD_METRICS = {
    "eer_percent": (
        "eer",
        "Equal error rate (interpolated, as in the Speech Anti-Spoofing Arena), a fraction in [0, 1]",
    ),
    "srr_complement": ("srr_complement", "1 - spoof rejection rate, a fraction in [0, 1]"),
}


@dataclass(frozen=True)
class ArenaScores:
    """Scores as the Arena reads them, in its text and with six decimals.

    Attributes:
        text: Of the score file, `utterance_id score` a line, in the order of the data set.
        scores: By utterance id, as the text has them.
        n_trials: Clips of the data set.
        n_skipped: Those without a score.
        metrics: In per cent, by their names in the Arena.
        threshold: The score at the equal error rate, None for spoof-only data sets.
    """

    text: str
    scores: Mapping[str, float]
    n_trials: int
    n_skipped: int
    metrics: Mapping[str, float]
    threshold: float | None

    @property
    def sha256(self) -> str:
        """Of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()


@dataclass(frozen=True)
class ArenaResult:
    """What was written.

    Attributes:
        folder: `.eval_results/<organisation>/<name>` in the model's folder.
        record: As in its `result.yaml`.
        scores: What the scores amount to.
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
    """Write a scoring's results into a model's folder, in the Arena's form.

    Into `.eval_results/<organisation>/<name>/` go `scores.txt` and `result.yaml`. As long as the scores have no
    address, the latter is the record that the Arena's tool writes of a run; `push_arena_results` makes the badge of it.

    Args:
        model_dir: The model's folder.
        scores: A score file, as `hf_gradalign.score_files.read_scores` takes it, or scores by utterance id; higher
            for bona fide.
        dataset: What was scored.
        system: What the Arena is to know of the model (`describe_system`).
        calibration: The threshold for data sets that have spoofed clips alone.
        bench_version: What measured; by default this library, or for the tool's own score files what its record says.
        update_card: Whether the model card's `model-index` gets the result; what else is in the card stays.
        overwrite: Replace files in the place of the results that are something else; older results are replaced anyway.

    Raises:
        ArenaError: If the Arena would not take the scores.
        FileExistsError: If there is something else in the place of the results.
        ScoreFileError: If the score file cannot be read.
    """
    folder = Path(model_dir, RESULTS_FOLDER, *dataset.id.split("/"))
    if not overwrite:
        require_form(folder / RECORD_FILE)
        if not (folder / RECORD_FILE).exists():  # nothing says whose scores they are
            require_free(folder / SCORES_FILE)
    source = None if isinstance(scores, Mapping) else Path(scores)
    if not isinstance(scores, Mapping):
        clips = read_scores(scores)
        scores = dict(zip(clips.utterance_ids.to_pylist(), np.asarray(clips.scores).tolist(), strict=True))
    judged = evaluate_scores(scores, dataset, calibration)
    record = run_record(
        system,
        {"id": dataset.id, "revision": dataset.revision, "split": dataset.split},
        {**judged.metrics, "n_trials": judged.n_trials, "n_skipped": judged.n_skipped},
        judged.sha256,
        bench_version or _tool_version(source) or f"hf_gradalign=={version('hf-gradalign')}",
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_text_atomically(folder / SCORES_FILE, judged.text)
    write_text_atomically(folder / RECORD_FILE, as_yaml(record))
    if update_card:
        add_results_to_card(model_dir, system.name, _card_results(dataset, system, judged))
    return ArenaResult(folder, record, judged)


def _card_results(dataset: ArenaDataset, system: ArenaSystem, judged: ArenaScores) -> list[EvalResult]:
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
        for metric, value in judged.metrics.items()
    ]


def _tool_version(scores: Path | None) -> str | None:
    """What measured, as the tool noted it beside its own score file."""
    if scores is None or not (record := scores.with_name(RECORD_FILE)).is_file():
        return None
    try:
        return str(read_settings(record)["artifact"]["bench_version"])
    except (ValueError, KeyError, TypeError):
        return None


# The tool ends a run beyond it.
MAX_SKIPPED = 0.05
_SHOWN = 5


def evaluate_scores(
    scores: Mapping[str, float], dataset: ArenaDataset, calibration: Calibration | None = None
) -> ArenaScores:
    """Measure scores as the Arena will, from their six decimals.

    Args:
        scores: Higher for bona fide, by utterance id; those that are not finite count as not scored.
        dataset: What was scored.
        calibration: The threshold for data sets that have spoofed clips alone.

    Returns:
        The text of the score file, and what it amounts to.

    Raises:
        ArenaError: If more than 5 % of the clips have no score, if clips are scored that the data set does not have,
            if an id has a blank in it, or if a class or the calibration is missing.
    """
    if strange := [name for name in scores if name not in dataset.labels]:
        shown = ", ".join(strange[:_SHOWN]) + (", ..." if len(strange) > _SHOWN else "")
        raise ArenaError(
            f"{len(strange)} of {len(scores)} scored clips are not in {dataset.id} at {dataset.revision} ({shown}): "
            "these are scores of something else"
        )
    lines = {}
    for name in dataset.labels:
        if math.isfinite(scores.get(name, math.nan)):
            lines[name] = f"{scores[name]:.6f}"
    if blank := [name for name in lines if re.search(r"\s", name)]:
        raise ArenaError(f"the Arena's score files have no room for utterance ids with a blank, such as {blank[0]!r}")
    n_trials, n_skipped = len(dataset.labels), len(dataset.labels) - len(lines)
    if n_skipped > MAX_SKIPPED * n_trials:
        missing = [name for name in dataset.labels if name not in lines][:_SHOWN]
        raise ArenaError(
            f"{n_skipped} of {n_trials} clips of {dataset.id} have no score, such as {', '.join(missing)}; the Arena "
            f"takes no more than {MAX_SKIPPED:.0%}"
        )
    read = {name: float(number) for name, number in lines.items()}
    values = np.array(list(read.values()))
    labels = np.array([dataset.labels[name] for name in read])
    metrics, threshold = {}, None
    for metric in dataset.metrics:
        if metric == EQUAL_ERROR_RATE:
            if set(labels.tolist()) != {0, 1}:
                raise ArenaError(f"an equal error rate on {dataset.id} needs scored clips of both classes")
            point = interpolated_equal_error_rate(values, labels)
            metrics[metric], threshold = 100 * point["eer"], point["threshold"]
        else:
            metrics[metric] = 100 * _spoof_acceptance(values, labels, dataset, calibration)
    text = "".join(f"{name} {number}\n" for name, number in lines.items())
    return ArenaScores(text, read, n_trials, n_skipped, metrics, threshold)


def _spoof_acceptance(
    values: np.ndarray, labels: np.ndarray, dataset: ArenaDataset, calibration: Calibration | None
) -> float:
    """One minus the spoof rejection rate: the share of spoofed clips at or above the threshold."""
    if calibration is None:
        raise ArenaError(
            f"{dataset.id} is judged by the share of spoofed clips that a threshold accepts ({SPOOF_ACCEPTANCE}), and "
            "the threshold is that of the equal error rate on another data set: give it with --calibration_threshold"
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

This model tells bona fide (human) speech from spoofed speech: synthesised, converted or otherwise faked.
"""


def add_results_to_card(folder: str | os.PathLike[str], model_name: str, results: Sequence[EvalResult]) -> Path:
    """Add results to a model card, in place of older ones of the same metric on the same split of the same data set.

    The rest of the metadata keeps its content and order, and the text is not touched. A folder without a card gets a
    short one.

    Args:
        folder: The model's folder.
        model_name: How the model is called in `model-index`, if it is not there yet.
        results: What to add.

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
            entry["results"] = _with(entry.get("results") or [], block)
        metadata_save(draft, metadata)
        os.replace(draft, path)
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, KeyError) as error:
        draft.unlink()
        raise ValueError(f"the metadata of {path} cannot be read, and no result was added: {error}") from error
    return path


def _entry(models: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """The model's entry, or the first one, which is the model's under an older name."""
    for entry in [*(entry for entry in models if entry.get("name") == name), *models]:
        return entry
    models.append({"name": name, "results": []})
    return models[-1]


def _with(blocks: Iterable[dict[str, Any]], new: dict[str, Any]) -> list[dict[str, Any]]:
    """A model's results with a new block, from which other blocks of the same split lose the metrics that it has."""
    kept: list[dict[str, Any]] = []
    place: int | None = None
    replaced = {_metric(metric) for metric in new["metrics"]}
    for block in blocks:
        if _split(block) == _split(new):
            remaining = [metric for metric in block.get("metrics", []) if _metric(metric) not in replaced]
            if len(remaining) < len(block.get("metrics", [])):
                place = len(kept) if place is None else place
                if not remaining:
                    continue
                block = {**block, "metrics": remaining}
        kept.append(block)
    kept.insert(len(kept) if place is None else place, new)
    return kept


def _split(block: dict[str, Any]) -> tuple[Any, ...]:
    dataset = block.get("dataset", {})
    return block.get("task", {}).get("type"), dataset.get("type"), dataset.get("config"), dataset.get("split")


def _metric(metric: dict[str, Any]) -> tuple[Any, Any]:
    return metric.get("type"), metric.get("name")
