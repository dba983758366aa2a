"""Augmentation in two parts: what a loader worker draws of an item, and what is left for the accelerator."""

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
    """The part of an augmentation that can wait for the batch: the RawBoost that it ends with, None if it does not."""
    if isinstance(transform, Compose) and not transform.shuffle and transform.transforms:
        return deferrable(transform.transforms[-1])
    return transform if isinstance(transform, RawBoost) else None


def draw_deferred(
    transform: RawBoost | Compose, samples: NDArray[np.float32], sample_rate: int
) -> tuple[NDArray[np.float32], Parameters]:
    """Do all of an augmentation but for the RawBoost that it ends with, of which only the parameters are drawn.

    The same is drawn from the global generators as the augmentation itself would draw: `BatchedRawBoost` then gives, of
    the samples and the parameters, what the augmentation would have given.

    Args:
        transform: For which `deferrable` gives a RawBoost.
        samples: Shape (samples,), at least one.
        sample_rate: In Hz.

    Returns:
        The samples so far, and the parameters that are to be applied to them. Samples that RawBoost's batches, which
        work in float32, could not hold the powers of come augmented, with parameters that leave them alone.
    """
    if isinstance(transform, Compose):
        if not random.random() < transform.p:
            return samples, {"should_apply": False}
        for first in transform.transforms[:-1]:
            samples = first(samples, sample_rate)
        return draw_deferred(transform.transforms[-1], samples, sample_rate)
    if not transform.are_parameters_frozen:
        transform.randomize_parameters(samples, sample_rate)
    if not transform.parameters["should_apply"]:
        return samples, {"should_apply": False}
    if not transform.fits_single(samples):
        return transform.apply(samples, sample_rate), {"should_apply": False}
    return samples, copy.deepcopy(transform.parameters)
