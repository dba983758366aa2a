"""Tries every transform of an augmentation before training, to find missing packages and broken recordings."""

import inspect
import io
from collections.abc import Generator, Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any

import numpy as np
import torch
from audiomentations.core.composition import BaseCompose
from audiomentations.core.transforms_interface import BaseWaveformTransform
from numpy.typing import NDArray

from hf_gradalign.augmentation.codecs import Codec
from hf_gradalign.augmentation.noise.recordings import (
    describe_unreadable,
    find_unreadable,
    without_resampling_warnings,
)
from hf_gradalign.augmentation.rawboost.transform import draw_deferred, find_final_rawboost
from hf_gradalign.augmentation.recipes import Augmentation

_DRAWS = 4  # some draws may fail, such as a cut-off above half the sampling rate
# The attributes with recordings in audiomentations' and this package's transforms.
_RECORDINGS = ("sound_file_paths", "ir_files", "sounds_path", "ir_path")


def try_augmentation(augmentation: Augmentation, sample_rate: int, device: torch.device | str | None = None) -> None:
    """Apply each transform of an augmentation to a second of noise, and open each of its recordings.

    All probabilities are set to 1, and every branch of a composition is tried. The transforms stay unchanged. Draws
    from the global generators.

    Args:
        augmentation: A transform, a composition, or any other callable, which is called without changes.
        sample_rate: In Hz.
        device: The device on which RawBoost is applied to batches (see `draw_deferred`); None if all runs on the host.

    Raises:
        ValueError: If a package is missing, a recording cannot be read, or a transform fails or does not return finite
            samples with the shape of the noise. The message names the transform.
    """
    noise = 0.1 * np.random.default_rng(0).standard_normal(sample_rate).astype(np.float32)
    for where, transform in _parts(augmentation):
        paths = _recordings(transform)
        if unreadable := find_unreadable(paths):
            raise ValueError(f"{where}: {describe_unreadable(unreadable, len(paths))}")
        with _name_in_errors(where):
            for settings in _branches(transform):
                _try(transform, settings, noise, sample_rate)
    rawboost = find_final_rawboost(augmentation) if device is not None else None
    if rawboost is not None:
        with _name_in_errors(f"RawBoost on {device}"), _always_apply(rawboost, {}):
            samples, parameters = draw_deferred(rawboost, noise, sample_rate)
            rawboost.batched()(torch.from_numpy(samples)[None].to(device), [parameters], sample_rate)


def _parts(augmentation: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each transform with its name for messages, inner ones first."""
    name = type(augmentation).__name__
    where = f"{where} ({name})" if where else name
    if isinstance(augmentation, BaseCompose):
        # In a recipe file or a chain of recipes, entries are numbered as in the file.
        prefix = "" if where == "Compose" else f"{where}, "
        for number, part in enumerate(augmentation.transforms, start=1):
            yield from _parts(part, f"{prefix}entry {number}")
    else:
        for argument in inspect.signature(type(augmentation)).parameters:
            # For example noise_transform of audiomentations' AddBackgroundNoise.
            part = getattr(augmentation, argument, None)
            if isinstance(part, BaseCompose | BaseWaveformTransform):
                yield from _parts(part, f"{where}, {argument}")
    yield where, augmentation


def _branches(transform: Any) -> list[dict[str, Any]]:
    """Return the attributes to try a transform with, such as each codec that may be drawn."""
    if isinstance(transform, Codec):
        return [{"codecs": (name,)} for name in dict.fromkeys(transform.codecs)]
    return [{}]


def _try(transform: Any, settings: dict[str, Any], noise: NDArray[np.float32], sample_rate: int) -> None:
    # audiomentations prints which package is missing, but our error already names it.
    with _always_apply(transform, settings), redirect_stderr(io.StringIO()), without_resampling_warnings():
        for _ in range(_DRAWS):
            samples = np.asarray(transform(noise.copy(), sample_rate))
            if samples.ndim != 1 or samples.size == 0:
                raise ValueError(f"returns an array of shape {samples.shape}; it must have shape (samples,)")
            if samples.size != noise.size:
                raise ValueError(
                    f"changes the length from {noise.size} to {samples.size} samples; it must stay the same"
                )
            if not np.isfinite(samples).all():
                raise ValueError("returns NaN or infinite samples")


@contextmanager
def _always_apply(transform: Any, settings: dict[str, Any]) -> Generator[None]:
    """Set a transform's probability to 1, and restore the transform afterward."""
    if not isinstance(transform, BaseCompose | BaseWaveformTransform):
        yield
        return
    before = dict(vars(transform))
    vars(transform).update(p=1.0, are_parameters_frozen=False, **settings)
    if isinstance(transform, BaseWaveformTransform):
        transform.parameters = dict(transform.parameters)
    try:
        yield
    finally:
        vars(transform).clear()
        vars(transform).update(before)


def _recordings(transform: Any) -> list[str]:
    """Return the recordings of a transform, without duplicates."""
    if isinstance(transform, BaseWaveformTransform):
        for attribute in _RECORDINGS:
            paths = getattr(transform, attribute, None)
            if isinstance(paths, list):
                return list(dict.fromkeys(map(str, paths)))
    return []


@contextmanager
def _name_in_errors(where: str) -> Generator[None]:
    """Add the name of the failing transform to errors, and what to install if a package is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or str(error)).partition(".")[0].replace("_", "-")
        raise ValueError(f"{where} needs pip install {package}") from error
    except Exception as error:  # third-party transforms may raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{where} fails on a second of noise: {reason}") from error


__all__ = ["try_augmentation"]
