"""Checks a model's files before they are loaded, and turns loading errors into clear messages."""

import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from transformers.utils import (
    CONFIG_NAME,
    FEATURE_EXTRACTOR_NAME,
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
    WEIGHTS_INDEX_NAME,
    WEIGHTS_NAME,
)

from hf_gradalign.utils.file_faults import describe_loading_error, json_fault, weights_fault, weights_kind
from hf_gradalign.utils.files import require_reachable
from hf_gradalign.utils.folder_listing import similar_path
from hf_gradalign.utils.hub_waits import hub_fault, repository_fault
from hf_gradalign.utils.plain_text import plain_text

WEIGHTS = (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME, WEIGHTS_NAME, WEIGHTS_INDEX_NAME)
"""Files of weights, in the order in which transformers looks for them. The first one that exists is used."""
_ADAPTERS = ("adapter_model.safetensors", "adapter_model.bin")
_SETTINGS = (CONFIG_NAME, FEATURE_EXTRACTOR_NAME, "processor_config.json", "adapter_config.json")
_RENAMED = {"safetensors": SAFE_WEIGHTS_NAME, "torch": WEIGHTS_NAME}
_CHECKPOINT = "checkpoint-"  # the prefix that the Trainer uses
_PUBLISHED = (".pth", ".pt", ".ckpt", ".tar")


def require_whole_files(folder: str | Path, *, may_lack_files: bool = False) -> None:
    """Check the files in a model's folder.

    Args:
        folder: The folder.
        may_lack_files: Whether files may be missing, as in the Hub's cache, which only has what was asked for.

    Raises:
        OSError: If a file that would be loaded is broken; the message says what is wrong and what to do.
    """
    folder = Path(folder)
    for name in _SETTINGS:
        path = folder / name
        if _exists(path) and (fault := json_fault(path)):
            raise OSError(f"{path} {fault}")
    used = [name for name in WEIGHTS if _exists(folder / name)][:1]
    used += [name for name in _ADAPTERS if _exists(folder / name)][:1]
    if not may_lack_files:
        _require_model(folder, used)
    for name in used:
        for path in _shards(folder / name) if name.endswith(".index.json") else [folder / name]:
            if not may_lack_files or _exists(path):
                _require_whole_weights(path)


def _require_model(folder: Path, used: Sequence[str]) -> None:
    """Raise OSError if a folder lacks the weights or the settings of a model."""
    if not used and (folder / CONFIG_NAME).is_file():
        others = sorted(path.name for path in folder.iterdir() if path.suffix in _PUBLISHED)
        hint = f"; a published checkpoint loads by its own path, {folder / others[0]}" if others else ""
        raise OSError(f"{folder} has no weights ({SAFE_WEIGHTS_NAME} or {WEIGHTS_NAME}){hint}")
    if not used and not any(_exists(folder / name) for name in (CONFIG_NAME, _SETTINGS[-1])):
        _refuse_unfinished_run(folder)
        _refuse_other_folder(folder)
    if used and not any(_exists(folder / name) for name in (CONFIG_NAME, _SETTINGS[-1])):
        raise OSError(f"{folder} has no {CONFIG_NAME}, which is needed to load {used[0]}")


@contextmanager
def loading_model(name: str, hub_options: Mapping[str, Any]) -> Generator[None]:
    """Turn any error while a model is loaded into one sentence about its files.

    Args:
        name: A folder or a Hub id.
        hub_options: `revision`, `cache_dir` and others.

    Raises:
        OSError: If there is no such model, or it cannot be loaded.
        ValueError: If transformers does not know the model, or an argument is invalid.
    """
    path = Path(name)
    require_reachable(path)
    if path.is_dir():
        require_whole_files(path)
    elif path.is_file():
        raise OSError(f"{name} is a file, but a model is a folder (with {CONFIG_NAME}) or a Hub id")
    try:
        yield
    except Exception as error:  # damaged files raise many types
        if not path.is_dir() and (snapshot := cached_snapshot(name, hub_options)):
            require_whole_files(snapshot, may_lack_files=True)
        is_no_id = isinstance(error, HFValidationError)
        kind = ValueError if isinstance(error, ValueError) and not is_no_id else OSError
        hint = similar_path(path)
        here = "" if path.exists() else f" (there is no folder {path.absolute()}{hint and '.' + hint})"
        if is_no_id:
            what = "it is not a Hub id either"
        elif not path.exists() and (fault := repository_fault(error)):
            what = fault
        elif not path.exists() and (fault := hub_fault(error)):
            what = f"{fault}. The cache, which HF_HUB_OFFLINE=1 uses alone, does not contain the whole model"
        elif "ignore_mismatched_sizes" in str(error):
            what = f"the shapes of its weights differ from its {CONFIG_NAME}: download the model again"
        elif isinstance(error, OSError | ValueError | ImportError):
            what = plain_text(error).strip()
        else:
            what = f"it {describe_loading_error(error)}"
        raise kind(f"cannot load the model {name}{here}: {what}") from error


def _refuse_unfinished_run(folder: Path) -> None:
    """Raise OSError for a run that has checkpoints but no final model yet, and name its best checkpoint."""
    steps = sorted(
        int(path.name.removeprefix(_CHECKPOINT))
        for path in folder.glob(f"{_CHECKPOINT}*")
        if path.name.removeprefix(_CHECKPOINT).isdecimal()
        and any((path / name).is_file() for name in (CONFIG_NAME, _SETTINGS[-1]))
    )
    if not steps:
        return
    best, which = steps[-1], "last"
    try:
        state = json.loads((folder / f"{_CHECKPOINT}{best}" / "trainer_state.json").read_text(encoding="utf-8"))
        step = int(Path(state["best_model_checkpoint"]).name.removeprefix(_CHECKPOINT))
        best, which = (step, "best") if step in steps else (best, which)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass  # there was no evaluation yet
    raise OSError(
        f"{folder} is an unfinished run. Its {which} checkpoint so far is {folder / f'{_CHECKPOINT}{best}'}: use that "
        "one, or let the run finish"
    )


def _refuse_other_folder(folder: Path) -> None:
    """Raise OSError for a folder without any file of a model, and name a model in it."""
    if any(_exists(folder / name) for name in _SETTINGS):
        return
    within = sorted(path.parent for path in folder.glob(f"*/{CONFIG_NAME}"))
    hint = f". It contains models, such as {within[0]}" if within else ""
    raise OSError(f"{folder} is not a model's folder: it has no {CONFIG_NAME}{hint}")


def _require_whole_weights(path: Path) -> None:
    if fault := weights_fault(path):
        raise OSError(f"{path} {fault}")
    kind, named = weights_kind(path), "safetensors" if path.suffix == ".safetensors" else "torch"
    if kind is not None and kind != named:
        written_by = "safetensors" if kind == "safetensors" else "torch.save"
        raise OSError(f"{path} is a file from {written_by}, unlike its name: rename it to {_RENAMED[kind]}")


def _shards(index: Path) -> list[Path]:
    if fault := json_fault(index):
        raise OSError(f"{index} {fault}")
    names = json.loads(index.read_text(encoding="utf-8")).get("weight_map")
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise OSError(f"{index} has no weight_map with the files of all weights: download it again")
    return [index.with_name(name) for name in sorted(set(names.values()))]


def _exists(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def cached_snapshot(name: str, hub_options: Mapping[str, Any]) -> Path | None:
    """Return the folder of a model in the Hub's cache, which has the name of its commit; None if it is not there."""
    options = {key: hub_options.get(key) for key in ("cache_dir", "revision")}
    try:
        file = try_to_load_from_cache(name, CONFIG_NAME, **options)
    except ValueError:  # not the name of a repository
        return None
    return Path(file).parent if isinstance(file, str) else None
