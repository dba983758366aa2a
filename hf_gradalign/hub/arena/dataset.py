"""A data set of the Arena: its name, the commit that is scored, its metrics and its labels; audio is never touched."""

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
from hf_gradalign.utils.settings_files import read_settings

EQUAL_ERROR_RATE, SPOOF_ACCEPTANCE = "eer_percent", "srr_complement"
_COMMIT = re.compile(r"[0-9a-f]{7,40}")
_TROUBLE = (HfHubHTTPError, HTTPError, OSError, json.JSONDecodeError)


@dataclass(frozen=True, kw_only=True)
class ArenaDataset:
    """What a result is about.

    Attributes:
        id: `organisation/name` on the Hub.
        revision: The commit that was scored, 7 to 40 hexadecimal digits.
        labels: 1 bona fide and 0 spoof, by utterance id.
        name: For people; by default the name in the id.
        split: The scored one.
        metrics: By their names in the Arena; by default the equal error rate, or where there are spoofed clips alone
            the share of them that is accepted.

    Raises:
        ArenaError: If something of this is not of its form.
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
                f"'{self.revision}' is no commit of {self.id}: give 7 to 40 hexadecimal digits, in lower case"
            )
        if not self.labels:
            raise ArenaError(f"{self.id} has no labelled clips")
        if unknown := set(self.metrics) - {EQUAL_ERROR_RATE, SPOOF_ACCEPTANCE}:
            raise ArenaError(f"{self.id} is judged by {', '.join(sorted(unknown))}, which is not known here")
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
    """Read what a result must know of a data set, from the Hub or from a folder in the Arena's form.

    Args:
        dataset_id: `organisation/name` on the Hub; a name alone is one of the Arena's own.
        folder: The data set on disk (`eval.yaml`, `data/labels.parquet` or `data/test-*.parquet`).
        labels: In place of the data set's: 1 bona fide and 0 spoof, by utterance id; nothing is then read but the
            commit, where none is given.
        revision: The commit that was scored; by default the Hub's newest. A branch or tag is resolved there.
        split: By default as `eval.yaml` says, or else test.
        token: Access token for the Hub; None takes the one that is logged in.

    Raises:
        ArenaError: If the data set, its labels or its commit cannot be had.
        ScoreFileError: If its labels cannot be read.
    """
    dataset_id = arena_repository(dataset_id)
    check_dataset_id(dataset_id)
    commit = resolve_commit(dataset_id, revision, token)
    if labels is not None:
        return ArenaDataset(id=dataset_id, revision=commit, labels=labels, split=split or "test")
    if folder is not None:
        evaluation = _evaluation(Path(folder, "eval.yaml"))
        found: Mapping[str, int] = read_labels(folder)
    else:
        try:
            path = hf_hub_download(dataset_id, "eval.yaml", repo_type="dataset", revision=commit, token=token)
            evaluation = _evaluation(Path(path))
            found = hub_labels(dataset_id, commit, split or evaluation["split"], token)
        except RemoteEntryNotFoundError as error:
            raise ArenaError(f"{dataset_id} is no data set of the Arena: it has no eval.yaml") from error
        except _TROUBLE as error:
            raise ArenaError(
                f"{dataset_id} cannot be read ({_one_line(error)}); --dataset_folder takes one on disk"
            ) from error
    return ArenaDataset(
        id=dataset_id,
        revision=commit,
        labels=found,
        name=evaluation["name"],
        split=split or evaluation["split"],
        metrics=evaluation["metrics"],
    )


def resolve_commit(dataset_id: str, revision: str | None = None, token: str | None = None) -> str:
    """The commit that a data set's revision is.

    Args:
        dataset_id: `organisation/name` on the Hub.
        revision: A commit, branch or tag; None for the newest of the main branch.
        token: As in `load_arena_dataset`.

    Raises:
        ArenaError: If only the Hub could tell, and it does not.
    """
    if revision is not None and _COMMIT.fullmatch(revision) and len(revision) == 40:
        return revision
    try:
        return str(HfApi(token=token).dataset_info(dataset_id, revision=revision).sha)
    except _TROUBLE as error:
        if revision is not None and _COMMIT.fullmatch(revision):
            return revision
        raise ArenaError(
            f"the Hub at {constants.ENDPOINT} does not tell the commit of {dataset_id} ({_one_line(error)}): give the "
            "one that was scored with --revision"
        ) from error


def check_dataset_id(dataset_id: str) -> None:
    """Refuse what is no `organisation/name`.

    Raises:
        ArenaError: If it is not.
    """
    try:
        validate_repo_id(dataset_id)
    except HFValidationError as error:
        raise ArenaError(f"'{dataset_id}' is no data set's id, which looks like {ARENA_OWNER}/InTheWild") from error
    if dataset_id.count("/") != 1:
        raise ArenaError(f"'{dataset_id}' is no data set's id, which looks like {ARENA_OWNER}/InTheWild")


def _evaluation(path: Path) -> dict[str, Any]:
    """Name, split and metrics as a data set's eval.yaml gives them."""
    try:
        content = read_settings(path)
        task = content["tasks"][0]
        metrics: Iterable[str] = task["metrics"]
        return {"name": str(content["name"]), "split": str(task.get("split", "test")), "metrics": tuple(metrics)}
    except FileNotFoundError as error:
        raise ArenaError(f"there is no {path}: a data set in the Arena's form has one") from error
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise ArenaError(f"{path} is not of the Arena's form (name, tasks: [{{split, metrics}}]): {error!r}") from error


def _one_line(error: Exception) -> str:
    said = NO_HUB.format(constants.ENDPOINT) if isinstance(error, json.JSONDecodeError) else hub_fault(error)
    return " ".join((said or str(error)).split())


_LABELS_FILE = "data/labels.parquet"


def read_labels(path: str | Path) -> dict[str, int]:
    """Labels of all subsets, which the Arena pools: 1 bona fide and 0 spoof, by utterance id.

    Args:
        path: A data set's folder or file, as `hf_gradalign.score_files.read_keys` takes it.

    Raises:
        ScoreFileError: As `read_keys`.
    """
    clips = read_keys(path, subset="all")
    return dict(zip(clips.utterance_ids.to_pylist(), np.asarray(clips.labels).tolist(), strict=True))


def hub_labels(dataset_id: str, commit: str, split: str, token: str | None = None) -> Mapping[str, int]:
    """Labels of a data set on the Hub: from its small file of them, or by streaming their column alone.

    Args:
        dataset_id: `organisation/name`.
        commit: Of the data set.
        split: The split.
        token: Access token; None takes the one that is logged in.

    Raises:
        ScoreFileError: If the file is not of the Arena's form.
        ArenaError: If the column is not: an utterance has no id, or two labels.
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
    found = dict(zip(names, labels, strict=True))
    if "" in found or len(found) < len(names):
        raise ArenaError(f"{dataset_id} at {commit} has clips without an utterance_id, or one that several have")
    return found
