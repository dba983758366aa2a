"""Reading published checkpoints: files of any kind, and one spelling of their keys."""

import argparse
import collections
import datetime
import pathlib
import re
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError
from safetensors.torch import load_file
from torch import Tensor

from hf_gradalign.conversion.errors import ConversionError
from hf_gradalign.utils.file_faults import fault_met_in_loading, weights_fault, weights_kind
from hf_gradalign.utils.hub_waits import hub_fault
from hf_gradalign.utils.plain_text import plain_text

_NUMBER = "{n}"


class KeyNames:
    """Pairs of templates, each the start of a key in one layout and in the other; `{n}` is a number kept as it is.

    A template matches whole components: `encoder.layer_norm` is no start of `encoder.layer_norms.weight`. Where several
    match, the longest counts.

    Args:
        pairs: (theirs, ours), where every template of either side is of its own kind.
    """

    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        self._to_ours = _Renaming([(theirs, ours) for theirs, ours in pairs])
        self._to_theirs = _Renaming([(ours, theirs) for theirs, ours in pairs])

    def to_ours(self, key: str) -> str | None:
        """The key in our layout, None if no template matches."""
        return self._to_ours(key)

    def to_theirs(self, key: str) -> str | None:
        """The key in their layout, None if no template matches."""
        return self._to_theirs(key)


class _Renaming:
    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        longest_first = sorted(pairs, key=lambda pair: len(pair[0]), reverse=True)
        self._rules = [
            (re.compile(re.escape(start).replace(re.escape(_NUMBER), r"(\d+)") + r"(?=\.|$)"), end)
            for start, end in longest_first
        ]

    def __call__(self, key: str) -> str | None:
        for pattern, end in self._rules:
            match = pattern.match(key)
            if match:
                for number in match.groups():
                    end = end.replace(_NUMBER, number, 1)
                return end + key[match.end() :]
        return None


_ARRAY_MODULES = ("numpy._core.multiarray", "numpy.core.multiarray")  # as NumPy 2 and NumPy 1 name it
_PATHS = ("PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath", "Path", "PurePath")
_SETTINGS_OF_LIGHTNING = (
    "lightning_fabric.utilities.data",
    "lightning.fabric.utilities.data",
    "pytorch_lightning.utilities.parsing",
    "lightning.pytorch.utilities.parsing",
)


class _PlainDict:
    """Stands in for classes of mappings, which torch fills only if they are plain."""

    def __new__(cls, *args: Any) -> dict[Any, Any]:
        return {}


def harmless_classes() -> list[type | tuple[Callable[..., Any], str]]:
    """Classes and functions for `torch.serialization.safe_globals`, those of other systems under their names there."""
    allowed: list[type | tuple[Callable[..., Any], str]] = [
        *(argparse.Namespace, types.SimpleNamespace, collections.OrderedDict, torch.torch_version.TorchVersion),
        *(datetime.datetime, datetime.date, datetime.time, datetime.timedelta, datetime.timezone),
        *(bool, int, float, complex, str, list, tuple, dict, frozenset),
        *(np.ndarray, np.dtype, *(kind for kind in vars(np.dtypes).values() if isinstance(kind, type))),
        (_PlainDict, "collections.defaultdict"),
    ]
    for name in ("_reconstruct", "scalar"):
        allowed += [(getattr(np._core.multiarray, name), f"{module}.{name}") for module in _ARRAY_MODULES]
    for name in _PATHS:
        pure = pathlib.PureWindowsPath if "Windows" in name else pathlib.PurePosixPath
        allowed += [(pure, f"{module}.{name}") for module in ("pathlib", "pathlib._local")]
    allowed += [(_PlainDict, f"{module}.AttributeDict") for module in _SETTINGS_OF_LIGHTNING]
    return allowed


# What training scripts wrap a state dict in, and what DataParallel and DDP put before its keys.
_WRAPPERS = ("model", "state_dict", "model_state_dict", "model_state", "net", "network", "weights")
_KEY_PREFIX = "module."
# What torch.compile, activation checkpointing and FSDP put into keys, wherever the wrapped module is.
_INNER_WRAPPERS = re.compile(r"\b(?:_orig_mod|_checkpoint_wrapped_module|_fsdp_wrapped_module)\.")


def locate_checkpoint(source: str, *, revision: str | None = None, token: str | None = None) -> Path:
    """The file of a checkpoint, downloaded if it is on the Hub.

    Args:
        source: A local file, or `org/repo:filename` on the Hub.
        revision: Branch, tag or commit on the Hub.
        token: Access token for the Hub.

    Raises:
        ConversionError: If there is no such file, or the Hub does not give it.
    """
    path = Path(source).expanduser()
    if path.is_file():
        return path
    repo, colon, filename = source.partition(":")
    if path.exists() or not colon or repo.count("/") != 1 or not filename:
        what = "is a folder, not a file" if path.is_dir() else "is no file"
        raise ConversionError(f"{source} {what}; a checkpoint on the Hub is written org/repo:filename")
    try:
        return Path(hf_hub_download(repo, filename, revision=revision, token=token))
    except (HfHubHTTPError, HFValidationError, HTTPError, OSError) as error:
        reason = " ".join((hub_fault(error) or str(error)).split()).rstrip(".")
        raise ConversionError(
            f"cannot get {filename} of {repo} from the Hub: {reason}. Check the names, the network and, for a private "
            "or gated repository, `hf auth login`."
        ) from error


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint, on the CPU, under their names.

    Args:
        path: A file of safetensors, or anything that torch.save wrote, whatever its suffix. Weights only: no code is
            run, and of what else lies beside them the harmless (numbers, arrays, dates, paths, an argparse.Namespace)
            is passed over.

    Returns:
        Names without what DataParallel, FSDP and torch.compile put into them. Wrappers such as {"model": ...} are
        opened; of several state dicts of other names each entry's name begins with its own.

    Raises:
        ConversionError: If the file is broken or no checkpoint (the message says what it is), or has entries that are
            no tensors.
    """
    path = Path(path)
    if fault := weights_fault(path):
        raise ConversionError(f"{path} {fault}")
    try:
        content = load_file(path) if weights_kind(path) == "safetensors" else _load_pickle(path)
    except Exception as error:  # a damaged pickle fails in every way
        raise ConversionError(f"{path} {fault_met_in_loading(error)}") from error
    state = _unwrap(content)
    others = [plain_text(name) for name, value in state.items() if not isinstance(value, Tensor)]
    if others or not state:
        what = f"entries that are no tensors: {', '.join(others[:10])}" if others else "no entries"
        raise ConversionError(f"{path} is no state dict: it has {what}")
    return state


def _load_pickle(path: Path) -> Any:
    with torch.serialization.safe_globals(harmless_classes()):
        if path.suffix == ".safetensors":  # which torch.load would go by, and not by the content
            with path.open("rb") as file:
                return torch.load(file, map_location="cpu", weights_only=True)
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap can only be used" not in str(error):
                raise
        with path.open("rb") as file:  # a format of before torch 1.6
            return torch.load(file, map_location="cpu", weights_only=True)


def _unwrap(content: Any) -> dict[str, Any]:
    while isinstance(content, Mapping) and not any(isinstance(value, Tensor) for value in content.values()):
        inner = [name for name, value in content.items() if isinstance(value, Mapping)]
        named = [name for name in _WRAPPERS if name in inner]
        holding = [name for name in inner if any(isinstance(value, Tensor) for value in content[name].values())]
        if not named and len(holding) > 1:  # whose is whose is told by the keys, each with its own prefix
            content = {f"{name}.{key}": value for name in holding for key, value in content[name].items()}
            break
        if not (named or holding):
            break
        content = content[(named or holding)[0]]
    if not isinstance(content, Mapping):
        raise ConversionError(f"the checkpoint is a {type(content).__name__}, not a state dict")
    state = {_INNER_WRAPPERS.sub("", str(name)): value for name, value in content.items()}
    while state and all(name.startswith(_KEY_PREFIX) for name in state):
        state = {name.removeprefix(_KEY_PREFIX): value for name, value in state.items()}
    return state
