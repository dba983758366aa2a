"""Clips whose samples lie outside [-1, 1], as floating-point files and arrays allow."""

from __future__ import annotations

# What a resampler overshoots is not worth a word.
_HIGHEST = 1.001
# From here on they look like the integers of a 16-bit file that nobody divided.
_LIKE_INTEGERS = 100


class OutOfRangeClips:
    """Counts them, and remembers the loudest.

    Attributes:
        n_clips: how many there were.
        peak: the largest absolute value.
        loudest: the clip that has it.
    """

    def __init__(self) -> None:
        self.n_clips = 0
        self.peak = 0.0
        self.loudest = ""

    def add(self, name: str, peak: float | None) -> None:
        """Take note of a clip with this largest absolute value; None is of a file that cannot be out of range."""
        if not is_out_of_range(peak):
            return
        self.n_clips += 1
        if peak > self.peak:
            self.peak, self.loudest = peak, name

    def note(self, total: int) -> str | None:
        """What to say about them, if there are any among `total` clips."""
        if not self.n_clips:
            return None
        return (
            f"{self.n_clips} of {total} clips have samples outside [-1, 1]: up to {self.peak:.6g}, in {self.loudest}. "
            + ("They look like 16-bit integers: divide them by 32768. " if self.peak > _LIKE_INTEGERS else "")
            + "They are used as they are, and a model that does not normalize its input hears how loud they are"
        )


def is_out_of_range(peak: float | None) -> bool:
    """Whether a clip with this largest absolute value is out of range; None is of a file that cannot be."""
    return peak is not None and peak > _HIGHEST
