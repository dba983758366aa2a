"""The mean of several checkpoints' weights."""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor


def average_checkpoints(paths: Sequence[str | Path]) -> dict[str, Tensor]:
    """The arithmetic mean of checkpoints, entry by entry.

    Every entry is summed in float64 over all checkpoints and divided once, so the result does not depend on their
    order beyond rounding, and every checkpoint counts the same. Integer entries are counters (batch-norm's
    `num_batches_tracked`), whose mean would be no count: the largest is taken.

    Args:
        paths: Safetensors files, or folders that hold a `model.safetensors`.

    Returns:
        State dict of the first checkpoint's names, shapes and types.

    Raises:
        ValueError: If no checkpoint is given, or their names or shapes differ.
        FileNotFoundError: If one has no weights.
    """
    files = [path / "model.safetensors" if path.is_dir() else path for path in map(Path, paths)]
    if not files:
        raise ValueError("there is nothing to average: no checkpoint was given")
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(f"no weights at {file}")
    first = load_file(files[0])
    totals = {name: value.double() if value.is_floating_point() else value for name, value in first.items()}
    for file in files[1:]:
        state = load_file(file)
        _check_same_entries(files[0], first, file, state)
        for name, value in state.items():
            total = totals[name]
            totals[name] = total + value.double() if value.is_floating_point() else torch.maximum(total, value)
    return {
        name: (total / len(files)).to(first[name].dtype) if first[name].is_floating_point() else total
        for name, total in totals.items()
    }


def _check_same_entries(file: Path, state: dict[str, Tensor], other: Path, other_state: dict[str, Tensor]) -> None:
    differing = sorted(set(state) ^ set(other_state))
    differing += sorted(name for name in set(state) & set(other_state) if state[name].shape != other_state[name].shape)
    if differing:
        raise ValueError(f"{file} and {other} are not checkpoints of one model; they differ in {', '.join(differing)}")
