"""Windows of clips: a fixed number of samples, repeated if the clip is shorter, at a fixed level."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

CropMode = Literal["random", "leading"]


@dataclass(frozen=True)
class Window:
    """A window of a clip of any length.

    Args:
        n_samples: Length of the window in samples at the target rate, at least 1.
        position: Relative position in [0, 1): 0 is the start of the clip, values close to 1 its end. The same position
            can be applied to versions of a clip of different lengths.

    Raises:
        ValueError: If an argument is out of range.
    """

    n_samples: int
    position: float = 0.0

    def __post_init__(self) -> None:
        if self.n_samples < 1:
            raise ValueError(f"n_samples must be at least 1, not {self.n_samples}.")
        if not 0 <= self.position < 1:
            raise ValueError(f"position must lie in [0, 1), not {self.position}.")

    def bounds(self, total: int) -> tuple[int, int]:
        """First sample and one past the last, in a clip of `total` samples. A shorter clip is taken whole."""
        spare = max(total - self.n_samples, 0)
        # All spare + 1 starts are equally likely.
        start = int(self.position * (spare + 1))
        return start, min(start + self.n_samples, total)


def draw_position(mode: CropMode, rng: np.random.Generator) -> float:
    """Draw a window's position in [0, 1): uniform for `random`, 0 for `leading`.

    Raises:
        ValueError: If `mode` is neither.
    """
    check_crop_mode(mode)
    return float(rng.random()) if mode == "random" else 0.0


def check_crop_mode(mode: str) -> None:
    """Raise a ValueError unless `mode` is a `CropMode`."""
    if mode not in get_args(CropMode):
        raise ValueError(f"crop must be one of {', '.join(get_args(CropMode))}, not {mode!r}.")


def crop(samples: np.ndarray, window: Window) -> np.ndarray:
    """Return the window of `samples` (time on the last axis) as a view; all samples if the clip is shorter."""
    start, stop = window.bounds(samples.shape[-1])
    return samples[..., start:stop]


def repeat_pad(samples: np.ndarray, length: int) -> np.ndarray:
    """Repeat `samples` up to a length of `length`, or cut them there.

    The published anti-spoofing recipes pad this way (`pad` in the code of Tak et al., 2022). Unlike zero padding, it
    does not reveal the clip's length to the model.

    Args:
        samples: Shape (time,), at least one sample.
        length: Length of the result in samples, at least 1.

    Returns:
        An array of shape (length,) and the same dtype.

    Raises:
        ValueError: If there are no samples.
    """
    if samples.shape[-1] == 0:
        raise ValueError("cannot repeat a clip without samples.")
    return samples[:length] if samples.shape[-1] >= length else np.resize(samples, length)


def scale_to_rms(samples: np.ndarray, rms: float) -> np.ndarray:
    """Scale a waveform to the root mean square `rms`.

    RawBoost's distortion depends on the level: it grows with powers of the waveform.

    Args:
        samples: float32, shape (time,).
        rms: Root mean square, above 0; 0.1 leaves speech some headroom below 1.

    Returns:
        A float32 array of the same shape. Silence stays silence.
    """
    current = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) if samples.size else 0.0
    return samples if current == 0 else (samples * (rms / current)).astype(np.float32)
