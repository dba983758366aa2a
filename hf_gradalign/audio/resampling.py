"""Bring a waveform to another sampling rate: whole, a part of it, or block by block, to the same bits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torchaudio.functional import resample

from hf_gradalign.audio.errors import AudioDecodingError

# Two rates with a small common divisor need a filter bank of this many values; beyond it memory goes into gigabytes.
_MAX_FILTER_BANK = 50_000_000
# Below telephones, and above any converter: such a rate is a damaged header's.
LOWEST_RATE, HIGHEST_RATE = 1_000, 6_000_000
# Up to 20,480 values PyTorch convolves by another algorithm, whose sums round otherwise: parts must be longer.
_LEAST = 2**15
# A block's edges are resampled twice: so many samples at a time.
_STRETCH = 2**20
# torchaudio's filter: zero crossings, and the share of the lower rate's band that is kept.
_CROSSINGS, _ROLLOFF = 6, 0.99


def check_rate(rate: int) -> None:
    """Refuse a rate that no recording of speech has, before a second of it becomes gigabytes.

    Raises:
        AudioDecodingError: if it lies outside 1 kHz to 6 MHz.
    """
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise AudioDecodingError(
            f"its sampling rate of {rate} Hz is not one of speech ({LOWEST_RATE} to {HIGHEST_RATE} Hz): its header may "
            "be damaged"
        )


def resample_clip(samples: np.ndarray, source_rate: int, target_rate: int) -> np.ndarray:
    """Bring a waveform to another rate.

    Args:
        samples: float32, shape (time,).
        source_rate: its rate in Hz.
        target_rate: the rate wanted, in Hz.

    Returns:
        float32, shape (time,); `samples` itself where the rates are the same.

    Raises:
        AudioDecodingError: if the rates have too small a common divisor.
        MemoryError: if it does not fit in memory.
    """
    if source_rate == target_rate:
        return samples
    if math.prod(_ratio(source_rate, target_rate)) > _MAX_FILTER_BANK:
        raise AudioDecodingError(
            f"its sampling rate of {source_rate} Hz has too small a common divisor with {target_rate} Hz; "
            "resample the file beforehand"
        )
    try:
        return resample(torch.from_numpy(samples), source_rate, target_rate).numpy()
    except RuntimeError as error:
        if "allocate" in str(error):  # how torch says it
            raise MemoryError(str(error)) from error
        raise


def resampled_length(n_samples: int, source_rate: int, target_rate: int) -> int:
    """How many samples `resample_clip` makes of so many."""
    if source_rate == target_rate:
        return n_samples
    old, new = _ratio(source_rate, target_rate)
    # torchaudio rounds up in single precision, and has no more than its filter gives.
    wanted = int(torch.ceil(torch.as_tensor(new * n_samples / old)).long())
    return min(wanted, (n_samples // old + 1) * new)


def source_span(start: int, stop: int, n_samples: int, source_rate: int, target_rate: int) -> tuple[int, int]:
    """What `resample_span` needs for samples start to stop at the target rate of a waveform of so many samples.

    Returns:
        The first of its samples and one past the last; the first is a whole number of the filter's strides.
    """
    old, new = _ratio(source_rate, target_rate)
    last = min(((stop - 1) // new + 1) * old + _reach(old, new), n_samples)
    first = max(0, min(start // new * old - _reach(old, new), last - _LEAST) // old * old)
    return first, min(max(last, first + _LEAST), n_samples)


def resample_span(
    samples: np.ndarray, first: int, start: int, stop: int, source_rate: int, target_rate: int
) -> np.ndarray:
    """Samples start to stop of a resampled waveform, to the bits that resampling all of it gives.

    Args:
        samples: those of `source_span`, float32, shape (time,).
        first: the place of the first one.
        start: first sample wanted, at the target rate.
        stop: one past the last, at most `resampled_length`.
        source_rate: in Hz.
        target_rate: in Hz.
    """
    old, new = _ratio(source_rate, target_rate)
    begin = first // old * new
    resampled = resample_clip(samples, source_rate, target_rate)
    if len(resampled) < stop - begin:  # the length of the whole is rounded up
        resampled = resample_clip(np.append(samples, np.zeros(old, np.float32)), source_rate, target_rate)
    return resampled[start - begin : stop - begin]


def resample_blocks(blocks: Iterable[np.ndarray], source_rate: int, target_rate: int) -> Iterator[np.ndarray]:
    """Resample a waveform that comes in blocks; joined, what comes out is what `resample_clip` makes of the whole.

    Args:
        blocks: float32, shape (time,) each.
        source_rate: in Hz.
        target_rate: in Hz.
    """
    if source_rate == target_rate:
        yield from blocks
        return
    old, new = _ratio(source_rate, target_rate)
    held: list[np.ndarray] = []
    first, total, done = 0, 0, 0

    def resampled(stop: int) -> np.ndarray:
        nonlocal held, first, done
        samples = held[0] if len(held) == 1 else np.concatenate(held)
        begin, end = source_span(done, stop, total, source_rate, target_rate)
        span = resample_span(samples[begin - first : end - first], begin, done, stop, source_rate, target_rate)
        kept = max(0, (stop // new * old - _reach(old, new) - _LEAST) // old * old)
        held, first, done = [samples[kept - first :]], kept, stop
        return span

    for block in blocks:
        held.append(block)
        total += len(block)
        ready = (total - _reach(old, new)) // old * new  # what no later sample has a part in
        if (ready - done) // new * old >= _STRETCH:
            yield resampled(ready)
    if (end := resampled_length(total, source_rate, target_rate)) > done:
        yield resampled(end)


def _ratio(source_rate: int, target_rate: int) -> tuple[int, int]:
    divisor = math.gcd(source_rate, target_rate)
    return source_rate // divisor, target_rate // divisor


def _reach(old: int, new: int) -> int:
    """How far torchaudio's filter reaches to either side of `old` samples, of which it makes `new` ones."""
    return math.ceil(_CROSSINGS * old / (min(old, new) * _ROLLOFF))
