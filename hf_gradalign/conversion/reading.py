"""State dicts from files, ours or strangers', local or on the Hub; nothing in them is executed."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError
from huggingface_hub.utils.sha import sha_fileobj
from safetensors.torch import load_file
from torch import Tensor

from hf_gradalign.conversion.errors import ConversionError
from hf_gradalign.conversion.harmless_classes import harmless_classes
from hf_gradalign.file_faults import fault_met_in_loading, weights_fault, weights_kind
from hf_gradalign.hub_waits import hub_fault
from hf_gradalign.plain_text import plain_text

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


def sha256_of(path: str | Path) -> str:
    """Hash of a file, as the Hub shows it."""
    with Path(path).open("rb") as file:
        return sha_fileobj(file).hex()


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
