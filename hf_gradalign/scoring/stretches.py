"""Cut a recording into stretches, each with many overlapping windows, without holding all of it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hf_gradalign.data import repeat_pad


@dataclass(frozen=True, eq=False)
class Stretch:
    """Consecutive windows of a recording, and the samples that they lie in.

    Attributes:
        samples: float32, shape (time,).
        first: Position of the first sample in the recording.
        starts: Positions in the recording of the first sample of each window.
        n_samples: The recording's length in samples, as far as it is known: right in the last stretch.
    """

    samples: NDArray[np.float32]
    first: int
    starts: list[int]
    n_samples: int

    def windows(self, length: int) -> list[NDArray[np.float32]]:
        """Return the windows, waveforms of shape (length,)."""
        return [self.samples[start - self.first : start - self.first + length] for start in self.starts]


def cut_stretches(
    blocks: Iterable[NDArray[np.float32]], length: int, hop: int, n_windows: int, context: int = 0
) -> Iterator[Stretch]:
    """Cut a recording into stretches, with the windows of `Windowing.cut` in the mode `all`.

    Args:
        blocks: The recording's samples, at least one in all.
        length: Length of a window in samples. A shorter recording is repeated to fill one window.
        hop: Distance between windows in samples. The last one is moved back to end with the recording.
        n_windows: The most windows of a stretch.
        context: Samples that a stretch has before its first window and after its last, as far as there are any.

    Yields:
        The stretches, with `n_windows` windows each, except the last.
    """
    held = np.zeros(0, np.float32)
    first = total = start = 0  # `first` is the position of the first sample in `held`

    def stretch(starts: list[int]) -> Stretch:
        begin = max(starts[0] - context, 0)
        return Stretch(held[begin - first : starts[-1] + length + context - first], begin, starts, total)

    for block in blocks:
        held = np.concatenate([held, block])
        total += len(block)
        while start + (n_windows - 1) * hop + length + context < total:  # more samples follow: none of them is the last
            yield stretch([start + index * hop for index in range(n_windows)])
            start += n_windows * hop
        kept = max(first, min(start, total - length) - context)
        held, first = held[kept - first :], kept
    if total <= length:
        yield Stretch(repeat_pad(held, length), 0, [0], total)
        return
    starts = [*range(start, total - length, hop), total - length]
    for index in range(0, len(starts), n_windows):
        yield stretch(starts[index : index + n_windows])
