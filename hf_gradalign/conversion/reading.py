"""Reads published checkpoints of any format, and normalizes the names of their weights."""

import argparse
import collections
import datetime
import pathlib
import re
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy._core import multiarray
from safetensors.torch import load_file
from torch import Tensor

from hf_gradalign.utils.file_faults import checksum_fault, describe_loading_error, weights_fault, weights_kind
from hf_gradalign.utils.plain_text import plain_text

_NUMBER = "{n}"


class ConversionError(ValueError):
    """The checkpoint cannot be converted. The message says why and what to do."""


class KeyNames:
    """Maps names of weights between two layouts by pairs of prefixes, in which `{n}` stands for a number.

    A prefix matches whole components: `encoder.layer_norm` does not match `encoder.layer_norms.weight`. The longest
    match is used.

    Args:
        pairs: Pairs (theirs, ours). All prefixes of a side must be different.
    """

    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        self._to_ours = _rules(pairs)
        self._to_theirs = _rules([(ours, theirs) for theirs, ours in pairs])

    def to_ours(self, key: str) -> str | None:
        """Return the key in our layout; None if no prefix matches."""
        return _rename_key(key, self._to_ours)

    def to_theirs(self, key: str) -> str | None:
        """Return the key in their layout; None if no prefix matches."""
        return _rename_key(key, self._to_theirs)


def _rules(pairs: Sequence[tuple[str, str]]) -> list[tuple[re.Pattern[str], str]]:
    """Return a pattern for each prefix with its replacement, the longest first."""
    return [
        (re.compile(re.escape(start).replace(re.escape(_NUMBER), r"(\d+)") + r"(?=\.|$)"), end)
        for start, end in sorted(pairs, key=lambda pair: len(pair[0]), reverse=True)
    ]


def _rename_key(key: str, rules: Sequence[tuple[re.Pattern[str], str]]) -> str | None:
    for pattern, end in rules:
        if match := pattern.match(key):
            for number in match.groups():
                end = end.replace(_NUMBER, number, 1)
            return end + key[match.end() :]
    return None


_ARRAY_MODULES = ("numpy._core.multiarray", "numpy.core.multiarray")  # in NumPy 2 and NumPy 1
_PATHS = ("PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath", "Path", "PurePath")
_SETTINGS_OF_LIGHTNING = (
    "lightning_fabric.utilities.data",
    "lightning.fabric.utilities.data",
    "pytorch_lightning.utilities.parsing",
    "lightning.pytorch.utilities.parsing",
)


class _PlainDict:
    """Stands in for mapping classes, because torch fills only plain dictionaries."""

    def __new__(cls, *args: Any) -> dict[Any, Any]:
        return {}


def harmless_classes() -> list[type | tuple[Callable[..., Any], str]]:
    """Return classes and functions for `torch.serialization.safe_globals`, including names from other systems."""
    allowed: list[type | tuple[Callable[..., Any], str]] = [
        *(argparse.Namespace, types.SimpleNamespace, collections.OrderedDict, torch.torch_version.TorchVersion),
        *(datetime.datetime, datetime.date, datetime.time, datetime.timedelta, datetime.timezone),
        *(bool, int, float, complex, str, list, tuple, dict, frozenset),
        *(np.ndarray, np.dtype, *(kind for kind in vars(np.dtypes).values() if isinstance(kind, type))),
        (_PlainDict, "collections.defaultdict"),
    ]
    for name in ("_reconstruct", "scalar"):
        allowed += [(getattr(multiarray, name), f"{module}.{name}") for module in _ARRAY_MODULES]
    for name in _PATHS:
        pure = pathlib.PureWindowsPath if "Windows" in name else pathlib.PurePosixPath
        allowed += [(pure, f"{module}.{name}") for module in ("pathlib", "pathlib._local")]
    allowed += [(_PlainDict, f"{module}.AttributeDict") for module in _SETTINGS_OF_LIGHTNING]
    return allowed


# Keys under which training scripts save a state dict, and the prefix of DataParallel and DDP.
_WRAPPERS = ("model", "state_dict", "model_state_dict", "model_state", "net", "network", "weights")
_KEY_PREFIX = "module."
_MAX_WRAPPERS = 5
# Parts that torch.compile, activation checkpointing and FSDP add to keys, wherever the wrapped module is.
_INNER_WRAPPERS = re.compile(r"\b(?:_orig_mod|_checkpoint_wrapped_module|_fsdp_wrapped_module)\.")


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint to the CPU.

    Args:
        path: A file from safetensors or torch.save, whatever its extension. Only weights are loaded, and no code is
            run. Harmless other content (numbers, arrays, dates, paths, an argparse.Namespace) is skipped.

    Returns:
        Tensors by name, without the parts that DataParallel, FSDP and torch.compile add. Wrappers such as
        {"model": ..., "best_eer": ...} are removed. With several state dicts, as in {"model": ..., "ema": ...}, their
        names become prefixes.

    Raises:
        ConversionError: If the file is broken or not a checkpoint (the message says what it is), or has entries that
            are not plain tensors.
    """
    path = Path(path)
    if fault := weights_fault(path) or checksum_fault(path):
        raise ConversionError(f"{path} {fault}")
    try:
        content = load_file(path) if weights_kind(path) == "safetensors" else _load_pickle(path)
    except Exception as error:  # damaged pickles raise many types
        raise ConversionError(f"{path} {describe_loading_error(error)}") from error
    state = _unwrap(content)
    unusual = [plain_text(name) for name, value in state.items() if isinstance(value, Tensor) and not _is_plain(value)]
    if unusual:
        raise ConversionError(f"{path} has sparse or quantized weights, but plain ones are needed: {unusual[0]}")
    others = [plain_text(name) for name, value in state.items() if not isinstance(value, Tensor)]
    if others or not state:
        what = f"entries that are not tensors: {', '.join(others[:10])}" if others else "no entries"
        raise ConversionError(f"{path} is not a state dict: it has {what}")
    return state


def _load_pickle(path: Path) -> Any:
    # The stubs do not accept classes, which are callable.
    with torch.serialization.safe_globals(cast(list[Any], harmless_classes())):
        if path.suffix == ".safetensors":  # torch.load would rely on the extension
            with path.open("rb") as file:
                return torch.load(file, map_location="cpu", weights_only=True)
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap can only be used" not in str(error):
                raise
        with path.open("rb") as file:  # the format before torch 1.6
            return torch.load(file, map_location="cpu", weights_only=True)


def _is_weight_matrix(value: Any) -> bool:
    """Return whether a value is a network's weight, unlike error rates, class weights or random states next to it."""
    return isinstance(value, Tensor) and value.ndim > 1


def _is_plain(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_quantized


def _contains_weights(content: Mapping[Any, Any], depth: int = _MAX_WRAPPERS) -> bool:
    """Return whether a mapping contains weights, at any depth, unlike settings such as `{"model": {"width": 8}}`."""
    values = content.values()
    return any(map(_is_weight_matrix, values)) or (
        depth > 0 and any(_contains_weights(value, depth - 1) for value in values if isinstance(value, Mapping))
    )


def _unwrap(content: Any) -> dict[str, Any]:
    for _ in range(_MAX_WRAPPERS):
        if not isinstance(content, Mapping) or any(map(_is_weight_matrix, content.values())):
            break
        inner = {name: value for name, value in content.items() if isinstance(value, Mapping)}
        parts = {  # single values next to them, such as an error rate, are left out
            name: value
            for name, value in inner.items()
            if any(map(_is_weight_matrix, value.values())) or (name in _WRAPPERS and _contains_weights(value))
        }
        if not parts:
            break
        if len(parts) == 1:
            (content,) = parts.values()
        else:  # keys get the name of their state dict as a prefix
            content = {f"{name}.{key}": value for name, part in parts.items() for key, value in _unwrap(part).items()}
    if not isinstance(content, Mapping):
        raise ConversionError(f"the checkpoint is a {type(content).__name__}, not a state dict")
    state = {_INNER_WRAPPERS.sub("", str(name)): value for name, value in content.items()}
    while state and all(name.startswith(_KEY_PREFIX) for name in state):
        state = {name.removeprefix(_KEY_PREFIX): value for name, value in state.items()}
    return state
