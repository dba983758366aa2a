"""Augmentation in two parts: draws in the loader workers, RawBoost on the accelerator."""

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy as np
from audiomentations import Compose
from numpy.typing import NDArray

from hf_gradalign.augmentation.rawboost import RawBoost

Parameters = dict[str, Any]


def deferrable(transform: Callable[..., NDArray[np.float32]] | None) -> RawBoost | None:
    """The RawBoost at the end of an augmentation, which can be applied to batches; None if it ends otherwise."""
    if isinstance(transform, Compose) and not transform.shuffle and transform.transforms:
        return deferrable(transform.transforms[-1])
    return transform if isinstance(transform, RawBoost) else None


def draw_deferred(
    transform: RawBoost | Compose, samples: NDArray[np.float32], sample_rate: int
) -> tuple[NDArray[np.float32], Parameters]:
    """Apply an augmentation up to its final RawBoost, of which it only draws the parameters.

    Draws from the global generators exactly like the augmentation itself. Applying `BatchedRawBoost` to the result
    completes the augmentation.

    Args:
        transform: An augmentation for which `deferrable` returns a RawBoost.
        samples: Shape (samples,), at least one.
        sample_rate: In Hz.

    Returns:
        The samples so far, and RawBoost's parameters. Samples whose powers do not fit into float32, the type of
        `BatchedRawBoost`, are already fully augmented, and their parameters change nothing.
    """
    if isinstance(transform, Compose):
        if not random.random() < transform.p:
            return samples, {"should_apply": False}
        for earlier in transform.transforms[:-1]:
            samples = earlier(samples, sample_rate)
        return draw_deferred(transform.transforms[-1], samples, sample_rate)
    if not transform.are_parameters_frozen:
        transform.randomize_parameters(samples, sample_rate)
    if not transform.parameters["should_apply"]:
        return samples, {"should_apply": False}
    if not transform.fits_single(samples):
        return transform.apply(samples, sample_rate), {"should_apply": False}
    return samples, copy.deepcopy(transform.parameters)
