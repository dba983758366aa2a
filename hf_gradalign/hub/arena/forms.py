"""The Arena's YAML files: run record, badge and submission. They allow no other keys (version 0.4.1 of its tool)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from hf_gradalign.hub.arena import ArenaError
from hf_gradalign.hub.arena.system_info import ArenaPaper, ArenaSystem
from hf_gradalign.utils.settings_files import read_settings

ARENA_URL = "https://huggingface.co/spaces/SpeechAntiSpoofingBenchmarks/SpeechAntiSpoofingArena"
RUN_VERSION, SUBMISSION_VERSION, CALIBRATED_SUBMISSION_VERSION, BADGE_VERSION = 4, 4, 5, 1
_PINNED = re.compile(r"https://huggingface\.co/[^/]+/[^/]+/resolve/[0-9a-f]{7,40}/.+")


@dataclass(frozen=True)
class Calibration:
    """The threshold for data sets without bona fide clips, from a data set with both classes.

    Attributes:
        source_dataset: `organization/name` of that data set.
        threshold: The score at its equal error rate. Clips with at least this score are accepted.
    """

    source_dataset: str
    threshold: float


def require_form(path: str | Path) -> None:
    """Refuse to replace a file that is not one of the Arena's YAML files.

    Raises:
        FileExistsError: If there is such a file.
    """
    path = Path(path)
    if not path.exists():
        return
    try:
        content = read_settings(path)
    except (OSError, ValueError):
        content = None
    if not isinstance(content, dict) or not {"system", "dataset", "scores"} <= content.keys():
        raise FileExistsError(
            f"{path} exists and was not written by this command: choose another name, or replace it with --overwrite"
        )


def run_record(
    system: ArenaSystem, dataset: Mapping[str, str], scores: Mapping[str, float], scores_sha256: str, bench_version: str
) -> dict[str, Any]:
    """Make the record that the Arena's tool writes next to a score file, before the scores have a URL.

    Args:
        system: The system. The tool itself leaves everything but its name empty.
        dataset: `id`, `revision` and `split`.
        scores: The metrics by their names in the Arena, in percent, `n_trials` and `n_skipped`.
        scores_sha256: Hash of the score file.
        bench_version: The software that computed the metrics.
    """
    return {
        "schema_version": RUN_VERSION,
        "system": {
            "name": system.name,
            "slug": system.slug,
            "description": system.description,
            "code": system.code,
            "checkpoint": system.checkpoint,
            "paper": system.paper and _paper(system.paper),
        },
        "dataset": dict(dataset),
        "scores": dict(scores),
        "artifact": {"scores_url": None, "scores_sha256": scores_sha256, "bench_version": bench_version},
        "reproduction": {},
        "submitter": {},
        "submitted_at": None,
        "notes": None,
    }


def badge(record: Mapping[str, Any], scores_url: str) -> dict[str, Any]:
    """Make the badge for the model's repository, `result.yaml`.

    Args:
        record: From `run_record`.
        scores_url: URL of the score file at a commit.

    Raises:
        ArenaError: If the system has no paper, which a badge needs, or the URL does not name a commit.
    """
    paper = record["system"]["paper"]
    if not paper:
        raise ArenaError("the Arena's badges need a paper: pass its arXiv number with --paper_arxiv")
    slug = record["system"]["slug"]
    return {
        "schema_version": BADGE_VERSION,
        "system": {"name": record["system"]["name"], "slug": slug, "paper": {"arxiv_id": paper["arxiv_id"]}},
        "dataset": dict(record["dataset"]),
        "scores": dict(record["scores"]),
        "arena": {"url": ARENA_URL, "system_url": f"{ARENA_URL}?system={slug}"},
        "artifact": {"scores_url": _require_commit(scores_url)},
    }


def submission(
    record: Mapping[str, Any],
    system: ArenaSystem,
    scores_url: str,
    *,
    hf_username: str,
    contact: str,
    submitted_at: date,
    calibration: Calibration | None = None,
    notes: str | None = None,
) -> dict[str, Any]:
    """Make the submission for the data set's repository, `submissions/<slug>.yaml`. Maintainers add `reproduction`.

    Args:
        record: From `run_record`.
        system: The same system.
        scores_url: URL of the score file at a commit.
        hf_username: The submitter's name on the Hub.
        contact: How to reach the submitter.
        submitted_at: The date.
        calibration: The threshold, for data sets without bona fide clips.
        notes: Further notes.

    Raises:
        ArenaError: If information for the submission is missing.
    """
    needed = {"code": system.code, "checkpoint": system.checkpoint, "hf_username": hf_username, "contact": contact}
    if system.paper:
        needed["paper_bibtex"] = system.paper.bibtex
    if missing := [name for name, value in needed.items() if not value]:
        raise ArenaError(f"a submission needs {', '.join(f'--{name}' for name in missing)}")
    about: dict[str, Any] = {
        "name": system.name,
        "slug": system.slug,
        "description": system.description,
        "code": system.code,
        "checkpoint": system.checkpoint,
    }
    if system.paper:
        about["paper"] = _paper(system.paper)
    if system.params_millions is not None:
        about["params_millions"] = system.params_millions
    proposed = {
        "schema_version": CALIBRATED_SUBMISSION_VERSION if calibration else SUBMISSION_VERSION,
        "system": about,
        "dataset": dict(record["dataset"]),
        "scores": dict(record["scores"]),
        "artifact": {**record["artifact"], "scores_url": _require_commit(scores_url)},
        "reproduction": {},
        "submitter": {"hf_username": hf_username, "contact": contact},
        "submitted_at": submitted_at.isoformat(),
    }
    if calibration:
        proposed["calibration"] = {
            "source_dataset": calibration.source_dataset,
            "threshold": float(calibration.threshold),
        }
    if notes:
        proposed["notes"] = notes
    return proposed


def as_yaml(content: Mapping[str, Any]) -> str:
    """Return the text of the YAML file."""
    return yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True)


def _paper(paper: ArenaPaper) -> dict[str, str | None]:
    return {"arxiv_id": paper.arxiv_id, "url": paper.url, "bibtex": paper.bibtex}


def _require_commit(scores_url: str) -> str:
    if not _PINNED.fullmatch(scores_url):
        raise ArenaError(
            f"{scores_url} does not name a commit, like https://huggingface.co/<owner>/<model>/resolve/<commit>/..."
        )
    return scores_url
