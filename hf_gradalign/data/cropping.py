"""Bring a clip to a fixed number of samples: a window of it, repeated where the clip is too short."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

CropMode = Literal["random", "leading"]


@dataclass(frozen=True)
class Window:
    """A stretch of a clip, asked for before the clip's length is known.

    Args:
        n_samples: the window's length in samples at the target rate, at least 1.
        position: where it lies, in [0, 1): 0 is the start of the clip, values close to 1 its end. One number, so that
            the same draw can be applied to any version of a clip, of whatever length.

    Raises:
        ValueError: if either is out of its range.
    """

    n_samples: int
    position: float = 0.0

    def __post_init__(self) -> None:
        if self.n_samples < 1:
            raise ValueError(f"n_samples must be at least 1, not {self.n_samples}.")
        if not 0 <= self.position < 1:
            raise ValueError(f"position must lie in [0, 1), not {self.position}.")

    def bounds(self, total: int) -> tuple[int, int]:
        """First sample and one past the last, in a clip of `total` samples: the whole clip where it is shorter."""
        spare = max(total - self.n_samples, 0)
        # With a position below 1 every one of the spare + 1 starts is equally likely, and no other is reached.
        start = int(self.position * (spare + 1))
        return start, min(start + self.n_samples, total)


def draw_position(mode: CropMode, rng: np.random.Generator) -> float:
    """Draw a window's position in [0, 1): uniform for `random`, 0 for `leading`.

    Raises:
        ValueError: if `mode` is neither.
    """
    check_crop_mode(mode)
    return float(rng.random()) if mode == "random" else 0.0


def check_crop_mode(mode: str) -> None:
    """Raise ValueError unless `mode` is a crop mode."""
    if mode not in get_args(CropMode):
        raise ValueError(f"crop must be one of {', '.join(get_args(CropMode))}, not {mode!r}.")


def crop(samples: np.ndarray, window: Window) -> np.ndarray:
    """The window of `samples` (time on the last axis), as a view; everything where the clip is shorter."""
    start, stop = window.bounds(samples.shape[-1])
    return samples[..., start:stop]


def repeat_pad(samples: np.ndarray, length: int) -> np.ndarray:
    """Tile `samples` until they are `length` long; cut at `length` where they are longer.

    This is how the published anti-spoofing recipes pad (`pad` in the code of Tak et al., 2022): unlike zeros it does
    not tell the model how long the clip was.

    Args:
        samples: shape (time,), at least one sample.
        length: samples wanted, at least 1.

    Returns:
        An array of shape (length,) and the same dtype.

    Raises:
        ValueError: if there is nothing to repeat.
    """
    if samples.shape[-1] == 0:
        raise ValueError("cannot repeat a clip without samples.")
    return samples[:length] if samples.shape[-1] >= length else np.resize(samples, length)
