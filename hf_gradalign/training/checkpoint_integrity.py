"""Check that a checkpoint is complete and undamaged: by its manifest or, without one, by opening its files."""

import json
from fnmatch import fnmatch
from pathlib import Path
from typing import TypedDict, cast

from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME
from transformers.utils import (
    ADAPTER_SAFE_WEIGHTS_NAME,
    ADAPTER_WEIGHTS_NAME,
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
    WEIGHTS_INDEX_NAME,
    WEIGHTS_NAME,
)

from hf_gradalign.utils.file_faults import weights_fault
from hf_gradalign.utils.files import flush_to_disk, sha256_of, write_text_atomically

MANIFEST_NAME = "checkpoint_manifest.json"

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
# The Trainer saves all of these next to the weights, or none (`save_only_model`). FSDP uses other names.
_TRAINING_STATE = {
    OPTIMIZER_NAME: (OPTIMIZER_NAME, "optimizer.bin", "optimizer_*"),
    SCHEDULER_NAME: (SCHEDULER_NAME,),
    "rng_state.pth": ("rng_state.pth", "rng_state_0.pth"),
}
# transformers' CheckpointManager leaves this file if it is interrupted.
_SENTINEL = "checkpoint-is-incomplete.txt"
# Users may edit these files. A resumed run does not read them.
_EDITABLE = ("*config*.json", "*.md")
# Files that are not needed to load only the weights.
_TRAINING_ONLY = ("optimizer*", "scheduler*", "rng_state*", "scaler*", "*_state.json", "process_states.json")


class Manifest(TypedDict):
    """Content of a checkpoint's manifest.

    The manifest is written last, so a checkpoint that has a manifest and every file in it is complete.

    Attributes:
        sequence: Counts a run's checkpoints in the order in which they were written. Neither the step numbers of
            resumed runs nor file times give this order reliably.
        files: Size in bytes of each file, by its path relative to the checkpoint's folder.
        sha256: Digest of each file's content as hexadecimal digits.
    """

    sequence: int
    files: dict[str, int]
    sha256: dict[str, str]


def write_manifest(checkpoint: Path, sequence: int) -> None:
    """Flush a checkpoint's files to disk and write its manifest.

    Args:
        checkpoint: Folder of the checkpoint, to which no process writes anymore.
        sequence: See `Manifest`.
    """
    files, digests = {}, {}
    for path in sorted(checkpoint.rglob("*")):
        flush_to_disk(path)
        name = path.relative_to(checkpoint).as_posix()
        if path.is_file() and name != MANIFEST_NAME:
            files[name] = path.stat().st_size
            digests[name] = sha256_of(path)  # cheap: the file was just written and is still in memory
    content = Manifest(sequence=sequence, files=files, sha256=digests)
    write_text_atomically(checkpoint / MANIFEST_NAME, json.dumps(content, indent=2) + "\n")


def read_manifest(checkpoint: Path) -> Manifest | None:
    """Read a checkpoint's manifest; None if it has none (a plain `Trainer` writes none) or an invalid one."""
    try:
        content = json.loads((checkpoint / MANIFEST_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or not isinstance(content.get("sequence"), int):
        return None
    listings = [content.get("files"), content.get("sha256")]
    return cast(Manifest, content) if all(isinstance(listing, dict) for listing in listings) else None


def find_problems(checkpoint: Path, contents: bool = True) -> list[str]:
    """List what keeps a checkpoint from being resumed: missing, truncated and damaged files.

    With a manifest, every listed file must exist with the content that was saved. Configuration files may have been
    edited but must parse. Without a manifest (from a plain `Trainer`), every file of a known type must be readable to
    its end, and the files that the Trainer always writes must exist, above all `trainer_state.json`, which it writes
    last. Optimizer, scheduler and random states may be missing together: `save_only_model` leaves them out.

    Args:
        checkpoint: Folder of the checkpoint.
        contents: Whether to read every file and compare digests, which takes about as long as loading the checkpoint.
            Otherwise only sizes are compared.

    Returns:
        Short descriptions, each starting with a file's name; empty for a complete checkpoint.
    """
    if not checkpoint.is_dir():
        return ["the folder is missing"]
    manifest = read_manifest(checkpoint)
    if manifest is not None:
        faults = ((name, _find_problem(checkpoint, manifest, name, contents)) for name in manifest["files"])
        return [f"{name} {fault}" for name, fault in faults if fault]
    if (checkpoint / MANIFEST_NAME).exists():
        return [f"{MANIFEST_NAME} is damaged, and nothing else can be checked"]
    return _missing_files(checkpoint) + _broken_files(checkpoint)


def find_weight_problems(checkpoint: Path) -> list[str]:
    """List what keeps a checkpoint's model from being loaded: `find_problems` without the files only training needs."""
    problems = find_problems(checkpoint)
    return [problem for problem in problems if not any(fnmatch(problem, f"{name} *") for name in _TRAINING_ONLY)]


def find_edited_files(checkpoint: Path) -> list[str]:
    """List the configuration files and model cards that have changed since the checkpoint was saved."""
    digests = (read_manifest(checkpoint) or {}).get("sha256", {})
    editable = [name for name in digests if any(fnmatch(Path(name).name, pattern) for pattern in _EDITABLE)]
    return [
        name for name in editable if (checkpoint / name).is_file() and sha256_of(checkpoint / name) != digests[name]
    ]


def _find_problem(checkpoint: Path, manifest: Manifest, name: str, contents: bool) -> str | None:
    path = checkpoint / name
    if not path.is_file():
        return "is missing"
    if any(fnmatch(path.name, pattern) for pattern in _EDITABLE):
        return None if path.suffix != ".json" or _can_be_read(path) else "is cut off or damaged"
    try:
        size = path.stat().st_size
    except FileNotFoundError:  # an active run has just moved or deleted the file
        return "is missing"
    if size != manifest["files"][name]:
        return f"has {size} bytes instead of {manifest['files'][name]}"
    if not contents:
        return None
    try:
        is_same = sha256_of(path) == manifest["sha256"].get(name)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None if is_same else "is damaged: its content is not what was saved"


def _missing_files(checkpoint: Path) -> list[str]:
    problems = []
    if not (checkpoint / TRAINER_STATE_NAME).is_file():
        problems.append(f"{TRAINER_STATE_NAME} is missing")
    if (checkpoint / _SENTINEL).exists():
        problems.append(f"{_SENTINEL} says that it is not finished")
    if not _matches_any(checkpoint, _WEIGHTS):
        problems.append(f"{SAFE_WEIGHTS_NAME} is missing")
    for index in (checkpoint / SAFE_WEIGHTS_INDEX_NAME, checkpoint / WEIGHTS_INDEX_NAME):
        if index.is_file() and _can_be_read(index):
            shards = set(json.loads(index.read_text(encoding="utf-8")).get("weight_map", {}).values())
            problems += [f"{name} is missing" for name in sorted(shards) if not (checkpoint / name).is_file()]
    state = {name: _matches_any(checkpoint, names) for name, names in _TRAINING_STATE.items()}
    if any(state.values()) or any(checkpoint.glob("rng_state_*.pth")):
        problems += [f"{name} is missing" for name, exists in state.items() if not exists]
    return problems


def _broken_files(checkpoint: Path) -> list[str]:
    broken = []
    for path in sorted(path for path in checkpoint.rglob("*") if path.is_file()):
        is_weights = path.suffix in (".safetensors", ".pt", ".pth", ".bin")
        if (is_weights and weights_fault(path)) or (path.suffix == ".json" and not _can_be_read(path)):
            broken.append(path)
    return [f"{path.relative_to(checkpoint).as_posix()} is cut off or damaged" for path in broken]


def _matches_any(checkpoint: Path, patterns: tuple[str, ...]) -> bool:
    return any(True for pattern in patterns for _ in checkpoint.glob(pattern))


def _can_be_read(path: Path) -> bool:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return True
