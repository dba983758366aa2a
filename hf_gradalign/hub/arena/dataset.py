"""Loads a data set of the Arena: its name, commit, metrics and labels. Audio is not downloaded."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import load_dataset
from huggingface_hub import HfApi, constants, hf_hub_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    RemoteEntryNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from hf_gradalign.data import map_labels
from hf_gradalign.data.corpora.arena import ARENA_OWNER, arena_repository, label_map_of, read_notes
from hf_gradalign.hub.arena import ArenaError
from hf_gradalign.score_files import read_keys
from hf_gradalign.utils.hub_waits import NO_HUB, hub_fault
from hf_gradalign.utils.plain_text import one_line
from hf_gradalign.utils.settings_files import read_settings

EQUAL_ERROR_RATE, SPOOF_ACCEPTANCE = "eer_percent", "srr_complement"
_LABELS_FILE = "data/labels.parquet"
_COMMIT = re.compile(r"[0-9a-f]{7,40}")
_NOT_AN_ID = f"'{{}}' is not a data set's id, which looks like {ARENA_OWNER}/InTheWild"
_TROUBLE = (HfHubHTTPError, HTTPError, OSError, json.JSONDecodeError)


@dataclass(frozen=True, kw_only=True)
class ArenaDataset:
    """A data set of the Arena.

    Attributes:
        id: `organization/name` on the Hub.
        revision: The commit that was scored, 7 to 40 hexadecimal digits.
        labels: 1 for bona fide and 0 for spoof, by utterance id.
        name: A readable name. Defaults to the name in the id.
        split: The split that was scored.
        metrics: Names in the Arena. Defaults to the equal error rate, or, for data sets without bona fide clips, the
            share of spoofed clips that are accepted.

    Raises:
        ArenaError: If an attribute is not valid.
    """

    id: str
    revision: str
    labels: Mapping[str, int]
    name: str = ""
    split: str = "test"
    metrics: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_dataset_id(self.id)
        if not _COMMIT.fullmatch(self.revision):
            raise ArenaError(
                f"'{self.revision}' is not a commit of {self.id}: use 7 to 40 lower-case hexadecimal digits"
            )
        if not self.labels:
            raise ArenaError(f"{self.id} has no labeled clips")
        if unknown := set(self.metrics) - {EQUAL_ERROR_RATE, SPOOF_ACCEPTANCE}:
            raise ArenaError(
                f"{self.id} is evaluated by {', '.join(sorted(unknown))}, which this library does not know"
            )
        both = set(self.labels.values()) == {0, 1}
        object.__setattr__(self, "name", self.name or self.id.split("/")[1])
        object.__setattr__(self, "metrics", tuple(self.metrics) or (EQUAL_ERROR_RATE if both else SPOOF_ACCEPTANCE,))


def load_arena_dataset(
    dataset_id: str,
    *,
    folder: str | Path | None = None,
    labels: Mapping[str, int] | None = None,
    revision: str | None = None,
    split: str | None = None,
    token: str | None = None,
) -> ArenaDataset:
    """Load a data set's labels, metrics and commit, from the Hub or from a folder. Does not read audio.

    Args:
        dataset_id: `organization/name` on the Hub, or the name of one of the Arena's own data sets.
        folder: The data set on disk (`eval.yaml`, `data/labels.parquet` or `data/test-*.parquet`).
        labels: Replaces the data set's labels: 1 for bona fide and 0 for spoof, by utterance id. Then only the commit
            is looked up, if it is not passed.
        revision: The commit that was scored, or a branch or tag on the Hub. Defaults to the newest commit.
        split: Defaults to the split in `eval.yaml`, or `test` without one.
        token: Access token for the Hub. None uses the one that is logged in.

    Raises:
        ArenaError: If the data set, its labels or its commit cannot be found.
        ScoreFileError: If its labels cannot be read.
    """
    dataset_id = arena_repository(dataset_id)
    check_dataset_id(dataset_id)
    commit = resolve_commit(dataset_id, revision, token)
    if labels is not None:
        return ArenaDataset(id=dataset_id, revision=commit, labels=labels, split=split or "test")
    if folder is not None:
        evaluation = _evaluation(Path(folder, "eval.yaml"))
        labels = read_labels(folder)
    else:
        try:
            path = hf_hub_download(dataset_id, "eval.yaml", repo_type="dataset", revision=commit, token=token)
            evaluation = _evaluation(Path(path))
            labels = hub_labels(dataset_id, commit, split or evaluation["split"], token)
        except RemoteEntryNotFoundError as error:
            raise ArenaError(f"{dataset_id} is not a data set of the Arena: it has no eval.yaml") from error
        except _TROUBLE as error:
            raise ArenaError(
                f"{dataset_id} cannot be read ({_reason(error)}); use --dataset_folder for one on disk"
            ) from error
    return ArenaDataset(
        id=dataset_id,
        revision=commit,
        labels=labels,
        name=evaluation["name"],
        split=split or evaluation["split"],
        metrics=evaluation["metrics"],
    )


def resolve_commit(dataset_id: str, revision: str | None = None, token: str | None = None) -> str:
    """Resolve a data set's revision to a commit.

    Args:
        dataset_id: `organization/name` on the Hub.
        revision: A commit, branch or tag. None for the newest commit of the main branch.
        token: See `load_arena_dataset`.

    Raises:
        ArenaError: If the Hub is needed and does not answer.
    """
    if revision is not None and _COMMIT.fullmatch(revision) and len(revision) == 40:
        return revision
    try:
        return str(HfApi(token=token).dataset_info(dataset_id, revision=revision).sha)
    except _TROUBLE as error:
        if revision is not None and _COMMIT.fullmatch(revision):
            return revision
        raise ArenaError(
            f"cannot get the commit of {dataset_id} from the Hub at {constants.ENDPOINT} ({_reason(error)}): "
            "pass the one that was scored with --revision"
        ) from error


def check_dataset_id(dataset_id: str) -> None:
    """Check that an id has the form `organization/name`.

    Raises:
        ArenaError: If it does not.
    """
    try:
        validate_repo_id(dataset_id)
    except HFValidationError as error:
        raise ArenaError(_NOT_AN_ID.format(dataset_id)) from error
    if dataset_id.count("/") != 1:
        raise ArenaError(_NOT_AN_ID.format(dataset_id))


def _evaluation(path: Path) -> dict[str, Any]:
    """Return the name, split and metrics from a data set's eval.yaml."""
    try:
        content = read_settings(path)
        task = content["tasks"][0]
        metrics: Iterable[str] = task["metrics"]
        return {"name": str(content["name"]), "split": str(task.get("split", "test")), "metrics": tuple(metrics)}
    except FileNotFoundError as error:
        raise ArenaError(f"there is no {path}, which data sets in the Arena's format have") from error
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise ArenaError(
            f"{path} does not have the Arena's format (name, tasks: [{{split, metrics}}]): {error!r}"
        ) from error


def _reason(error: Exception) -> str:
    message = NO_HUB.format(constants.ENDPOINT) if isinstance(error, json.JSONDecodeError) else hub_fault(error)
    return one_line(message or error)


def read_labels(path: str | Path) -> dict[str, int]:
    """Read the labels of all subsets, which the Arena pools: 1 for bona fide and 0 for spoof, by utterance id.

    Args:
        path: A data set's folder or file, as for `hf_gradalign.score_files.read_keys`.

    Raises:
        ScoreFileError: As in `read_keys`.
    """
    clips = read_keys(path, subset="all")
    return dict(zip(clips.utterance_ids.to_pylist(), np.asarray(clips.labels).tolist(), strict=True))


def hub_labels(dataset_id: str, commit: str, split: str, token: str | None = None) -> Mapping[str, int]:
    """Read the labels of a data set on the Hub, from its small file of labels, or from only the columns with labels.

    Args:
        dataset_id: `organization/name`.
        commit: The data set's commit.
        split: The split.
        token: Access token. None uses the one that is logged in.

    Raises:
        ScoreFileError: If the file does not have the Arena's format.
        ArenaError: If an utterance has no id, or several have the same.
    """
    try:
        return read_labels(hf_hub_download(dataset_id, _LABELS_FILE, repo_type="dataset", revision=commit, token=token))
    except RemoteEntryNotFoundError:
        columns = ["notes", "label"]
        rows = load_dataset(dataset_id, split=split, streaming=True, revision=commit, token=token, columns=columns)
    names, values = [], []
    for row in rows:
        names.append(read_notes(row["notes"], 0)["utterance_id"] or "")
        values.append(row["label"])
    feature = (rows.features or {}).get("label")
    labels = map_labels(values, names=getattr(feature, "names", None), label_map=label_map_of(feature))
    by_name = dict(zip(names, labels, strict=True))
    if "" in by_name or len(by_name) < len(names):
        raise ArenaError(f"{dataset_id} at {commit} has clips without an utterance_id, or several with the same one")
    return by_name
