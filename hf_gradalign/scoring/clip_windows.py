"""What a model hears of a clip, window by window: of a recording of hours only a part is in memory at a time."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_gradalign.audio import AudioDecodingError, resample_clip, sound_of_array
from hf_gradalign.data.decoding import decode_clip, open_clip
from hf_gradalign.data.level import scale_to_rms
from hf_gradalign.scoring.windowing import Windowing

# Clips up to this many samples (64 MB) are decoded whole; of longer ones windows are cut on the way.
_LONG = 2**24
# Memory grows with the length: an encoder of 300 M parameters takes tens of gigabytes for so much in one piece.
LONGEST_WHOLE_SECONDS = 1200


class ClipWindows:
    """The windows of one clip, in order.

    Args:
        clip: Encoded audio, or `{"array", "sampling_rate"}`.
        sampling_rate: Of the model, in Hz.
        windowing: How it is cut.
        rms_level: Bring it to this root mean square first; None leaves its level alone.

    Attributes:
        peak: As of a `DecodedClip`, when all windows have been given.
        seconds: How long the file lasts, where its header says so.
    """

    def __init__(self, clip: Any, sampling_rate: int, windowing: Windowing, rms_level: float | None = None) -> None:
        self.peak: float | None = None
        self.seconds: float | None = None
        self._clip = clip
        self._rate = sampling_rate
        self._windowing = windowing
        self._rms_level = rms_level

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        """Give the windows, waveforms of shape (time,).

        Raises:
            AudioDecodingError: If the clip cannot be decoded, which may show at its end only, or is too long.
        """
        if isinstance(self._clip, Mapping) and self._clip.get("array") is not None:
            sound = sound_of_array(self._clip["array"], self._clip.get("sampling_rate") or self._rate)
            self.peak = sound.peak
            try:
                yield from self._cut(resample_clip(sound.samples, sound.rate, self._rate))
            except MemoryError as error:
                raise AudioDecodingError("it does not fit in memory: cut it into shorter ones") from error
        elif self._windowing.mode == "first":
            decoded = decode_clip(self._clip, self._rate, window=self._windowing.decoded)
            self.peak = decoded.peak
            yield from self._cut(decoded.samples)
        else:
            yield from self._streamed()

    def _streamed(self) -> Iterator[NDArray[np.float32]]:
        is_whole = self._windowing.mode == "whole"
        longest = LONGEST_WHOLE_SECONDS * self._rate if is_whole else _LONG
        with open_clip(self._clip, self._rate) as clip:
            self.seconds = clip.sound.seconds
            blocks = iter(clip)
            begin, n_samples = [], 0
            for block in blocks:
                begin.append(block)
                n_samples += len(block)
                if n_samples > longest:
                    break
            else:
                self.peak = clip.peak
                yield from self._cut(begin[0] if len(begin) == 1 else np.concatenate(begin))
                return
            if is_whole:
                raise AudioDecodingError(
                    f"it lasts more than {LONGEST_WHOLE_SECONDS} s, too long to be heard in one piece: use windows "
                    "'all' (--windows all)"
                )
            blocks = chain(begin, blocks)
            if self._rms_level is None:
                yield from self._windowing.cut_blocks(blocks)
            else:
                yield from self._windowing.cut_blocks(self._scaled_blocks(_level_of(blocks)))
            self.peak = clip.peak

    def _cut(self, samples: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        return self._windowing.cut(samples if self._rms_level is None else scale_to_rms(samples, self._rms_level))

    def _scaled_blocks(self, level: float) -> Iterator[NDArray[np.float32]]:
        with open_clip(self._clip, self._rate) as clip:
            for block in clip:
                yield block if level == 0 else (block * (self._rms_level / level)).astype(np.float32)


def _level_of(blocks: Iterable[NDArray[np.float32]]) -> float:
    power, n_samples = 0.0, 0
    for block in blocks:
        power += float(np.sum(np.square(block, dtype=np.float64)))
        n_samples += len(block)
    return float(np.sqrt(power / n_samples))
