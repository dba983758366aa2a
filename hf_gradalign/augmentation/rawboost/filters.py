"""RawBoost's random multi-band notch filters, and filtering with their frequency responses."""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# The smallest distance of a cut-off from 0 Hz and from the Nyquist frequency.
EDGE_HZ = 1e-3
# The peak response is measured at this many frequencies, from 0 to just below the Nyquist frequency.
N_GRID = 512
# The product of this many bands cannot underflow.
_BANDS_AT_ONCE = 8
# With an FFT of four times the filter's length, only a quarter of the work is lost to overlap, and it fits in the
# cache.
MIN_BLOCK = 2048
# This limits the memory for long recordings.
_BLOCKS_AT_ONCE = 512


class NotchFilter(TypedDict):
    """The random parameters of one cascade of notch filters. Each list has one entry per band.

    Attributes:
        center_freqs: Center of each stop band in Hz.
        bandwidths: Width of each stop band in Hz, >= 0.
        taps: Length of each band's FIR filter, odd.
        gain_db: Peak response of the cascade in dB.
    """

    center_freqs: list[float]
    bandwidths: list[float]
    taps: list[int]
    gain_db: float


def longest_reach(clips: Sequence[Sequence[NotchFilter]]) -> int:
    """Return how far the longest filter extends to either side of a sample, in samples."""
    return max(sum(taps // 2 for taps in notch["taps"]) for notches in clips for notch in notches)


def notch_responses(clips: Sequence[Sequence[NotchFilter]], sample_rate: float, n_fft: int) -> NDArray[np.float64]:
    """Compute the frequency responses of cascades of band-stop filters, with their delays removed.

    Each band is a windowed-sinc band-stop filter with a Hamming window, as designed by `scipy.signal.firwin`. The
    cascade's response is the product of its bands' responses, scaled so that its peak over 512 frequencies equals the
    gain. Cut-offs below 0 Hz or above the Nyquist frequency are moved to 1 mHz inside. The filters are symmetric, so
    the response without the delay is real.

    Source: Tak et al., "RawBoost", ICASSP 2022 (arXiv 2111.04433), multi-band filters of its first and third noise.

    Args:
        clips: The drawn parameters of each clip's filters, the same number for each clip.
        sample_rate: In Hz.
        n_fft: A multiple of 1024, at least `2 * longest_reach(clips) + 2`.

    Returns:
        Responses at the frequencies 0, 1/n_fft, ... 1/2 of the sample rate, of shape (clips, filters, n_fft // 2 + 1).

    Raises:
        ValueError: If clips have different numbers of filters, or filters have different numbers of bands.
    """
    keys = ("center_freqs", "bandwidths", "taps")
    bands = np.array([[[notch[key] for notch in notches] for notches in clips] for key in keys])
    gains = 10 ** (np.array([[notch["gain_db"] for notch in notches] for notches in clips]) / 20)
    bands[2] //= 2
    reach = int(bands[2].sum(axis=-1).max())
    # The product of the bands needs only the shortest FFT that holds the cascade.
    n_short = 1 << (2 * reach + 1).bit_length()
    cascade = _product(_band_responses(bands, sample_rate / 2, n_short))
    # Twice one side has the same real part as both sides.
    half = 2 * np.fft.irfft(cascade, n_short)[..., : reach + 1]
    half[..., 0] /= 2
    responses = np.fft.rfft(half, n_fft).real
    peaks = np.abs(responses[..., : n_fft // 2 : n_fft // (2 * N_GRID)]).max(axis=-1)
    return responses * (gains / peaks)[..., None]


def _product(bands: NDArray[np.float64]) -> NDArray[np.float64]:
    """Multiply the bands' responses, of shape (..., bands, bins), and scale the product to peak 1."""
    # firwin scales each band to a response of 1 at 0 Hz. The cascade is scaled later, so only the sign matters here;
    # this avoids dividing by a response near zero, which wide stop bands can have.
    cascade = np.copysign(1.0, bands[..., :1]).prod(axis=-2)
    for first in range(0, bands.shape[-2], _BANDS_AT_ONCE):  # many wide stop bands at once would underflow
        cascade = cascade * bands[..., first : first + _BANDS_AT_ONCE, :].prod(axis=-2)
        cascade /= np.abs(cascade).max(axis=-1, keepdims=True)
    return cascade


def _band_responses(bands: NDArray[np.float64], nyquist: float, n_fft: int) -> NDArray[np.float64]:
    """Compute the real, unscaled response of each band. Shape (clips, filters, bands, n_fft // 2 + 1).

    Args:
        bands: Centers and widths in Hz, and each filter's reach in samples. Shape (3, ..., bands).
        nyquist: In Hz.
        n_fft: At least twice the longest reach.
    """
    centers, widths, reaches = bands
    edges = np.stack([centers - widths / 2, centers + widths / 2], axis=-1)
    edges = np.clip(edges, EDGE_HZ, nyquist - EDGE_HZ) * (np.pi / nyquist)
    times = np.arange(1, int(reaches.max()) + 1)
    # The whole signal, plus a low-pass at the lower cut-off, minus a low-pass at the upper one.
    half = np.empty((*centers.shape, len(times) + 1))
    half[..., 0] = 1 + (edges[..., 0] - edges[..., 1]) / np.pi
    sines = np.sin(edges[..., None] * times)
    np.subtract(sines[..., 0, :], sines[..., 1, :], out=half[..., 1:])
    window = np.cos(times * (np.pi / np.maximum(reaches, 1))[..., None])
    window *= 0.46
    window += 0.54
    window *= 2 / (np.pi * times)
    window *= times <= reaches[..., None]
    half[..., 1:] *= window
    return np.fft.rfft(half, n_fft).real


def block_length(reach: int) -> int:
    """Return the FFT length to filter with: a power of two, at least four times the filter's length.

    Args:
        reach: How far the longest filter extends to either side of a sample, in samples.
    """
    return max(MIN_BLOCK, 1 << (4 * (2 * reach + 1) - 1).bit_length())


def filter_powers(samples: Tensor, responses: Tensor, reach: int) -> Tensor:
    """Filter each power of a waveform with its own filter, and sum the results.

    output[n] = sum_k (filter_k * samples**k)[n + 1], k = 1, 2, ... As in the published code, the filters' delay plus
    one sample is removed. The waveform is padded with silence.

    Works block by block (overlap-save). The sum is taken in the frequency domain, so one inverse FFT is enough.

    Args:
        samples: Waveforms of shape (batch, samples).
        responses: Real responses of shape (batch, powers, block // 2 + 1), where block is `block_length(reach)`.
        reach: How far the longest filter extends to either side of a sample, in samples.

    Returns:
        A tensor of shape (batch, samples), of the samples' type.
    """
    n_samples = samples.shape[-1]
    block = 2 * (responses.shape[-1] - 1)
    reach = max(reach, 1)
    hop = block - 2 * reach
    n_blocks = -(-n_samples // hop)
    before, after = (samples.new_zeros(len(samples), n) for n in (reach - 1, n_blocks * hop + reach + 1 - n_samples))
    padded = torch.cat([before, samples, after], dim=-1)  # faster than `functional.pad`
    blocks = padded.unfold(-1, block, hop)
    weights = responses.to(samples.dtype).repeat_interleave(2, dim=-1)[:, :, None]  # for real and imaginary parts
    outputs = [_filter_blocks(some, weights)[..., reach : reach + hop] for some in blocks.split(_BLOCKS_AT_ONCE, dim=1)]
    filtered = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)
    return filtered.flatten(1)[:, :n_samples]


def _filter_blocks(blocks: Tensor, weights: Tensor) -> Tensor:
    """Sum the filtered powers of blocks (batch, blocks, block), with weights (batch, powers, 1, 2 * bins)."""
    blocks = blocks.contiguous()
    total = torch.view_as_real(torch.fft.rfft(blocks)).flatten(-2) * weights[:, 0]
    powers = blocks
    for power in range(1, weights.shape[1]):  # one power at a time, to stay in the cache
        powers = powers * blocks if power == 1 else powers.mul_(blocks)
        total.addcmul_(torch.view_as_real(torch.fft.rfft(powers)).flatten(-2), weights[:, power])
    return torch.fft.irfft(torch.view_as_complex(total.unflatten(-1, (-1, 2))), blocks.shape[-1])
