"""Which windows of a recording are scored, by what the model was saved with, and how their scores become one."""

import math
from collections.abc import Iterable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel
from transformers.feature_extraction_utils import FeatureExtractionMixin

from hf_gradalign.audio import AudioDecodingError, resample_clip, sound_of_array
from hf_gradalign.data import Window, crop, repeat_pad
from hf_gradalign.data.decoding import decode_clip, open_clip, scale_to_rms
from hf_gradalign.models import SpoofDetectorFeatureExtractor

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


# What the published detectors hear: 66,800 samples at 16 kHz.
_PROTOCOL_SECONDS = 66_800 / 16_000
# Several times what an encoder's convolutions need for a frame.
_LEAST_SECONDS = 0.1


def settle_windowing(
    feature_extractor: FeatureExtractionMixin,
    mode: WindowMode | None = None,
    window_seconds: float | None = None,
    hop_seconds: float | None = None,
    combine: Combination = "mean",
) -> Windowing:
    """What a model hears of a clip, as far as it is not said here by its feature extractor.

    Those of detectors say it by `n_samples` (None for whole clips), others that a training run saved by
    `n_scored_samples`. A model of someone else's is given the leading 4.175 s.

    Raises:
        ValueError: If an argument is out of its range, or has no meaning for these windows.
    """
    rate = feature_extractor.sampling_rate
    is_detectors = isinstance(feature_extractor, SpoofDetectorFeatureExtractor)
    # Not `n_samples` of any: Whisper's means something else by it.
    saved = getattr(feature_extractor, "n_samples" if is_detectors else "n_scored_samples", None)
    if window_seconds is not None and not _LEAST_SECONDS <= window_seconds < math.inf:
        raise ValueError(f"window_seconds must be at least {_LEAST_SECONDS}, not {window_seconds}")
    if hop_seconds is not None and not 0 < hop_seconds < math.inf:
        raise ValueError(f"hop_seconds must be positive, not {hop_seconds}")
    mode = mode or ("whole" if is_detectors and saved is None and window_seconds is None else "first")
    if mode != "all" and (hop_seconds is not None or combine != "mean"):
        raise ValueError(f"hop_seconds and combine are for windows 'all' (--windows all), and windows are {mode!r}")
    if mode == "whole" and window_seconds is not None:
        raise ValueError("window_seconds has no meaning for windows 'whole': a clip is heard in one piece")
    return Windowing(
        (saved or round(_PROTOCOL_SECONDS * rate)) if window_seconds is None else round(window_seconds * rate),
        mode,
        None if hop_seconds is None else round(hop_seconds * rate),
        combine,
        round(_LEAST_SECONDS * rate),
    )


def padding_is_harmless(model: PreTrainedModel, feature_extractor: FeatureExtractionMixin) -> bool:
    """Whether a clip gets the same score in a padded batch as alone.

    It takes an attention mask, and an encoder whose convolutions do not carry padding into the clip: a group norm over
    time does, and so do the convolutions between the layers of some.
    """
    config = getattr(model.config, "backbone_config", None) or model.config
    return (
        getattr(feature_extractor, "return_attention_mask", False)
        and getattr(config, "feat_extract_norm", None) == "layer"
        and config.model_type in ("wav2vec2", "hubert", "wavlm", "unispeech-sat")
    )


def taking_windows_as_they_are(feature_extractor: FeatureExtractionMixin) -> FeatureExtractionMixin:
    """The feature extractor for clips that have been cut and repeated already, to whatever length."""
    if isinstance(feature_extractor, SpoofDetectorFeatureExtractor):
        feature_extractor = copy(feature_extractor)
        feature_extractor.n_samples = None
    return feature_extractor
