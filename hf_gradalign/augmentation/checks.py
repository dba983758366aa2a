"""Checks of constructor arguments (each returns the value as a plain Python number) and of samples, with a message."""

import math
import numbers
from typing import Any

import numpy as np
from numpy.typing import NDArray


def check_number(name: str, value: Any, low: float, high: float) -> float:
    """Return `value` as a float if it is a real number in [`low`, `high`].

    Args:
        name: The argument's name, for the message.
        value: What the caller gave.
        low: The least value allowed.
        high: The greatest finite value allowed; may be `math.inf`.

    Raises:
        ValueError: If `value` is not a finite real number in the range.
    """
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not (is_number and math.isfinite(value) and low <= value <= high):
        allowed = f"in [{low:g}, {high:g}]" if math.isfinite(high) else f">= {low:g}"
        raise ValueError(f"{name} must be a finite number {allowed}; got {value!r}")
    return float(value)


def check_integer(name: str, value: Any, low: int, high: int | None = None) -> int:
    """Return `value` as an int if it is an integer in [`low`, `high`] (no upper limit if `high` is None).

    Raises:
        ValueError: If `value` is not an integer in the range.
    """
    is_integer = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not (is_integer and low <= value and (high is None or value <= high)):
        allowed = f">= {low}" if high is None else f"in [{low}, {high}]"
        raise ValueError(f"{name} must be an integer {allowed}; got {value!r}")
    return int(value)


def check_ordered(min_name: str, min_value: float, max_name: str, max_value: float) -> None:
    """Refuse a range whose lower end is above its upper end.

    Raises:
        ValueError: If `min_value` > `max_value`.
    """
    if min_value > max_value:
        raise ValueError(f"{min_name} must be <= {max_name}; got {min_name}={min_value!r} and {max_name}={max_value!r}")


def check_samples(transform: str, samples: NDArray[Any]) -> None:
    """Refuse what a transform of waveforms does not take.

    Args:
        transform: The transform's name, for the message.
        samples: What it was called with.

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
