"""Chooses the windows of a recording to score, by the model's saved settings, and combines their scores."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray
from transformers import SequenceFeatureExtractor
from transformers.feature_extraction_utils import FeatureExtractionMixin

from hf_gradalign.audio import AudioDecodingError, resample_clip, sound_of_array
from hf_gradalign.data import Window, crop, repeat_pad
from hf_gradalign.data.decoding import decode_clip, open_clip, scale_to_rms
from hf_gradalign.models import WINDOW_SECONDS, SpoofDetectorFeatureExtractor
from hf_gradalign.models.clip_lengths import samples_taken
from hf_gradalign.utils.messages import check_choice

WindowMode = Literal["first", "all", "whole"]
Combination = Literal["mean", "median", "min", "max"]

# Several times the length that an encoder's convolutions need for one frame.
_MIN_SECONDS = 0.1
_COMBINE = {"mean": np.mean, "median": np.median, "min": np.min, "max": np.max}


@dataclass(frozen=True)
class Windowing:
    """How to cut a clip into windows, and how to combine the windows' scores.

    Args:
        n_samples: Length of a window in samples. Shorter clips are repeated. Ignored for `whole`.
        mode: `first`: the leading window, as for the published detectors. `all`: windows from start to end, with the
            last one moved back to end with the clip. `whole`: the whole clip.
        hop_samples: Distance between the starts of windows for `all`. Defaults to the length of a window.
        combine: How to combine the scores of a clip's windows. `min` takes the most suspicious window's score.
        min_samples: For `whole`, shorter clips are repeated to this length, because encoders need a few samples.
        max_samples: For `whole`, the longest clip that the model accepts; None for any length.

    Raises:
        ValueError: If a length is not positive, or a name is unknown.
    """

    n_samples: int
    mode: WindowMode = "first"
    hop_samples: int | None = None
    combine: Combination = "mean"
    min_samples: int = 1
    max_samples: int | None = None

    def __post_init__(self) -> None:
        check_choice("windows", self.mode, WindowMode)
        check_choice("combine", self.combine, Combination)
        if self.n_samples < 1:
            raise ValueError(f"a window must have at least one sample, not {self.n_samples}")
        if self.hop_samples is not None and self.hop_samples < 1:
            raise ValueError(f"the hop must be at least one sample, not {self.hop_samples}")

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that scores depend on, for JSON: the mode, and the numbers that matter in that mode."""
        return {
            "windows": self.mode,
            "window_samples": None if self.mode == "whole" else self.n_samples,
            "hop_samples": self.hop_samples if self.mode == "all" else None,
            "combine": self.combine if self.mode == "all" else None,
        }

    def cut(self, samples: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Cut a clip into windows.

        Args:
            samples: The clip, shape (time,), at least one sample.

        Returns:
            At least one window, shape (n_samples,), or (time,) if the mode is `whole`.
        """
        if self.mode == "whole":
            return [samples if len(samples) >= self.min_samples else repeat_pad(samples, self.min_samples)]
        if self.mode == "first" or len(samples) <= self.n_samples:
            return [repeat_pad(crop(samples, Window(self.n_samples)), self.n_samples)]
        last = len(samples) - self.n_samples
        starts = [*range(0, last, self.hop_samples or self.n_samples), last]
        return [samples[start : start + self.n_samples] for start in starts]

    def cut_blocks(self, blocks: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
        """Cut a clip that comes in blocks, with the same windows as `cut` in the mode `all`."""
        for stretch in cut_stretches(blocks, self.n_samples, self.hop_samples or self.n_samples, n_windows=1):
            yield from stretch.windows(self.n_samples)

    def combined(self, scores: NDArray[np.float64]) -> float:
        """Combine the scores of a clip's windows, shape (windows,), into one."""
        return float(_COMBINE[self.combine](scores))


@dataclass(frozen=True, eq=False)
class Stretch:
    """Consecutive windows of a recording, which may overlap, and the samples that contain them.

    Attributes:
        samples: float32, shape (time,).
        first: Position of the first sample in the recording.
        starts: Positions in the recording of the first sample of each window.
        n_samples: The recording's length in samples, as far as it is known. It is exact in the last stretch.
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
    """Cut a recording piece by piece into stretches, with the windows of `Windowing.cut` in the mode `all`.

    Args:
        blocks: The recording's samples, at least one in all.
        length: Length of a window in samples. A shorter recording is repeated to fill one window.
        hop: Distance between windows in samples. The last one is moved back to end with the recording.
        n_windows: Largest number of windows in a stretch.
        context: Number of samples that a stretch has before its first window and after its last, as far as they exist.

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
        # While more samples follow, none of these windows is the last.
        while start + (n_windows - 1) * hop + length + context < total:
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


# Models that cut whole clips cut them to less than this (Whisper to 30 s, AST to 10 s).
_LONGEST_CUT_SECONDS = 60
# Clips of up to this many samples (64 MB) are decoded first. Longer ones are cut into windows while they are decoded.
_LONG = 2**24
# Memory grows with the length. An encoder with 300M parameters takes tens of gigabytes for a clip of this length.
MAX_WHOLE_SECONDS = 1200


class ClipWindows:
    """Iterates over the windows of one clip.

    Args:
        clip: Encoded audio, or `{"array", "sampling_rate"}`, as from `as_clips`.
        sampling_rate: The model's sampling rate in Hz.
        windowing: How to cut the clip.
        rms_level: Scale the clip to this root mean square first. None keeps its level.

    Attributes:
        peak: As for a `DecodedClip`, after the last window.
        seconds: The duration, as soon as it is known. The header of a long file may not contain it.
    """

    def __init__(self, clip: Any, sampling_rate: int, windowing: Windowing, rms_level: float | None = None) -> None:
        self.peak: float | None = None
        self.seconds: float | None = None
        self._clip = clip
        self._rate = sampling_rate
        self._windowing = windowing
        self._rms_level = rms_level

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        """Yield the windows, waveforms of shape (time,).

        Raises:
            AudioDecodingError: If the clip cannot be decoded (which may become apparent only at its end) or is too
                long.
        """
        if self._windowing.mode == "all":
            yield from self._windowing.cut_blocks(self.blocks())
        elif self._windowing.mode == "first" and not self._is_array:
            decoded = decode_clip(self._clip, self._rate, window=Window(self._windowing.n_samples))
            self.peak = decoded.peak
            yield from self._windowing.cut(self._scale_to_level(decoded.samples))
        else:
            for samples in self.blocks():
                limit = self._windowing.max_samples if self._windowing.mode == "whole" else None
                if limit is not None and len(samples) > limit:
                    raise AudioDecodingError(
                        f"it is longer than the {limit / self._rate:.5g} s that the model accepts: use windows 'all' "
                        "(--windows all)"
                    )
                yield from self._windowing.cut(samples)

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Yield the clip's samples at the model's sampling rate, in one block unless it is long.

        For windows `whole`, there is always one block.

        Raises:
            AudioDecodingError: As for iterating over the windows.
        """
        if self._is_array:
            sound = sound_of_array(self._clip["array"], self._clip.get("sampling_rate") or self._rate)
            self.peak = sound.peak
            try:
                samples = self._scale_to_level(resample_clip(sound.samples, sound.rate, self._rate))
            except MemoryError as error:
                raise AudioDecodingError("it does not fit in memory: cut it into shorter clips") from error
            self.seconds = len(samples) / self._rate
            yield samples
            return
        is_whole = self._windowing.mode == "whole"
        longest = MAX_WHOLE_SECONDS * self._rate if is_whole else _LONG
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
                self.seconds = n_samples / self._rate
                yield self._scale_to_level(begin[0] if len(begin) == 1 else np.concatenate(begin))
                return
            if is_whole:
                raise AudioDecodingError(
                    f"it is longer than {MAX_WHOLE_SECONDS} s, too long for windows 'whole': use windows 'all' "
                    "(--windows all)"
                )
            blocks = chain(begin, blocks)
            if self._rms_level is None:
                yield from blocks
            else:
                yield from self._scaled_blocks(self._rms_level / rms if (rms := _rms_of(blocks)) else None)
            self.peak = clip.peak

    @property
    def _is_array(self) -> bool:
        return isinstance(self._clip, Mapping) and self._clip.get("array") is not None

    def _scale_to_level(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        return samples if self._rms_level is None else scale_to_rms(samples, self._rms_level)

    def _scaled_blocks(self, gain: float | None) -> Iterator[NDArray[np.float32]]:
        """Decode the clip again, scaled by `gain`. None leaves silence unchanged."""
        with open_clip(self._clip, self._rate) as clip:
            for block in clip:
                yield block if gain is None else (block * gain).astype(np.float32)


def _rms_of(blocks: Iterable[NDArray[np.float32]]) -> float:
    power, n_samples = 0.0, 0
    for block in blocks:
        power += float(np.sum(np.square(block, dtype=np.float64)))
        n_samples += len(block)
    return float(np.sqrt(power / n_samples))


def choose_windowing(
    feature_extractor: FeatureExtractionMixin,
    mode: WindowMode | None = None,
    window_seconds: float | None = None,
    hop_seconds: float | None = None,
    combine: Combination = "mean",
) -> Windowing:
    """Choose a model's windows. Arguments that are None come from its feature extractor.

    Feature extractors of our detectors store `n_samples` (None for whole clips). Those of other models that were
    trained here store `n_scored_samples`. Any other model gets the leading 4.175 s, or as much of them as it accepts.

    Raises:
        ValueError: If an argument is out of range or does not apply to the mode, or the window is longer than the
            feature extractor accepts.
    """
    rate = cast(SequenceFeatureExtractor, feature_extractor).sampling_rate
    is_detectors = isinstance(feature_extractor, SpoofDetectorFeatureExtractor)
    # `n_samples` of other models is not used, because Whisper's has another meaning.
    saved = getattr(feature_extractor, "n_samples" if is_detectors else "n_scored_samples", None)
    if window_seconds is not None and not _MIN_SECONDS <= window_seconds < math.inf:
        raise ValueError(f"window_seconds must be at least {_MIN_SECONDS}, not {window_seconds}")
    if hop_seconds is not None and not 0 < hop_seconds < math.inf:
        raise ValueError(f"hop_seconds must be positive, not {hop_seconds}")
    mode = mode or ("whole" if is_detectors and saved is None and window_seconds is None else "first")
    if mode != "all" and (hop_seconds is not None or combine != "mean"):
        raise ValueError(f"hop_seconds and combine apply only to windows 'all' (--windows all), not to {mode!r}")
    if mode == "whole" and window_seconds is not None:
        raise ValueError("window_seconds does not apply to windows 'whole'")
    hop = None if hop_seconds is None else round(hop_seconds * rate)
    least = round(_MIN_SECONDS * rate)
    if mode == "whole":
        longest = _LONGEST_CUT_SECONDS * rate
        limit = samples_taken(feature_extractor, longest)
        n_samples = saved or round(WINDOW_SECONDS * rate)
        return Windowing(n_samples, mode, hop, combine, least, None if limit == longest else limit)
    n_samples = saved if window_seconds is None else round(window_seconds * rate)
    if n_samples is None:
        n_samples = samples_taken(feature_extractor, round(WINDOW_SECONDS * rate))
    limit = samples_taken(feature_extractor, n_samples)
    if limit < n_samples:
        raise ValueError(
            f"the model accepts at most {limit / rate:.5g} s, and its feature extractor would cut windows of "
            f"{n_samples / rate:.5g} s: use shorter ones (--window_seconds)"
        )
    return Windowing(n_samples, mode, hop, combine, least)
