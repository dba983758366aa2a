"""Pushes results to the Hub: first the scores, then the badges and submissions with the scores' URL."""

import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, hf_hub_download
from huggingface_hub.errors import HTTPError, RemoteEntryNotFoundError
from transformers.utils import logging

from hf_gradalign.hub.arena import ArenaError
from hf_gradalign.hub.arena.forms import RUN_VERSION, as_yaml, badge
from hf_gradalign.hub.arena.results import RECORD_FILE, RESULTS_FOLDER, SCORES_FILE
from hf_gradalign.hub.publishing import publish
from hf_gradalign.utils.files import write_text_atomically
from hf_gradalign.utils.plain_text import one_line
from hf_gradalign.utils.settings_files import read_settings

logger = logging.get_logger(__name__)


def push_arena_results(
    model_dir: str | Path, repo_id: str, *, token: str | None = None, private: bool | None = None
) -> dict[str, str]:
    """Push a model with its results, and turn its run records into badges with the URL of the scores.

    Makes two commits, because a badge names the commit of the scores.

    Args:
        model_dir: The model's folder, with the output of `write_arena_results`.
        repo_id: See `publish`.
        token: See `publish`.
        private: See `publish`. The Arena can only read public repositories.

    Returns:
        The URL of each data set's scores at the pushed commit, by the data set's id.

    Raises:
        PublishingError: If the upload fails.
        ArenaError: If the model's folder has no results.
    """
    if not list(_records(model_dir)):
        raise ArenaError(f"{model_dir} has no results of the Arena's data sets to push")
    upload = partial(publish, model_dir, repo_id, token=token, private=private)
    where = upload(commit_message="Upload model and Arena scores")
    repo_id = "/".join(where.split("/")[-2:])  # including the namespace
    commit = str(HfApi(token=token).model_info(repo_id).sha)
    addresses = {}
    for path, record in _records(model_dir):
        address = addresses[record["dataset"]["id"]] = scores_url(repo_id, commit, record["dataset"]["id"])
        if record["schema_version"] != RUN_VERSION:
            continue  # already a badge, whose scores were pushed before
        if record["system"]["paper"]:
            record = badge(record, address)
        else:
            record["artifact"]["scores_url"] = address
            logger.warning(f"{path} is not a badge yet: the Arena's badges need a paper (--paper_arxiv).")
        write_text_atomically(path, as_yaml(record))
    if constants.ENDPOINT != constants._HF_DEFAULT_ENDPOINT:
        logger.warning(f"The URLs in the results point to huggingface.co, but the model is at {where}.")
    upload(commit_message="Arena results: where the scores are")
    return addresses


def find_scores(model_dir: str | Path, repo_id: str, dataset_id: str, *, token: str | None = None) -> str:
    """Return the URL of pushed scores, after comparing them with the local ones, like the Arena.

    Args:
        model_dir: The model's folder.
        repo_id: `namespace/name` of its repository.
        dataset_id: The data set's id.
        token: Access token. None uses the one that is logged in.

    Raises:
        ArenaError: If the repository has different scores, or none.
    """
    name = f"{RESULTS_FOLDER}/{dataset_id}/{SCORES_FILE}"
    try:
        commit = str(HfApi(token=token).model_info(repo_id).sha)
        pushed = Path(hf_hub_download(repo_id, name, revision=commit, token=token)).read_bytes()
    except RemoteEntryNotFoundError as error:
        raise ArenaError(f"{repo_id} has no {name} yet: push the results first (--push_to_hub)") from error
    except (HTTPError, OSError) as error:
        raise ArenaError(f"{repo_id} cannot be read: {one_line(error)}") from error
    if hashlib.sha256(pushed).digest() != hashlib.sha256(Path(model_dir, name).read_bytes()).digest():
        raise ArenaError(f"{repo_id} and {model_dir} have different scores of {dataset_id}: push again (--push_to_hub)")
    return scores_url(repo_id, commit, dataset_id)


def scores_url(repo_id: str, commit: str, dataset_id: str) -> str:
    """Return the URL of a score file at a commit of a model's repository."""
    return f"https://huggingface.co/{repo_id}/resolve/{commit}/{RESULTS_FOLDER}/{dataset_id}/{SCORES_FILE}"


def _records(model_dir: str | Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in sorted(Path(model_dir, RESULTS_FOLDER).glob(f"*/*/{RECORD_FILE}")):
        if path.with_name(SCORES_FILE).is_file():
            record = read_settings(path)
            try:
                record["dataset"]["id"], record["schema_version"], record["system"]["paper"], record["artifact"]
            except (KeyError, TypeError) as error:
                raise ArenaError(f"{path} is not a record of results ({error!r}): write the results again") from error
            yield path, record
