"""The base class of the transforms, and their checks of arguments and samples."""

import math
import numbers
from abc import abstractmethod
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from audiomentations.core.transforms_interface import BaseWaveformTransform
from numpy.typing import NDArray


class SpeechTransform(BaseWaveformTransform):
    """Base class: checks the samples and returns finite float32.

    Subclasses draw in `randomize_parameters`, and transform deterministically in `_transform`.
    """

    supports_multichannel = True

    def __call__(self, samples: NDArray[np.floating], sample_rate: int) -> NDArray[np.floating]:
        """Draw parameters, unless they are frozen, and apply them.

        Raises:
            ValueError: If the samples are not a NumPy array, or as described in `apply`.
        """
        if not isinstance(samples, np.ndarray):
            raise ValueError(
                f"{type(self).__name__} takes a NumPy array; got {type(samples).__name__}: convert the samples, "
                "as with tensor.numpy()"
            )
        if samples.size == 0:  # the base class would report swapped axes
            return samples
        return super().__call__(samples, sample_rate)

    def randomize_parameters(self, samples: NDArray[np.floating], sample_rate: int) -> None:
        """Draw whether to apply the transform, into a new dictionary because callers may keep earlier `parameters`."""
        self.parameters: dict[str, Any] = {}
        super().randomize_parameters(samples, sample_rate)

    def apply(self, samples: NDArray[np.floating], sample_rate: int) -> NDArray[np.float32]:
        """Apply the drawn parameters. The result depends only on the samples and `self.parameters`.

        Args:
            samples: Finite floating-point waveform of shape (samples,) or (channels, samples).
            sample_rate: In Hz.

        Returns:
            A new, finite float32 array of the same shape. Empty samples are returned unchanged.

        Raises:
            ValueError: If the samples are not floating-point, not finite, or have more than two axes.
        """
        if samples.size == 0:
            return samples
        check_samples(type(self).__name__, samples)
        transformed = self._transform(to_torch_compatible(samples), sample_rate)
        if transformed.dtype == np.float32:
            return transformed
        limits = np.finfo(np.float32)
        return np.clip(transformed, limits.min, limits.max).astype(np.float32)

    @abstractmethod
    def _transform(self, samples: NDArray[np.floating], sample_rate: int) -> NDArray[np.floating]:
        """Return transformed samples of the same shape, finite in their type. Does not modify `samples`."""


def check_number(name: str, value: Any, low: float, high: float) -> float:
    """Return `value` as a float if it is a real number in [`low`, `high`].

    Args:
        name: The argument's name, for the message.
        value: The argument.
        low: The smallest allowed value.
        high: The largest allowed value; may be `math.inf`.

    Raises:
        ValueError: If `value` is not a finite real number in the range.
    """
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not (is_number and math.isfinite(value) and low <= value <= high):
        allowed = f"in [{low:g}, {high:g}]" if math.isfinite(high) else f">= {low:g}"
        raise ValueError(f"{name} must be a finite number {allowed}; got {value!r}")
    return float(value)


def check_integer(name: str, value: Any, low: int, high: int | None = None) -> int:
    """Return `value` as an int if it is an integer in [`low`, `high`]. If `high` is None, there is no upper limit.

    Raises:
        ValueError: If `value` is not an integer in the range.
    """
    is_integer = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not (is_integer and low <= value and (high is None or value <= high)):
        allowed = f">= {low}" if high is None else f"in [{low}, {high}]"
        raise ValueError(f"{name} must be an integer {allowed}; got {value!r}")
    return int(value)


def check_ordered(min_name: str, min_value: float, max_name: str, max_value: float) -> None:
    """Raise if the lower end of a range is above its upper end.

    Raises:
        ValueError: If `min_value` > `max_value`.
    """
    if min_value > max_value:
        raise ValueError(f"{min_name} must be <= {max_name}; got {min_name}={min_value!r} and {max_name}={max_value!r}")


def check_samples(transform: str, samples: NDArray[Any]) -> None:
    """Raise if samples cannot be transformed.

    Args:
        transform: The transform's name, for the message.
        samples: Its input.

    Raises:
        ValueError: If the samples are not floating-point, not finite, or have more than two axes.
    """
    if not np.issubdtype(samples.dtype, np.floating):
        raise ValueError(
            f"{transform} takes floating-point samples; got {samples.dtype}: convert them and scale them to [-1, 1]"
        )
    if samples.ndim > 2:
        raise ValueError(f"samples must have shape (samples,) or (channels, samples); got {samples.shape}")
    if not np.isfinite(samples).all():
        raise ValueError(
            f"samples must be finite; {np.count_nonzero(~np.isfinite(samples))} of {samples.size} are NaN or infinite"
        )


def to_torch_compatible(samples: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return samples that torch can use: a copy if the array is reversed, read-only or of foreign byte order."""
    dtype = samples.dtype.newbyteorder("=") if samples.dtype.itemsize <= 8 else np.dtype(np.float64)
    return np.require(samples, dtype, ["C_CONTIGUOUS", "WRITEABLE"])


@contextmanager
def single_thread() -> Generator[None]:
    """Make torch compute in one thread inside the block.

    One thread is faster for small work, gives the same bits on every machine, and works in forked processes, where
    OpenMP would wait forever for its other threads.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
