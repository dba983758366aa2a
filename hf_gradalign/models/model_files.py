"""A model's files, looked at before they are loaded, and loaded without a traceback."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from transformers.utils import (
    CONFIG_NAME,
    FEATURE_EXTRACTOR_NAME,
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
    WEIGHTS_INDEX_NAME,
    WEIGHTS_NAME,
)

from hf_gradalign.utils.file_faults import fault_met_in_loading, json_fault, weights_fault, weights_kind
from hf_gradalign.utils.hub_waits import hub_fault
from hf_gradalign.utils.plain_text import plain_text

# In the order in which transformers takes them; the first that is there counts.
_WEIGHTS = (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME, WEIGHTS_NAME, WEIGHTS_INDEX_NAME)
_ADAPTERS = ("adapter_model.safetensors", "adapter_model.bin")
_SETTINGS = (CONFIG_NAME, FEATURE_EXTRACTOR_NAME, "processor_config.json", "adapter_config.json")
_RENAMED = {"safetensors": SAFE_WEIGHTS_NAME, "torch": WEIGHTS_NAME}
_CHECKPOINT = "checkpoint-"  # as the Trainer names them
_OF_SCRIPTS = (".pth", ".pt", ".ckpt", ".tar")


def require_whole_files(folder: str | Path) -> None:
    """Refuse a model's folder whose files are not what they should be.

    Args:
        folder: The folder.

    Raises:
        OSError: If a file that would be loaded is broken; the message says what it is and what to do.
    """
    folder = Path(folder)
    for name in _SETTINGS:
        path = folder / name
        if _is_there(path) and (fault := json_fault(path)):
            raise OSError(f"{path} {fault}")
    used = [name for name in _WEIGHTS if _is_there(folder / name)][:1]
    used += [name for name in _ADAPTERS if _is_there(folder / name)][:1]
    if not used and (folder / CONFIG_NAME).is_file():
        others = sorted(path.name for path in folder.iterdir() if path.suffix in _OF_SCRIPTS)
        hint = f"; {others[0]} may be what scripts/convert_checkpoint.py converts" if others else ""
        raise OSError(f"{folder} has no weights ({SAFE_WEIGHTS_NAME} or {WEIGHTS_NAME}){hint}")
    if not used and not any(_is_there(folder / name) for name in (CONFIG_NAME, _SETTINGS[-1])):
        _refuse_unfinished_run(folder)
    if used and not any(_is_there(folder / name) for name in (CONFIG_NAME, _SETTINGS[-1])):
        raise OSError(f"{folder} has no {CONFIG_NAME}, without which {used[0]} cannot be loaded")
    for name in used:
        for path in _shards(folder / name) if name.endswith(".index.json") else [folder / name]:
            _require_whole_weights(path)


@contextmanager
def loading_model(name: str, hub_options: Mapping[str, Any]) -> Iterator[None]:
    """Load a model within this, and whatever is wrong with its files is said in one sentence.

    Args:
        name: A folder or a Hub id.
        hub_options: `revision`, `cache_dir` and others.

    Raises:
        OSError: If there is no such model, or it cannot be loaded.
        ValueError: If transformers does not know the model, or the arguments are wrong.
    """
    path = Path(name)
    if path.is_dir():
        require_whole_files(path)
    elif path.is_file():
        raise OSError(
            f"{name} is a file, and a model is a folder (with {CONFIG_NAME}) or a Hub id. "
            "scripts/convert_checkpoint.py makes one of a published checkpoint"
        )
    try:
        yield
    except Exception as error:  # a damaged file fails in every way
        if not path.is_dir() and (snapshot := _in_cache(name, hub_options)):
            require_whole_files(snapshot)
        kind = ValueError if isinstance(error, ValueError) else OSError
        here = "" if path.exists() else f" (there is no folder {path.absolute()})"
        if not path.exists() and (fault := hub_fault(error)):
            what = f"{fault}. Not all of the model is in the cache, which HF_HUB_OFFLINE=1 takes alone"
        elif "ignore_mismatched_sizes" in str(error):
            what = f"its weights have other shapes than its {CONFIG_NAME} says: download the model again"
        elif isinstance(error, OSError | ValueError | ImportError):
            what = plain_text(error).strip()
        else:
            what = f"it {fault_met_in_loading(error)}"
        raise kind(f"cannot load the model {name}{here}: {what}") from error


def _refuse_unfinished_run(folder: Path) -> None:
    """Name the best checkpoint of a run that has checkpoints and no model of its own yet."""
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
        pass  # nothing was evaluated yet
    raise OSError(
        f"{folder} is a run that is not finished yet. Its {which} checkpoint so far is "
        f"{folder / f'{_CHECKPOINT}{best}'}: name that one, or let the run finish"
    )


def _require_whole_weights(path: Path) -> None:
    if fault := weights_fault(path):
        raise OSError(f"{path} {fault}")
    kind, named = weights_kind(path), "safetensors" if path.suffix == ".safetensors" else "torch"
    if kind != named:
        is_what = "holds safetensors" if kind == "safetensors" else "holds what torch.save writes"
        raise OSError(f"{path} {is_what}, which its name does not say: rename it to {_RENAMED[kind]}")


def _shards(index: Path) -> list[Path]:
    if fault := json_fault(index):
        raise OSError(f"{index} {fault}")
    names = json.loads(index.read_text(encoding="utf-8")).get("weight_map")
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise OSError(f"{index} has no weight_map from the names of weights to their files: download it again")
    return [index.with_name(name) for name in sorted(set(names.values()))]


def _is_there(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def _in_cache(name: str, hub_options: Mapping[str, Any]) -> Path | None:
    options = {key: hub_options.get(key) for key in ("cache_dir", "revision")}
    try:
        found = try_to_load_from_cache(name, CONFIG_NAME, **options)
    except ValueError:  # no name of a repository
        return None
    return Path(found).parent if isinstance(found, str) else None
