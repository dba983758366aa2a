"""What a model hears of a clip: its first window, windows over all of it, or the whole at once."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from hf_gradalign.data import Window, crop, repeat_pad

WindowMode = Literal["first", "all", "whole"]
Combination = Literal["mean", "median", "min", "max"]

_COMBINE = {"mean": np.mean, "median": np.median, "min": np.min, "max": np.max}


@dataclass(frozen=True)
class Windowing:
    """How a clip is cut for the model, and how its windows' scores become one.

    Args:
        n_samples: A window's length in samples; shorter clips are repeated to it. Not looked at for `whole`.
        mode: `first`: the leading window, which is the protocol of the published detectors. `all`: windows from start
            to end, the last one moved back so that it ends with the clip. `whole`: the clip as it is, in one piece.
        hop_samples: From one window's start to the next one's in `all`; by default a window's length.
        combine: What becomes of the scores of a clip's windows; `min` is the most suspicious window's.
        least_samples: In `whole`, clips that are shorter are repeated to this length: no encoder takes a few samples.

    Raises:
        ValueError: If a length is not positive, or a name is unknown.
    """

    n_samples: int
    mode: WindowMode = "first"
    hop_samples: int | None = None
    combine: Combination = "mean"
    least_samples: int = 1

    def __post_init__(self) -> None:
        if self.mode not in get_args(WindowMode):
            raise ValueError(f"windows must be one of {', '.join(get_args(WindowMode))}, not {self.mode!r}")
        if self.combine not in get_args(Combination):
            raise ValueError(f"combine must be one of {', '.join(get_args(Combination))}, not {self.combine!r}")
        if self.n_samples < 1:
            raise ValueError(f"a window must have at least one sample, not {self.n_samples}")
        if self.hop_samples is not None and self.hop_samples < 1:
            raise ValueError(f"the hop must be at least one sample, not {self.hop_samples}")

    @property
    def decoded(self) -> Window | None:
        """The part of a clip that must be decoded, None for all of it."""
        return Window(self.n_samples) if self.mode == "first" else None

    def cut(self, samples: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """What the model hears of a clip.

        Args:
            samples: The clip, shape (time,), at least one sample.

        Returns:
            At least one waveform of shape (time,); of `n_samples` samples each unless the mode is `whole`.
        """
        if self.mode == "whole":
            return [samples if len(samples) >= self.least_samples else repeat_pad(samples, self.least_samples)]
        if self.mode == "first" or len(samples) <= self.n_samples:
            return [repeat_pad(crop(samples, Window(self.n_samples)), self.n_samples)]
        last = len(samples) - self.n_samples
        starts = [*range(0, last, self.hop_samples or self.n_samples), last]
        return [samples[start : start + self.n_samples] for start in starts]

    def cut_blocks(self, blocks: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
        """What `cut` gives of a clip in the mode `all`, where the clip comes in blocks."""
        length, hop = self.n_samples, self.hop_samples or self.n_samples
        held = np.zeros(0, np.float32)
        first = total = start = 0  # `first` is the place of the first sample that is held
        for block in blocks:
            held = np.concatenate([held, block])
            total += len(block)
            while start + length < total:  # there is more, so that it is not the last window
                yield held[start - first : start - first + length]
                start += hop
            kept = max(first, min(start, total - length))
            held, first = held[kept - first :], kept
        yield held[-length:] if total > length else repeat_pad(held, length)

    def combined(self, scores: NDArray[np.float64]) -> float:
        """One score of a clip, from those of its windows, shape (windows,)."""
        return float(_COMBINE[self.combine](scores))
