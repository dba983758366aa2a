"""Uploads a model's folder to the Hub, without this machine's paths, and with errors that say what to do next."""

import contextlib
import json
import os
import re
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
)
from huggingface_hub.utils import filter_repo_objects, validate_repo_id

from hf_gradalign.utils.files import link_or_copy, require_reachable
from hf_gradalign.utils.hub_waits import NO_HUB, HubNotReachedError
from hf_gradalign.utils.messages import join_command
from hf_gradalign.utils.plain_text import one_line, shorten_local_paths

# Other output of a training run. Pickles (optimizer, scheduler, random states, training arguments) are useless to users
# of the model, and nobody should have to trust them. `*` also matches slashes in the Hub's patterns.
IGNORED_PATTERNS: tuple[str, ...] = (
    "checkpoint-*",
    "best_checkpoints/*",
    "runs/*",
    "_*",
    "*tfevents*",
    "*.bin",
    "*.pt",
    "*.pth",
    "*.pkl",
    "*.lock",
    "*.holder",
    "run_arguments.json",
    "trainer_state.json",
    "*.DS_Store",  # macOS adds it to folders that it shows
)
_SAFE_FORMS = {
    "pytorch_model.bin": "model.safetensors",
    "pytorch_model.bin.index.json": "model.safetensors.index.json",
    "adapter_model.bin": "adapter_model.safetensors",
}
# Files that people and runs write. A model's vocabulary files are left unchanged.
_TEXTS = {".json", ".jsonl", ".md", ".txt", ".tsv", ".csv", ".yaml", ".yml", ".log"}
_OF_THE_MODEL = re.compile(r"vocab|merges|token|\.index\.json$")
_MAX_BYTES = 200_000_000
# Without these there is no model.
_NEEDED = ("README.md", "config.json", "adapter_config.json", "preprocessor_config.json")


class PublishingError(RuntimeError):
    """The model could not be published. The message says why, where the model is, and how to push it later."""


def publish(
    folder: str | os.PathLike[str],
    repo_id: str,
    *,
    token: str | None = None,
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str = "Upload model trained with hf_gradalign",
) -> str:
    """Upload a model's folder to the Hub in one commit. Creates the repository and the branch if missing.

    Checkpoints, logs, pickles and names that start with an underscore are not uploaded (`IGNORED_PATTERNS`). In texts,
    absolute paths of this machine are cut to their last names. The folder itself does not change.

    Args:
        folder: The folder with the model, its configuration and its README.
        repo_id: `namespace/name`, or `name` for the namespace of the token's owner.
        token: Access token with write permission. None uses `HF_TOKEN`, or the token from `hf auth login`.
        private: Whether a new repository is private. None uses the namespace's default.
        revision: The branch. None for the main branch.
        commit_message: The commit's first line.

    Returns:
        The URL of the repository, or of its branch.

    Raises:
        FileNotFoundError: If there is no such folder.
        PublishingError: If the model's weights are a pickle, they are adapters of a model that exists only on this
            machine, or the upload fails for any other reason.
    """
    folder = Path(folder)
    require_reachable(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder} to publish.")
    _refuse_incomplete_model(folder)
    later = push_command(folder, _name_to_suggest(repo_id), private=private, revision=revision)
    advice = f"\nThe trained model is safe in {folder}. To push it later:\n    {later}"
    with publishing_errors(repo_id, token, advice):
        api = HfApi(token=token)
        repo = api.create_repo(repo_id, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repo.repo_id, branch=revision, exist_ok=True)
        with _without_local_paths(folder) as cleaned:
            api.upload_folder(
                repo_id=repo.repo_id,
                folder_path=cleaned,
                revision=revision,
                commit_message=commit_message,
                ignore_patterns=list(IGNORED_PATTERNS),  # a copy: the client appends to it
            )
    return str(repo) if revision is None else f"{repo}/tree/{revision}"


def check_access(repo_id: str, token: str | None = None, *, private: bool | None = None) -> None:
    """Check before training that the model can be published afterwards. Creates the repository.

    Args:
        repo_id: See `publish`.
        token: See `publish`.
        private: See `publish`.

    Raises:
        PublishingError: If the Hub cannot be reached, or the token may not write to the repository.
    """
    with publishing_errors(repo_id, token, "\nFix this, or train without publishing."):
        api = HfApi(token=token)
        repo = api.create_repo(repo_id, private=private, exist_ok=True)
        # If the repository exists, the call above does not check the permission to write.
        api.auth_check(repo.repo_id, write=True)


def push_command(
    folder: str | os.PathLike[str], repo_id: str, *, private: bool | None = None, revision: str | None = None
) -> str:
    """Return the shell command that uploads the same files as `publish`, with huggingface_hub's command line.

    Args:
        folder: See `publish`.
        repo_id: See `publish`.
        private: See `publish`.
        revision: See `publish`.

    Returns:
        One line for this system's shell, which works in any folder.
    """
    command = ["hf", "upload", repo_id, str(Path(folder).resolve()), "."]
    private_files = [
        path.relative_to(folder).as_posix() for path in files_with_local_paths(_pushed_files(Path(folder)))
    ]
    for pattern in [*IGNORED_PATTERNS, *(name for name in private_files if name not in _NEEDED)]:
        command += ["--exclude", pattern]
    if private is not None:
        command.append("--private" if private else "--no-private")
    if revision is not None:
        command += ["--revision", revision]
    return join_command(command)


def _refuse_incomplete_model(folder: Path) -> None:
    """Raise PublishingError for a model whose weights, or whose adapters' base model, would stay on this machine."""
    safe_weights = [name for name in _SAFE_FORMS.values() if (folder / name).exists()]
    for pickled, safe in _SAFE_FORMS.items():
        if (folder / pickled).exists() and not safe_weights:
            raise PublishingError(
                f"{folder} has only {pickled}, a pickle, which is not published: users would have to trust it. Load "
                f"the model in Python, and save it with save_pretrained, which writes {safe}"
            )
    if safe_weights != ["adapter_model.safetensors"]:
        return
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # loading reports broken settings better
        settings = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        base = Path(settings["base_model_name_or_path"])
        # Training writes the whole path of a folder, so `org/name` is on the Hub, even if a clone of it is here.
        is_of_hub = len(base.parts) == 2 and ".." not in base.parts
        if base.is_absolute() or (base.exists() and not is_of_hub) or (folder / base).exists():
            raise PublishingError(
                f"{folder} contains PEFT adapters for the model {base}, which is on this machine only: publish the "
                "merged model, or the base model first, and train from there"
            )


def _pushed_files(folder: Path) -> list[Path]:
    names = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file())
    return [folder / name for name in filter_repo_objects(names, ignore_patterns=list(IGNORED_PATTERNS))]


@contextmanager
def _without_local_paths(folder: Path) -> Generator[Path]:
    """Yield the folder, or a temporary one with links to its files if some of them must be cleaned."""
    if not files_with_local_paths(_pushed_files(folder)):
        yield folder
        return
    with TemporaryDirectory(prefix="hf_gradalign_push_") as temporary:
        stage_model(folder, Path(temporary))
        yield Path(temporary)


def stage_model(folder: Path, target: Path) -> None:
    """Fill a folder with what `publish` uploads: links to files, and copies of those that must be cleaned.

    Raises:
        PublishingError: If the model's weights are a pickle, or adapters of a model that exists only on this machine.
    """
    _refuse_incomplete_model(folder)
    pushed = _pushed_files(folder)
    cleaned = files_with_local_paths(pushed)
    for path in pushed:
        staged = target / path.relative_to(folder)
        staged.parent.mkdir(parents=True, exist_ok=True)
        if path in cleaned:
            staged.write_text(cleaned[path], encoding="utf-8", newline="\n")
        else:
            link_or_copy(path, staged)


@contextmanager
def publishing_errors(repo_id: str, token: str | None, advice: str) -> Generator[None]:
    """Turn any error of an upload into a `PublishingError` with the reason and the advice."""
    try:
        yield
    except PublishingError:
        raise
    except Exception as error:  # storage backends raise errors of their own, and the advice must always appear
        raise PublishingError(f"Cannot publish to '{repo_id}': {_reason(error, token)}{advice}") from error


def _reason(error: Exception, token: str | None) -> str:
    login = (
        "run `hf auth login`, or set HF_TOKEN, with a token that has write permission (huggingface.co/settings/tokens)."
    )
    if isinstance(error, HubNotReachedError):
        return f"{error}. Check the network connection."
    if isinstance(error, OfflineModeIsEnabled):
        return "offline mode is on. Unset HF_HUB_OFFLINE to reach the Hub."
    if isinstance(error, HFValidationError):
        return f"this is not a valid name for a repository, which looks like 'namespace/name'. {error}"
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if isinstance(error, LocalTokenNotFoundError) or (status == 401 and (token or get_token()) is None):
        return f"no access token was found. Please {login}"
    if status == 401:
        return f"the Hub refused the access token (401). It may be mistyped, expired or revoked: {login}"
    if status == 403:
        return (
            "the access token has no permission to write there (403). Use a token with write permission, and a "
            "namespace that belongs to you or your organization."
        )
    if status is not None:
        return f"the Hub answered {status}. {one_line(error)}"
    if isinstance(error, json.JSONDecodeError):
        return f"{NO_HUB.format(constants.ENDPOINT)}. {one_line(error)}"
    if isinstance(error, HTTPError):
        return (
            f"the Hub at {constants.ENDPOINT} cannot be reached ({type(error).__name__}: {one_line(error)}). "
            "Check the network connection."
        )
    return f"{type(error).__name__}: {one_line(error)}"


def _name_to_suggest(repo_id: str) -> str:
    try:
        validate_repo_id(repo_id)
    except HFValidationError:
        return "your-name/your-model"
    return repo_id


def files_with_local_paths(paths: Iterable[Path]) -> dict[Path, str]:
    """Return the files that name absolute paths of this machine, with their cleaned text."""
    cleaned = {}
    for path in paths:
        is_text = path.suffix in _TEXTS and not _OF_THE_MODEL.search(path.name)
        is_result = ".eval_results" in path.parts  # their record contains the hashes
        if not is_text or is_result or path.stat().st_size > _MAX_BYTES:
            continue
        with contextlib.suppress(UnicodeDecodeError):
            text = path.read_bytes().decode("utf-8")
            if (clean := shorten_local_paths(text)) != text:
                cleaned[path] = clean
    return cleaned
