"""What training scripts put beside the weights, and may be made anew without running any code of a checkpoint's."""

import argparse
import collections
import datetime
import pathlib
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

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
