"""A finished scoring in a model's folder: the score file, the record beside it, and the card's `model-index`."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import EvalResult

from hf_gradalign.hub.arena.dataset import ArenaDataset
from hf_gradalign.hub.arena.records import ARENA_URL, Calibration, as_yaml, require_form, run_record
from hf_gradalign.hub.arena.scores import ArenaScores, judge_scores
from hf_gradalign.hub.arena.system import ArenaSystem
from hf_gradalign.hub.model_index import add_results_to_card
from hf_gradalign.score_files import read_scores
from hf_gradalign.utils.atomic_writing import require_free, write_text_atomically
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
    judged = judge_scores(scores, dataset, calibration)
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
