"""Whether a checkpoint is whole: by its manifest, or by opening its files where it has none."""

import json
from pathlib import Path

from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME
from transformers.utils import (
    ADAPTER_SAFE_WEIGHTS_NAME,
    ADAPTER_WEIGHTS_NAME,
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
    WEIGHTS_INDEX_NAME,
    WEIGHTS_NAME,
)

from hf_gradalign.file_faults import weights_fault
from hf_gradalign.training.checkpoint_manifest import read_manifest

_WEIGHTS = (
    SAFE_WEIGHTS_NAME,
    SAFE_WEIGHTS_INDEX_NAME,
    WEIGHTS_NAME,
    WEIGHTS_INDEX_NAME,
    ADAPTER_SAFE_WEIGHTS_NAME,
    ADAPTER_WEIGHTS_NAME,
    "pytorch_model_fsdp*",
    f"*/{ADAPTER_SAFE_WEIGHTS_NAME}",
    f"*/{ADAPTER_WEIGHTS_NAME}",
)
# What the Trainer saves beside the weights unless told to save them alone: all of it, or none. FSDP has other names.
_TRAINING_STATE = {
    OPTIMIZER_NAME: (OPTIMIZER_NAME, "optimizer.bin", "optimizer_*"),
    SCHEDULER_NAME: (SCHEDULER_NAME,),
    "rng_state.pth": ("rng_state.pth", "rng_state_0.pth"),
}
# transformers' CheckpointManager leaves it where it was interrupted.
_SENTINEL = "checkpoint-is-incomplete.txt"


def shortcomings(checkpoint: Path) -> list[str]:
    """What a checkpoint lacks to be resumed from; empty for a whole one.

    With a manifest, each file on it must be there in its size (JSON files may have been edited, and must parse).
    Without one (an ordinary `Trainer`, or this package before it wrote manifests), each file of a known kind must
    open to its end, and what the Trainer writes must be there, `trainer_state.json`, its last, above all. Optimizer,
    scheduler and random states may be missing together: `save_only_model` leaves them out.

    Args:
        checkpoint: Its folder.

    Returns:
        Short descriptions, each naming a file.
    """
    if not checkpoint.is_dir():
        return ["the folder is missing"]
    manifest = read_manifest(checkpoint)
    if manifest is None:
        return _missing_files(checkpoint) + _broken_files(checkpoint)
    found = []
    for name, size in manifest["files"].items():
        path = checkpoint / name
        if not path.is_file():
            found.append(f"{name} is missing")
        elif path.stat().st_size != size and not (path.suffix == ".json" and _parses(path)):
            found.append(f"{name} has {path.stat().st_size} bytes instead of {size}")
    return found


def _missing_files(checkpoint: Path) -> list[str]:
    found = []
    if not (checkpoint / TRAINER_STATE_NAME).is_file():
        found.append(f"{TRAINER_STATE_NAME} is missing")
    if (checkpoint / _SENTINEL).exists():
        found.append(f"{_SENTINEL} says that it is not finished")
    if not _any_of(checkpoint, _WEIGHTS):
        found.append(f"{SAFE_WEIGHTS_NAME} is missing")
    for index in (checkpoint / SAFE_WEIGHTS_INDEX_NAME, checkpoint / WEIGHTS_INDEX_NAME):
        if index.is_file() and _parses(index):
            shards = set(json.loads(index.read_text(encoding="utf-8")).get("weight_map", {}).values())
            found += [f"{name} is missing" for name in sorted(shards) if not (checkpoint / name).is_file()]
    state = {name: _any_of(checkpoint, names) for name, names in _TRAINING_STATE.items()}
    if any(state.values()) or any(checkpoint.glob("rng_state_*.pth")):
        found += [f"{name} is missing" for name, is_there in state.items() if not is_there]
    return found


def _broken_files(checkpoint: Path) -> list[str]:
    checks = {".json": lambda path: not _parses(path)}
    checks |= dict.fromkeys((".safetensors", ".pt", ".pth", ".bin"), weights_fault)
    files = [path for path in sorted(checkpoint.rglob("*")) if path.suffix in checks and path.is_file()]
    broken = [path for path in files if checks[path.suffix](path)]
    return [f"{path.relative_to(checkpoint).as_posix()} is cut off or damaged" for path in broken]


def _any_of(checkpoint: Path, patterns: tuple[str, ...]) -> bool:
    return any(True for pattern in patterns for _ in checkpoint.glob(pattern))


def _parses(path: Path) -> bool:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


__all__ = ["shortcomings"]
