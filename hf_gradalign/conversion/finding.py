"""Finds the file of a published checkpoint on disk or in a repository on the Hub."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import validate_repo_id

from hf_gradalign.conversion.published import find_by_repo, published_detectors
from hf_gradalign.conversion.reading import ConversionError
from hf_gradalign.utils.files import require_reachable
from hf_gradalign.utils.folder_listing import similar_path
from hf_gradalign.utils.hub_waits import hub_fault, repository_fault
from hf_gradalign.utils.messages import first_few

CHECKPOINT_SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".tar")
_STANDARD = "model.safetensors"
# Other files that training leaves behind.
_NO_WEIGHTS = ("optimizer", "scheduler", "scaler", "rng_state", "training_args", "random_states", "._")
_MAX_LISTED = 12


@dataclass(frozen=True)
class Checkpoint:
    """A published checkpoint's file.

    Attributes:
        path: The file, on this machine.
        repo: The repository on the Hub, if the file comes from there.
        filename: The name in the repository or, for local files, the file's name.
        commit: The repository's commit.
        listing: The files next to it, for messages.
    """

    path: Path
    filename: str
    repo: str | None = None
    commit: str | None = None
    listing: str = ""

    @property
    def source(self) -> str:
        """Name of the file in messages: `org/repo:filename`, or the file's name."""
        return f"{self.repo}:{self.filename}" if self.repo else self.filename


def split_source(source: str) -> tuple[str, str]:
    """Split `org/repo:filename` into the repository and the filename, which may be empty."""
    repo, _, filename = source.partition(":")
    return repo, filename


def locate_checkpoint(
    source: str, *, revision: str | None = None, token: str | None = None, cache_dir: str | None = None
) -> Checkpoint:
    """Find a checkpoint, downloading it if it is on the Hub.

    Args:
        source: A local file, or a folder with one checkpoint; or `org/repo:filename` on the Hub, or `org/repo` if the
            table of published detectors has it or it has one checkpoint (or a `model.safetensors`).
        revision: Branch, tag or commit on the Hub.
        token: Access token for the Hub.
        cache_dir: The Hub's cache.

    Raises:
        ConversionError: If there is no such file, it cannot be downloaded, or several could be meant. The message lists
            the files that were found.
    """
    path = Path(source).expanduser()
    require_reachable(path)
    if path.is_file():
        return Checkpoint(path, path.name)
    if path.is_dir():
        files = {file.name: file.stat().st_size for file in sorted(path.iterdir()) if file.is_file()}
        filename = choose(files, source, f"{path}/FILE")
        return Checkpoint(path / filename, filename, listing=listed_files(files))
    if "://" in source:
        raise ConversionError(
            f"{source} is an address: name a model on the Hub as org/repo, and one of its files as org/repo:filename"
        )
    repo, filename = split_source(source)
    if repo.count("/") != 1 or repo.endswith(CHECKPOINT_SUFFIXES):
        hint = similar_path(path)
        otherwise = "; name a checkpoint on the Hub as org/repo:filename"
        raise ConversionError(f"{path} is not a file or folder{f'.{hint}' if hint else otherwise}")
    try:
        validate_repo_id(repo)
        return _download(repo, filename, {"revision": revision, "token": token, "cache_dir": cache_dir})
    except (HfHubHTTPError, HFValidationError, HTTPError, EntryNotFoundError, OSError) as error:
        raise ConversionError(f"{source}: {_hub_reason(error, repo)}") from error


def choose(files: Mapping[str, int], where: str, example: str) -> str:
    """Return which of the files is the checkpoint.

    Args:
        files: Sizes in bytes by name.
        where: The repository or folder, for messages.
        example: How to name one of its files.

    Raises:
        ConversionError: If there is none, or several could be meant.
    """
    candidates = checkpoint_files(files)
    if len(candidates) == 1:
        return candidates[0]
    if _STANDARD in candidates:
        return _STANDARD
    in_the_table = [name for name in candidates if any(name in detector.files for detector in published_detectors())]
    if len(in_the_table) == 1:  # as in a clone of its repository, which also has the checkpoints that it averages
        return in_the_table[0]
    if not candidates:
        raise ConversionError(
            f"{where} has no checkpoint ({', '.join(CHECKPOINT_SUFFIXES)}) and no transformers model. It has: "
            f"{listed_files(files)}"
        )
    raise ConversionError(
        f"{where} has several checkpoints: name one of them, as {example}. It has: {listed_files(files)}"
    )


def checkpoint_files(names: Iterable[str]) -> list[str]:
    """Return the names of checkpoints, without other files of training runs and the `._name` files of macOS."""
    return [
        name
        for name in names
        if name.endswith(CHECKPOINT_SUFFIXES) and not name.rpartition("/")[2].startswith(_NO_WEIGHTS)
    ]


def listed_files(files: Mapping[str, int]) -> str:
    """List files with their sizes in one line; if there are many, only the first."""
    return first_few([f"{name} ({_format_size(size)})" for name, size in files.items()], _MAX_LISTED) or "nothing"


def _format_size(size: int) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} bytes"


def _download(repo: str, filename: str, where: dict[str, Any]) -> Checkpoint:
    detector = find_by_repo(repo)
    if not filename and detector is not None:
        try:
            return _fetch(repo, detector.files[0], where)
        except EntryNotFoundError:
            pass  # the repository does not have the file named in the table
    if filename:
        try:
            return _fetch(repo, filename, where)
        except RemoteEntryNotFoundError:
            pass  # reported below, with a list of files
    files = _list_files(repo, where)
    if filename:
        raise ConversionError(f"{repo} has no file {filename}. It has: {listed_files(files)}")
    return _fetch(repo, choose(files, repo, f"{repo}:FILE"), where, listed_files(files))


def _fetch(repo: str, filename: str, where: dict[str, Any], listing: str = "") -> Checkpoint:
    path = Path(hf_hub_download(repo, filename, **where))
    # .../snapshots/<commit>/<filename>, which may contain folders
    commit = path.parents[filename.count("/")].name
    return Checkpoint(path, filename, repo, commit, listing)


def _list_files(repo: str, where: dict[str, Any]) -> dict[str, int]:
    """Return the files of a repository with their sizes; the cached files if the Hub cannot be reached."""
    api = HfApi(token=where["token"])
    try:
        entries = api.list_repo_tree(repo, recursive=True, revision=where["revision"])
        return {entry.path: entry.size for entry in entries if isinstance(entry, RepoFile)}
    except (HTTPError, OSError) as error:
        if repository_fault(error):
            raise
        try:
            folder = Path(snapshot_download(repo, local_files_only=True, **where))
        except OSError:
            raise error from None
        return {
            file.relative_to(folder).as_posix(): file.stat().st_size
            for file in sorted(folder.rglob("*"))
            if file.is_file()
        }


def _hub_reason(error: BaseException, repo: str) -> str:
    if reason := repository_fault(error):
        names = [detector.repo for detector in published_detectors() if detector.repo]
        close = difflib.get_close_matches(repo, names, 1, cutoff=0.8)
        return f"{reason}. Did you mean {close[0]}?" if close and close[0] != repo else reason
    reason = hub_fault(error)
    if reason is None and isinstance(error, OfflineModeIsEnabled | LocalEntryNotFoundError):
        reason = "offline mode is on"
    if reason is None:
        return " ".join(str(error).split())
    return f"{reason}, and the cache (the only source with HF_HUB_OFFLINE=1) does not contain it"
