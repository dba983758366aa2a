"""Loads published checkpoints by name. Each is converted into a cache on first use."""

import difflib
import functools
import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers.utils import CONFIG_NAME, logging

from hf_gradalign.conversion.card import conversion_facts, save_converted
from hf_gradalign.conversion.converting import conversion_arguments, convert_state_dict
from hf_gradalign.conversion.finding import (
    CHECKPOINT_SUFFIXES,
    Checkpoint,
    checkpoint_files,
    locate_checkpoint,
    split_source,
)
from hf_gradalign.conversion.layouts import detect_head
from hf_gradalign.conversion.published import PublishedDetector, card_facts, find_by_file, find_by_repo
from hf_gradalign.conversion.reading import ConversionError, read_state_dict
from hf_gradalign.models.configuration_spoof_detector import SpoofDetectorConfig
from hf_gradalign.models.model_files import loading_model
from hf_gradalign.utils.file_faults import json_fault, weights_kind
from hf_gradalign.utils.file_locks import hold_lock
from hf_gradalign.utils.files import flush_to_disk, remove_tree, replace_atomically, require_reachable, sha256_of
from hf_gradalign.utils.messages import require_space
from hf_gradalign.utils.plain_text import plain_text

logger = logging.get_logger(__name__)

CACHE_VARIABLE = "HF_GRADALIGN_CACHE"
RECORD_NAME = "conversion.json"
HUB_OPTIONS = ("revision", "token", "cache_dir", "trust_remote_code", "conversion_options")
"""The options for loading any model by name. transformers models also take those of `from_pretrained`."""
_ADAPTER_CONFIG = "adapter_config.json"
_KEYS_SHOWN = 5
_SIMILAR = 0.8  # of mistyped options; transformers' `code_revision` has a similarity of 0.76 to `revision`


def model_folder(name: str, hub_options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return what transformers loads for a name: the name itself, or a converted published checkpoint.

    Args:
        name: A Hub id or a folder of a model for transformers; or a published checkpoint: a file, a folder with one,
            `org/repo` or `org/repo:filename` on the Hub.
        hub_options: `revision`, `token`, `cache_dir`, `trust_remote_code`; and `conversion_options`, options of
            `convert_state_dict` or of its head, if those of a published checkpoint are not the published ones. A model
            for transformers may have further options of `from_pretrained`, such as `local_files_only`.

    Returns:
        The name and its Hub options; for a published checkpoint, a folder in the cache and no options.

    Raises:
        ConversionError: If it is neither. The message lists what was found and why it fits no layout.
        OSError: If there is no such model, or the cache cannot be written.
        TypeError: If an option looks mistyped, or a published checkpoint does not take it.
    """
    options = dict(hub_options)
    others = sorted(options.keys() - set(HUB_OPTIONS))
    for option in others:  # a mistyped revision would load another version
        if meant := difflib.get_close_matches(option, HUB_OPTIONS, n=1, cutoff=_SIMILAR):
            raise TypeError(f"there is no option {option} for loading a model: did you mean {meant[0]}?")
    given = options.pop("conversion_options", None) or {}
    if _is_for_transformers(name, options):
        if given:
            raise ConversionError(
                f"{name} is a transformers model, not a published checkpoint: remove --conversion_options"
            )
        return name, options
    if others:  # it would have no effect
        raise TypeError(
            f"{name} is not a transformers model, and published checkpoints have no option {others[0]}; available: "
            f"{', '.join(HUB_OPTIONS)}"
        )
    where = {key: options.get(key) for key in ("revision", "token", "cache_dir")}
    checkpoint = locate_checkpoint(name, **where)
    return str(_convert_once(checkpoint, name, given)), {}


def cache_folder() -> Path:
    """Return the folder of converted checkpoints: `HF_GRADALIGN_CACHE`, or `hf_gradalign` next to the Hub's cache."""
    given = os.environ.get(CACHE_VARIABLE)
    return Path(given).expanduser() if given else Path(constants.HF_HOME) / "hf_gradalign"


def _is_for_transformers(name: str, hub_options: Mapping[str, Any]) -> bool:
    path = Path(name)
    require_reachable(path)
    if path.is_file():
        return False
    if path.is_dir():
        return _folder_is_for_transformers(path)
    repo, filename = split_source(name)
    if filename or name.endswith(CHECKPOINT_SUFFIXES) or find_by_repo(repo):
        return False
    where = {key: hub_options.get(key) for key in ("revision", "token", "cache_dir")}
    with loading_model(name, hub_options):
        return any(_is_settings_of_a_model(repo, file, where) for file in _SETTINGS)


_SETTINGS = (CONFIG_NAME, _ADAPTER_CONFIG)


def _is_settings_of_a_model(repo: str, filename: str, where: dict[str, Any]) -> bool:
    """Return whether a repository has a settings file for transformers or PEFT; without asking the Hub if cached."""
    in_cache = try_to_load_from_cache(repo, filename, cache_dir=where["cache_dir"], revision=where["revision"])
    if isinstance(in_cache, str):
        return _names_a_model(Path(in_cache))
    try:
        return _names_a_model(Path(hf_hub_download(repo, filename, **where)))
    except LocalEntryNotFoundError:  # the Hub cannot be reached
        if in_cache is not None:  # the cache knows that the repository does not have the file
            return False
        raise
    except EntryNotFoundError:
        return False


def _names_a_model(settings: Path) -> bool:
    """Return whether a settings file is for transformers or PEFT. A broken file counts, so that loading reports it."""
    if json_fault(settings):
        return True
    content = json.loads(settings.read_text(encoding="utf-8"))
    return settings.name == _ADAPTER_CONFIG or bool({"model_type", "auto_map"} & set(content))


def _folder_is_for_transformers(folder: Path) -> bool:
    settings = [folder / name for name in _SETTINGS if (folder / name).exists() or (folder / name).is_symlink()]
    if not settings:
        is_run = any(folder.glob("checkpoint-*"))
        return is_run or not checkpoint_files(path.name for path in folder.iterdir())
    return any(map(_names_a_model, settings)) and not _is_published_layout(folder / "model.safetensors")


def _is_published_layout(path: Path) -> bool:
    """Return whether a safetensors file has the keys of a published detector, judged only by its header."""
    if not path.is_file() or weights_kind(path) != "safetensors":
        return False
    try:
        with safe_open(path, "pt") as file:
            detect_head(dict.fromkeys(file.keys(), torch.empty(0)))
    except (SafetensorError, OSError, ConversionError):
        return False
    return True


def _convert_once(checkpoint: Checkpoint, name: str, given: Mapping[str, Any]) -> Path:
    """Return the folder of a converted checkpoint, and convert it first if it is not in the cache."""
    digest = _digest(checkpoint)
    detector, is_the_published = identify(checkpoint, digest)
    options = {**(detector.options if detector else {}), **given}
    what = json.dumps([options, detector.name if detector else None], sort_keys=True, default=str)
    stem = f"{digest[:16]}-{hashlib.sha256(what.encode()).hexdigest()[:8]}"
    folder = cache_folder() / f"{stem}-{_converter_version()}"
    if (folder / CONFIG_NAME).is_file():
        logger.info(f"{name} ({checkpoint.source}, SHA-256 {digest}) was converted before: using {folder}")
        return folder
    _refuse_file_of_a_model(checkpoint, name)
    size = checkpoint.path.stat().st_size
    try:
        require_space(folder.parent, size)
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:  # the usual advice is about output folders
        raise OSError(
            f"{name} cannot be converted into the cache {folder.parent} ({error}): choose another folder with "
            f"{CACHE_VARIABLE}"
        ) from error
    with hold_lock(folder.with_name(f"{folder.name}.lock"), str(folder), _log_waiting):
        if not (folder / CONFIG_NAME).is_file():  # another process may have converted it in the meantime
            facts = card_facts(detector) if detector and is_the_published else {}
            if detector and detector.options and not is_the_published:
                logger.warning(
                    f"{checkpoint.source} is named like a file of {detector.name} and is converted with its options. "
                    "Whether it is the published file is not known."
                )
            _convert(checkpoint, name, digest, options, facts, folder)
            for older in folder.parent.glob(f"{stem}-*"):
                if older.is_dir() and older != folder:
                    remove_tree(older)
    return folder


def identify(checkpoint: Checkpoint, sha256: str) -> tuple[PublishedDetector | None, bool]:
    """Return the detector of the table that a checkpoint contains, and whether that is certain.

    The repository or the hash makes it certain, but a file's name does not.
    """
    detector = find_by_repo(checkpoint.repo) if checkpoint.repo else None
    if detector is not None and detector.has_file(checkpoint.filename):
        return detector, True
    detector = find_by_file(checkpoint.path.name, sha256)
    return detector, detector is not None and any(sha256.startswith(start) for start in detector.sha256)


def _convert(
    checkpoint: Checkpoint,
    name: str,
    digest: str,
    options: Mapping[str, Any],
    known: Mapping[str, Any],
    folder: Path,
) -> None:
    start = time.monotonic()
    logger.warning(f"{name}: converting {checkpoint.source} (SHA-256 {digest}) on first use ...")
    _warn_about_change(checkpoint, digest, folder.parent)
    state = read_state_dict(checkpoint.path)
    try:
        model, report = convert_state_dict(state, **conversion_arguments(options))
    except ValueError as error:
        raise ConversionError(_failure_message(checkpoint, state, name, error)) from error
    del state
    facts = conversion_facts(
        report,
        known,
        title=f"{Path(checkpoint.filename).stem}: a converted {report.head} detector",
        source=checkpoint.source,
        load_from=name,
        n_samples=model.config.n_samples,
        revision=checkpoint.commit,
        sha256={checkpoint.filename: digest},
    )
    record = {
        "name": name,
        "source": checkpoint.source,
        "commit": checkpoint.commit,
        "sha256": digest,
        "options": dict(options),
        "report": str(report),
    }
    with replace_atomically(folder) as draft:
        save_converted(model, draft, facts)
        (draft / RECORD_NAME).write_text(json.dumps(record, indent=2, default=str) + "\n", encoding="utf-8")
        for file in sorted(draft.iterdir()):
            flush_to_disk(file)
    flush_to_disk(folder.parent)
    assumed = ", ".join(f"{setting} {value}" for setting, value in report.assumed.items())
    logger.warning(
        f"{name}: converted in {time.monotonic() - start:.0f} s into {folder}, which is used from now on."
        + (f" Not in the file, and assumed as published: {assumed}." if assumed else "")
    )


def _digest(checkpoint: Checkpoint) -> str:
    status = checkpoint.path.stat()
    digest = _sha256(str(checkpoint.path.resolve()), status.st_ino, status.st_size, status.st_mtime_ns)
    blob = checkpoint.path.resolve().name  # for large files, the Hub's cache names them by their hash
    if checkpoint.repo and len(blob) == len(digest) and blob != digest:
        raise ConversionError(
            f"{checkpoint.path} is damaged: its SHA-256 is {digest}, but the Hub has {blob}. Delete it, so that it is "
            "downloaded again"
        )
    return digest


@functools.lru_cache(maxsize=64)
def _sha256(path: str, inode: int, size: int, modified: int) -> str:
    return sha256_of(path)


@functools.cache
def _converter_version() -> str:
    """Return a hash of the converting code, so that checkpoints converted by an older version are converted again."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:8]


def _warn_about_change(checkpoint: Checkpoint, digest: str, cache: Path) -> None:
    """Warn if a file on the Hub has changed since it was converted earlier."""
    if checkpoint.repo is None:
        return
    for path in cache.glob(f"*/{RECORD_NAME}"):
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["source"] == checkpoint.source and record["sha256"] != digest:
            logger.warning(
                f"{checkpoint.source} has other content at commit {checkpoint.commit} than at {record['commit']}, "
                f"which was used before (SHA-256 {record['sha256']}). To keep using that commit, pass it as the "
                "revision."
            )


def _log_waiting(holder: str) -> None:
    logger.warning(f"Waiting for {holder}, which converts the same checkpoint.")


def _refuse_file_of_a_model(checkpoint: Checkpoint, name: str) -> None:
    """Raise ConversionError for the weights file in the folder of a detector of this package."""
    beside = checkpoint.path.with_name(CONFIG_NAME)
    if (
        Path(name).is_file()
        and beside.is_file()
        and SpoofDetectorConfig.model_type in beside.read_text("utf-8", "replace")
    ):
        raise ConversionError(f"{name} is a file, but a model is a folder: pass {checkpoint.path.parent}")


def _failure_message(checkpoint: Checkpoint, state: Mapping[str, Tensor], name: str, error: Exception) -> str:
    first = ", ".join(f"{plain_text(key)} {tuple(value.shape)}" for key, value in list(state.items())[:_KEYS_SHOWN])
    parts = [
        f"{checkpoint.source} is not a published checkpoint that can be converted: {str(error).rstrip('.')}.",
        f"It has {len(state)} entries, first {first}.",
        "`hf-gradalign detectors` lists what can be loaded",
    ]
    if not Path(name).is_file():
        parts.insert(0, f"{name} has no {CONFIG_NAME}, which is needed to load it with transformers.")
    elif checkpoint.path.with_name(CONFIG_NAME).is_file():
        parts.insert(0, f"If {name} belongs to a transformers model, pass its folder, {checkpoint.path.parent}.")
    if checkpoint.listing:
        parts.insert(-1, f"{name} has: {checkpoint.listing}.")
    return " ".join(parts)
