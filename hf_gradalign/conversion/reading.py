"""State dicts from files, ours or strangers', local or on the Hub; nothing in them is executed."""

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError, LocalEntryNotFoundError
from safetensors.torch import load_file
from torch import Tensor

from hf_gradalign.conversion.errors import ConversionError

# What training scripts wrap a state dict in, and what DataParallel, DDP and torch.compile put before its keys.
_WRAPPERS = ("model", "state_dict", "model_state_dict", "net")
_KEY_PREFIXES = ("module.", "_orig_mod.")


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
    except (HfHubHTTPError, HFValidationError, HTTPError, LocalEntryNotFoundError) as error:
        reason = " ".join(str(error).split())
        raise ConversionError(
            f"cannot get {filename} of {repo} from the Hub: {reason} Check the names, the network and, for a private "
            "or gated repository, `hf auth login`."
        ) from error


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint, on the CPU, under their names.

    Args:
        path: A safetensors file (.safetensors), or anything that torch.save wrote (weights only: no code is run).

    Returns:
        Names without the prefixes of DataParallel and torch.compile; wrappers such as {"model": ...} are opened.

    Raises:
        ConversionError: If the file is truncated or no checkpoint, or has entries that are no tensors.
    """
    path = Path(path)
    try:
        content = load_file(path) if path.suffix == ".safetensors" else _load_pickle(path)
    except Exception as error:  # a damaged pickle fails in every way
        reason = " ".join(str(error).split())
        if isinstance(error, pickle.UnpicklingError) and "weights_only" in reason.lower():
            raise ConversionError(
                f"{path} holds more than tensors, which could run code when it is loaded; save its state dict alone. "
                f"({reason[:300]})"
            ) from error
        raise ConversionError(
            f"{path} ({path.stat().st_size:,} bytes) is truncated or no checkpoint; get it again. ({reason[:200]})"
        ) from error
    state = _unwrap(content)
    others = [str(name) for name, value in state.items() if not isinstance(value, Tensor)]
    if others or not state:
        what = f"entries that are no tensors: {', '.join(others[:10])}" if others else "no entries"
        raise ConversionError(f"{path} is no state dict: it has {what}")
    return state


def sha256_of(path: str | Path) -> str:
    """Hash of a file, as the Hub shows it."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _load_pickle(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError as error:
        if "mmap can only be used" not in str(error):
            raise
    return torch.load(path, map_location="cpu", weights_only=True)  # a format of before torch 1.6


def _unwrap(content: Any) -> dict[str, Any]:
    while isinstance(content, Mapping):
        wrapped = [name for name in _WRAPPERS if isinstance(content.get(name), Mapping)]
        if not wrapped:
            break
        content = content[wrapped[0]]
    if not isinstance(content, Mapping):
        raise ConversionError(f"the checkpoint is a {type(content).__name__}, not a state dict")
    state = dict(content)
    for prefix in _KEY_PREFIXES * 2:
        if state and all(str(name).startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state
