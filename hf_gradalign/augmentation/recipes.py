"""Augmentations by name, or from a YAML or JSON file that lists audiomentations transforms."""

import inspect
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import audiomentations
import numpy as np
import yaml
from audiomentations.core.composition import BaseCompose
from audiomentations.core.transforms_interface import BaseWaveformTransform
from numpy.typing import NDArray

from hf_gradalign.augmentation.codec import Codec
from hf_gradalign.augmentation.rawboost import ALGORITHMS, RawBoost

# `transform(samples, sample_rate) -> samples`: any audiomentations transform or composition.
Augmentation = Callable[[NDArray[np.float32], int], NDArray[np.float32]]

_RECIPES: dict[str, Callable[[], Augmentation]] = {
    "rawboost": RawBoost,
    **{f"rawboost{algorithm}": partial(RawBoost, algorithm) for algorithm in ALGORITHMS},
    "codec": Codec,
}

_TRANSFORMS: dict[str, type] = {
    name: item
    for name, item in vars(audiomentations).items()
    if inspect.isclass(item) and issubclass(item, (BaseWaveformTransform, BaseCompose))
} | {"Codec": Codec, "RawBoost": RawBoost}
# A function cannot be written in a file.
_TRANSFORMS.pop("Lambda")


def available_augmentations() -> list[str]:
    """Return the names that `get_augmentation` knows."""
    return list(_RECIPES)


def get_augmentation(name_or_path: str | os.PathLike[str]) -> Augmentation:
    """Build an augmentation from its name or from a file.

    Args:
        name_or_path: "rawboost" (algorithm 4), "rawboost1" to "rawboost8", "codec" (any of its codecs), or the path of
            a YAML or JSON file with a list of transforms, applied in this order:

                - {transform: AddGaussianNoise, min_amplitude: 0.001, max_amplitude: 0.015, p: 0.5}
                - {transform: OneOf, transforms: [{transform: RawBoost, algorithm: 5}, {transform: PitchShift, p: 1.0}]}

            Transforms are those of audiomentations, other than Lambda, RawBoost and Codec; the other keys are their
            arguments.

    Returns:
        A `RawBoost` or `Codec`, or an `audiomentations.Compose` of the file's transforms.

    Raises:
        ValueError: If it is neither a known name nor a file, if the file is not a list of transforms, or if a transform
            or one of its arguments is unknown or impossible.
    """
    if name_or_path in _RECIPES:
        return _RECIPES[name_or_path]()
    path = Path(name_or_path)
    if not path.is_file():
        raise ValueError(
            f"unknown augmentation {str(name_or_path)!r}: give one of {', '.join(available_augmentations())}, "
            "or the path of an existing YAML or JSON file that lists audiomentations transforms"
        )
    entries = _read(path)
    if not (isinstance(entries, list) and entries):
        raise ValueError(f"{path}: expected a list with at least one {{transform: NAME, ...}}; got {entries!r:.100}")
    return audiomentations.Compose([_build(entry, f"{path}: entry {i}") for i, entry in enumerate(entries, 1)])


def _read(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(text) if path.suffix.lower() == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:  # text that is not UTF-8 and broken JSON are ValueErrors
        raise ValueError(f"{path}: not a readable YAML or JSON file: {error}") from error


def _build(entry: Any, where: str) -> Augmentation:
    """Build one entry's transform; `where` says in messages which entry it is."""
    if not (isinstance(entry, dict) and "transform" in entry):
        raise ValueError(f"{where}: expected a mapping with the key 'transform'; got {entry!r:.100}")
    name = entry["transform"]
    if not isinstance(name, str) or name not in _TRANSFORMS:
        raise ValueError(f"{where}: unknown transform {name!r}; available: {', '.join(sorted(_TRANSFORMS))}")
    where = f"{where} ({name})"
    transform = _TRANSFORMS[name]
    accepted = inspect.signature(transform).parameters
    unknown = [key for key in entry if key != "transform" and key not in accepted]
    if unknown:
        raise ValueError(f"{where}: unknown argument {unknown[0]!r}; it takes {', '.join(accepted)}")
    arguments = {key: _build_argument(value, where) for key, value in entry.items() if key != "transform"}
    try:
        return transform(**arguments)
    except Exception as error:  # third-party constructors refuse with whatever they like, assertions included
        raise ValueError(f"{where}: {str(error) or f'{type(error).__name__} for {arguments}'}") from error


def _build_argument(value: Any, where: str) -> Any:
    """Build transforms nested in an argument, such as OneOf's, and leave other values alone."""
    if isinstance(value, dict) and "transform" in value:
        return _build(value, where)
    if isinstance(value, list):
        return [_build_argument(item, where) for item in value]
    return value
