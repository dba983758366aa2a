"""Resamples a waveform: all of it, a part, or block by block, always with the same bits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torchaudio.functional import resample

from hf_gradalign.audio.sound import AudioDecodingError

# The most values in a filter bank. Rates with a small common divisor need more, which takes gigabytes.
_MAX_FILTER_BANK = 50_000_000
# For up to 20,480 values PyTorch uses another convolution, which rounds differently: parts must be longer.
_MIN_PART = 2**15
# Samples to resample at a time. Long parts are faster, because the edges are resampled twice.
_PART = 2**20
# torchaudio's filter: zero crossings, and the share of the lower rate's band that it keeps.
_CROSSINGS, _ROLLOFF = 6, 0.99


def resample_clip(samples: np.ndarray, source_rate: int, target_rate: int) -> np.ndarray:
    """Resample a waveform.

    Args:
        samples: float32, shape (time,).
        source_rate: Its rate in Hz.
        target_rate: The new rate in Hz.

    Returns:
        float32, shape (time,). `samples` itself if the rates are equal.

    Raises:
        AudioDecodingError: If the rates have too small a common divisor.
        MemoryError: If the result does not fit in memory.
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
        if "allocate" in str(error):  # torch has no separate error for this
            raise MemoryError(str(error)) from error
        raise


def resampled_length(n_samples: int, source_rate: int, target_rate: int) -> int:
    """Return the length of `resample_clip`'s result for a waveform of `n_samples` samples."""
    if source_rate == target_rate:
        return n_samples
    old, new = _ratio(source_rate, target_rate)
    # torchaudio rounds up in single precision, up to the length that its filter returns.
    wanted = int(torch.ceil(torch.as_tensor(new * n_samples / old)).long())
    return min(wanted, (n_samples // old + 1) * new)


def source_span(start: int, stop: int, n_samples: int, source_rate: int, target_rate: int) -> tuple[int, int]:
    """Return the samples that `resample_span` needs.

    Args:
        start: First sample wanted, at the target rate.
        stop: One past the last.
        n_samples: Length of the whole waveform, at the source rate.
        source_rate: In Hz.
        target_rate: In Hz.

    Returns:
        The first sample and one past the last, at the source rate. The first is a multiple of the filter's stride.
    """
    old, new = _ratio(source_rate, target_rate)
    last = min(((stop - 1) // new + 1) * old + _reach(old, new), n_samples)
    first = max(0, min(start // new * old - _reach(old, new), last - _MIN_PART) // old * old)
    return first, min(max(last, first + _MIN_PART), n_samples)


def resample_span(
    samples: np.ndarray, first: int, start: int, stop: int, source_rate: int, target_rate: int
) -> np.ndarray:
    """Resample a part of a waveform, with the same bits as when resampling all of it.

    Args:
        samples: The part from `source_span`, float32, shape (time,).
        first: Index of its first sample in the waveform.
        start: First sample wanted, at the target rate.
        stop: One past the last, at most `resampled_length`.
        source_rate: In Hz.
        target_rate: In Hz.
    """
    old, new = _ratio(source_rate, target_rate)
    begin = first // old * new
    resampled = resample_clip(samples, source_rate, target_rate)
    if len(resampled) < stop - begin:  # the length of the whole is rounded up
        resampled = resample_clip(np.append(samples, np.zeros(old, np.float32)), source_rate, target_rate)
    return resampled[start - begin : stop - begin]


def resample_blocks(blocks: Iterable[np.ndarray], source_rate: int, target_rate: int) -> Iterator[np.ndarray]:
    """Resample a waveform in blocks. Concatenated, the results equal `resample_clip` of the whole.

    Args:
        blocks: float32, shape (time,) each.
        source_rate: In Hz.
        target_rate: In Hz.
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
        kept = max(0, (stop // new * old - _reach(old, new) - _MIN_PART) // old * old)
        held, first, done = [samples[kept - first :]], kept, stop
        return span

    for block in blocks:
        held.append(block)
        total += len(block)
        ready = (total - _reach(old, new)) // old * new  # later samples do not affect these
        if (ready - done) // new * old >= _PART:
            yield resampled(ready)
    if (end := resampled_length(total, source_rate, target_rate)) > done:
        yield resampled(end)


def _ratio(source_rate: int, target_rate: int) -> tuple[int, int]:
    divisor = math.gcd(source_rate, target_rate)
    return source_rate // divisor, target_rate // divisor


def _reach(old: int, new: int) -> int:
    """Return how far torchaudio's filter reaches to either side of the `old` samples that become `new` samples."""
    return math.ceil(_CROSSINGS * old / (min(old, new) * _ROLLOFF))
