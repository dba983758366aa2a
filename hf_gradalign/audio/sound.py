"""Sound as it comes out of a file: all of it, or a block of neighboring samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Sound:
    """What was read.

    Attributes:
        samples: float32, shape (time,), nominally in [-1, 1], channels averaged.
        rate: in Hz.
        is_window: whether `samples` are the window that was asked for, rather than all there is.
        stored_as_floats: whether the file has floating-point numbers, which can lie outside [-1, 1].
        file_peak: the largest absolute value in the file, where `samples` have been resampled since.
    """

    samples: np.ndarray
    rate: int
    is_window: bool = False
    stored_as_floats: bool = False
    file_peak: float | None = None

    @property
    def peak(self) -> float | None:
        """The largest absolute value of samples that can lie outside [-1, 1]; None of others."""
        if not self.stored_as_floats:
            return None
        return float(np.abs(self.samples).max()) if self.file_peak is None else self.file_peak


@dataclass(frozen=True)
class Block:
    """Some neighboring samples of a file.

    Attributes:
        samples: float32, shape (time,), channels averaged.
        rate: in Hz.
        stored_as_floats: as of a `Sound`.
        begins: whether it is the first of its recording, of which a file may hold several, or of its rate.
    """

    samples: np.ndarray
    rate: int
    stored_as_floats: bool
    begins: bool
