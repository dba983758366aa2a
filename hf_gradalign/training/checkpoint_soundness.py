"""Whether a checkpoint is whole and sound: by its manifest, or by opening its files where it has none."""

import json
from fnmatch import fnmatch
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

from hf_gradalign.training.checkpoint_manifest import MANIFEST_NAME, Manifest, read_manifest, sha256_of
from hf_gradalign.utils.file_faults import weights_fault

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


# A user may edit these; a resumed run takes nothing from them.
_EDITABLE = ("*config*.json", "*.md")
# What has no say where the weights alone are loaded.
_OF_TRAINING = ("optimizer*", "scheduler*", "rng_state*", "scaler*", "*_state.json", "process_states.json")


def shortcomings(checkpoint: Path, contents: bool = True) -> list[str]:
    """What a checkpoint lacks to be resumed from; empty for a whole one.

    With a manifest, each file on it must be there with the content that was saved (configurations may have been
    edited, and must parse). Manifests of older versions tell the size alone. Without one (an ordinary `Trainer`, or
    this package before it wrote manifests), each file of a known kind must open to its end, and what the Trainer
    writes must be there, `trainer_state.json`, its last, above all. Optimizer, scheduler and random states may be
    missing together: `save_only_model` leaves them out.

    Args:
        checkpoint: Its folder.
        contents: Whether to read all files for their digests, which takes about as long as loading them; else their
            sizes are compared.

    Returns:
        Short descriptions, each beginning with a file's name.
    """
    if not checkpoint.is_dir():
        return ["the folder is missing"]
    manifest = read_manifest(checkpoint)
    if manifest is not None:
        faults = ((name, _fault(checkpoint, manifest, name, contents)) for name in manifest["files"])
        return [f"{name} {fault}" for name, fault in faults if fault]
    if (checkpoint / MANIFEST_NAME).exists():
        return [f"{MANIFEST_NAME} is damaged, and nothing else can be checked"]
    return _missing_files(checkpoint) + _broken_files(checkpoint)


def weights_shortcomings(checkpoint: Path) -> list[str]:
    """The same for one whose model alone is loaded: what only training needs may be damaged."""
    return [
        found for found in shortcomings(checkpoint) if not any(fnmatch(found, f"{name} *") for name in _OF_TRAINING)
    ]


def edited_files(checkpoint: Path) -> list[str]:
    """Configurations and cards of a checkpoint that are not as they were saved: edited, or damaged."""
    digests = (read_manifest(checkpoint) or {}).get("sha256", {})
    there = [name for name in digests if any(fnmatch(Path(name).name, pattern) for pattern in _EDITABLE)]
    return [name for name in there if (checkpoint / name).is_file() and sha256_of(checkpoint / name) != digests[name]]


def _fault(checkpoint: Path, manifest: Manifest, name: str, contents: bool) -> str | None:
    path = checkpoint / name
    if not path.is_file():
        return "is missing"
    if any(fnmatch(path.name, pattern) for pattern in _EDITABLE):
        return None if path.suffix != ".json" or _parses(path) else "is cut off or damaged"
    digests = manifest.get("sha256")
    try:
        size = path.stat().st_size
    except FileNotFoundError:  # the run that it is of goes on, and has just moved or deleted it
        return "is missing"
    if size != manifest["files"][name]:
        return f"has {size} bytes instead of {manifest['files'][name]}"
    if not contents or digests is None:
        return None
    try:
        is_same = sha256_of(path) == digests.get(name)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None if is_same else "is damaged: its content is not what was saved"


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
    except (OSError, ValueError, RecursionError):
        return False
    return True


__all__ = ["shortcomings", "weights_shortcomings"]
