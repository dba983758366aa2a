"""Average the weights of several checkpoints."""

from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from hf_gradalign.training.checkpoint_integrity import read_manifest
from hf_gradalign.utils.files import sha256_of


def average_checkpoints(paths: Sequence[str | Path]) -> dict[str, Tensor]:
    """Return the arithmetic mean of checkpoints, entry by entry.

    Every entry is summed in float64 over all checkpoints and divided once, so every checkpoint counts the same and
    their order only affects rounding. Integer entries are counters (`num_batches_tracked` of batch norm). Their mean
    would not be a count, so the largest is used.

    Args:
        paths: Safetensors files, or folders that contain a `model.safetensors`.

    Returns:
        A state dict with the names, shapes and types of the first checkpoint. Load it with `load_whole_state`, which
        also handles models that transformers saves under other names.

    Raises:
        ValueError: If no checkpoint is given, names or shapes differ, or a folder's weights do not match its manifest.
        FileNotFoundError: If a checkpoint has no weights.
    """
    files = [path / "model.safetensors" if path.is_dir() else path for path in map(Path, paths)]
    if not files:
        raise ValueError("nothing to average: no checkpoint was given")
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(f"no weights at {file}")
        digests = (read_manifest(file.parent) or {}).get("sha256", {})
        if digests.get(file.name) not in (None, sha256_of(file)):
            raise ValueError(f"{file} is damaged: its content is not what was saved; average without it")
    return average_state_dicts([load_file(file) for file in files], files)  # mapped into memory, not read


def average_state_dicts(states: Sequence[Mapping[str, Tensor]], names: Sequence[str | Path]) -> dict[str, Tensor]:
    """Return the arithmetic mean of state dicts, as `average_checkpoints` does.

    It takes the memory of the mean and of one entry in float64, and reads the state dicts entry by entry.

    Args:
        states: One or more state dicts.
        names: Name of each state dict in error messages.

    Returns:
        A state dict with the names, shapes and types of the first one.

    Raises:
        ValueError: If their names or shapes differ.
    """
    for name, state in zip(names, states, strict=True):
        _check_same_entries(names[0], states[0], name, state)
    return {entry: _mean([state[entry] for state in states]) for entry in states[0]}


def _mean(values: Sequence[Tensor]) -> Tensor:
    if not values[0].is_floating_point():
        return reduce(torch.maximum, values)
    total = values[0].double()
    for value in values[1:]:
        total = total + value.double()
    return (total / len(values)).to(values[0].dtype)


def _check_same_entries(
    name: str | Path, state: Mapping[str, Tensor], other: str | Path, other_state: Mapping[str, Tensor]
) -> None:
    differing = sorted(set(state) ^ set(other_state))
    differing += sorted(
        entry for entry in set(state) & set(other_state) if state[entry].shape != other_state[entry].shape
    )
    if differing:
        raise ValueError(
            f"{name} and {other} are not checkpoints of the same model; they differ in {', '.join(differing)}"
        )
