"""Augmentations from a YAML or JSON file that lists audiomentations transforms."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import audiomentations
import numpy as np
from audiomentations.core.composition import BaseCompose
from audiomentations.core.transforms_interface import BaseWaveformTransform
from numpy.typing import NDArray

from hf_gradalign.augmentation.codecs import Codec
from hf_gradalign.augmentation.masks import FrequencyMask, PacketLoss
from hf_gradalign.augmentation.noise import AddBabble, MusanRir, Reverberation
from hf_gradalign.augmentation.noise.recordings import list_for_audiomentations
from hf_gradalign.augmentation.rawboost import RawBoost
from hf_gradalign.utils.settings_files import read_settings

# `augmentation(samples, sample_rate) -> samples`: any audiomentations transform or composition.
Augmentation = Callable[[NDArray[np.float32], int], NDArray[np.float32]]

OWN_TRANSFORMS = (AddBabble, Codec, FrequencyMask, MusanRir, PacketLoss, RawBoost, Reverberation)

_TRANSFORMS: dict[str, type] = {
    name: item
    for name, item in vars(audiomentations).items()
    if inspect.isclass(item) and issubclass(item, (BaseWaveformTransform, BaseCompose))
} | {transform.__name__: transform for transform in OWN_TRANSFORMS}
# audiomentations' arguments for recordings. This package's transforms list recordings themselves.
_RECORDINGS = ("sounds_path", "ir_path")
# Its argument, a function, cannot be written in a file.
_TRANSFORMS.pop("Lambda")


def read_recipe(path: Path, by_name: Callable[[str], Augmentation]) -> audiomentations.Compose:
    """Build the transforms listed in a file.

    Args:
        path: A JSON file if it ends in `.json`, else YAML.
        by_name: Builds an entry `{recipe: NAME}`.

    Returns:
        The transforms, applied in order.

    Raises:
        ValueError: If the file is not a list of transforms, or a transform or one of its arguments is unknown or
            invalid.
    """
    entries = read_settings(path)
    if not (isinstance(entries, list) and entries):
        raise ValueError(f"{path}: expected a list with at least one {{transform: NAME, ...}}; got {entries!r:.100}")
    return audiomentations.Compose([_build(entry, f"{path}: entry {i}", by_name) for i, entry in enumerate(entries, 1)])


def _build(entry: Any, where: str, by_name: Callable[[str], Augmentation]) -> Augmentation:
    """Build the transform of one entry; `where` names the entry in messages."""
    if isinstance(entry, dict) and set(entry) == {"recipe"}:
        try:
            return by_name(str(entry["recipe"]))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
    if not (isinstance(entry, dict) and "transform" in entry):
        raise ValueError(
            f"{where}: expected a mapping with the key 'transform', or {{recipe: NAME}} alone; got {entry!r:.100}"
        )
    name = entry["transform"]
    if not isinstance(name, str) or name not in _TRANSFORMS:
        raise ValueError(f"{where}: unknown transform {name!r}; available: {', '.join(sorted(_TRANSFORMS))}")
    where = f"{where} ({name})"
    transform = _TRANSFORMS[name]
    accepted = inspect.signature(transform).parameters
    unknown = [key for key in entry if key != "transform" and key not in accepted]
    if unknown:
        raise ValueError(f"{where}: unknown argument {unknown[0]!r}; it takes {', '.join(accepted)}")
    arguments = {key: _build_argument(value, where, by_name) for key, value in entry.items() if key != "transform"}
    try:
        if transform not in OWN_TRANSFORMS:
            arguments |= {key: list_for_audiomentations(arguments[key]) for key in _RECORDINGS if arguments.get(key)}
        return transform(**arguments)
    except Exception as error:  # third-party constructors raise anything, including AssertionError
        raise ValueError(f"{where}: {str(error) or f'{type(error).__name__} for {arguments}'}") from error


def _build_argument(value: Any, where: str, by_name: Callable[[str], Augmentation]) -> Any:
    """Build transforms nested in an argument, such as those of OneOf. Other values stay unchanged."""
    if isinstance(value, dict) and ("transform" in value or "recipe" in value):
        return _build(value, where, by_name)
    if isinstance(value, list):
        return [_build_argument(item, where, by_name) for item in value]
    return value
