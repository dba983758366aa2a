"""The Arena's three YAML forms, all of them closed to further keys (as of its tool's version 0.4.1)."""

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
    """The operating point that spoof-only data sets are judged at, taken from a data set with both classes.

    Attributes:
        source_dataset: `organisation/name` of that data set.
        threshold: The score at its equal error rate; a clip is accepted from there on.
    """

    source_dataset: str
    threshold: float


def require_form(path: str | Path) -> None:
    """Refuse to replace a file that is none of the Arena's forms.

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
            f"{path} exists and was not written by this command: name another file, or replace it with --overwrite"
        )


def run_record(
    system: ArenaSystem, dataset: Mapping[str, str], scores: Mapping[str, float], scores_sha256: str, bench_version: str
) -> dict[str, Any]:
    """What the tool's `run` writes beside a score file: the figures before the scores have an address.

    Args:
        system: The system; the tool itself leaves all but its name empty.
        dataset: `id`, `revision` and `split`.
        scores: The metric by its name there, in per cent, `n_trials` and `n_skipped`.
        scores_sha256: Of the score file.
        bench_version: What computed them.
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
    """What goes into the model's repository as `result.yaml`.

    Args:
        record: A `run_record`.
        scores_url: Address of the score file at a commit.

    Raises:
        ArenaError: If the system has no paper, which a badge names, or the address names no commit.
    """
    paper = record["system"]["paper"]
    if not paper:
        raise ArenaError("the Arena's badge names a paper: give its arXiv number (--paper_arxiv)")
    slug = record["system"]["slug"]
    return {
        "schema_version": BADGE_VERSION,
        "system": {"name": record["system"]["name"], "slug": slug, "paper": {"arxiv_id": paper["arxiv_id"]}},
        "dataset": dict(record["dataset"]),
        "scores": dict(record["scores"]),
        "arena": {"url": ARENA_URL, "system_url": f"{ARENA_URL}?system={slug}"},
        "artifact": {"scores_url": _pinned(scores_url)},
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
    """What is proposed to the data set's repository as `submissions/<slug>.yaml`; maintainers fill `reproduction`.

    Args:
        record: A `run_record`.
        system: The same system.
        scores_url: Address of the score file at a commit.
        hf_username: Who submits, on the Hub.
        contact: How to reach them.
        submitted_at: The day.
        calibration: For spoof-only data sets.
        notes: Anything else.

    Raises:
        ArenaError: If something is missing that a submission must have.
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
        "artifact": {**record["artifact"], "scores_url": _pinned(scores_url)},
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
    """The text of a form."""
    return yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True)


def _paper(paper: ArenaPaper) -> dict[str, str | None]:
    return {"arxiv_id": paper.arxiv_id, "url": paper.url, "bibtex": paper.bibtex}


def _pinned(scores_url: str) -> str:
    if not _PINNED.fullmatch(scores_url):
        raise ArenaError(
            f"{scores_url} does not pin the scores: https://huggingface.co/<owner>/<model>/resolve/<commit>/... does"
        )
    return scores_url
