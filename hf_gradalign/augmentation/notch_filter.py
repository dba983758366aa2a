"""RawBoost's random multi-band notch filters: their design, and filtering with their delay taken out."""

from collections.abc import Iterator, Sequence
from typing import TypedDict

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.fft import next_fast_len

# Cut-offs keep this distance from 0 Hz and from the Nyquist frequency.
EDGE_HZ = 1e-3
# The peak response is looked for on this many frequencies from 0 up to, and without, the Nyquist frequency.
N_GRID = 512
# A transform of four times the filter wastes a quarter of the work on overlap and still fits the processor's cache.
MIN_BLOCK = 2048


class NotchFilter(TypedDict):
    """What is drawn for one cascade of notch filters; the lists have one entry a band.

    Attributes:
        center_freqs: Centre of each stop band in Hz.
        bandwidths: Width of each stop band in Hz, >= 0.
        taps: Length of each band's FIR filter, odd.
        gain_db: Peak response of the cascade in dB.
    """

    center_freqs: list[float]
    bandwidths: list[float]
    taps: list[int]
    gain_db: float


def design_notch_filter(notch: NotchFilter, sample_rate: int) -> NDArray[np.float64]:
    """Compute the impulse response of a cascade of band-stop filters.

    Each band is a windowed-sinc band-stop filter with a Hamming window, the one that `scipy.signal.firwin` designs; the
    cascade is scaled so that its greatest response, over a grid of 512 frequencies, is the gain. Cut-offs outside the
    band from 0 Hz to the Nyquist frequency are moved to 1 mHz inside it.

    Source: Tak et al., "RawBoost", ICASSP 2022 (arXiv 2111.04433), multi-band filters of its first and third noise.

    Args:
        notch: The drawn parameters.
        sample_rate: In Hz.

    Returns:
        The symmetric impulse response, of shape (sum of (taps - 1) + 1,): an odd length.
    """
    cascade = np.ones(1)
    for band in _band_stops(notch, sample_rate / 2):
        # firwin gives each band a response of 1 at 0 Hz. The cascade's scale is set below, so of that only the sign
        # matters; without a division by a response that may be next to zero, wide stop bands stay harmless.
        cascade = np.convolve(cascade, band) * np.copysign(1.0, band.sum())
        cascade /= np.abs(cascade).max()  # many wide stop bands in series would underflow
    return cascade * (10 ** (notch["gain_db"] / 20) / _peak_response(cascade))


def filter_and_sum(
    signals: Sequence[NDArray[np.float64]], filters: Sequence[NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Filter each signal with its own filter, take the filters' delays out, and add the results.

    As in the published code a filter's output starts at sample (length + 1) // 2, one after the true group delay,
    and the signal is followed by silence: output[n] = sum_i (filters[i] * signals[i])[n + (len(filters[i]) + 1) // 2].

    The sum is formed in the frequency domain, block by block (overlap-save), so that one inverse transform serves all.

    Args:
        signals: As many arrays of shape (..., samples) as there are filters, all of the same shape.
        filters: Impulse responses of odd lengths.

    Returns:
        An array of shape (..., samples).
    """
    delays = [(len(taps) + 1) // 2 for taps in filters]
    delay = max(delays)
    # With leading zeros every filter has the same delay, and one framing of the signals fits all.
    shifted = [np.concatenate([np.zeros(delay - own), taps]) for own, taps in zip(delays, filters, strict=True)]
    span = max(delay + 1, *map(len, shifted))
    n_fft = max(MIN_BLOCK, next_fast_len(4 * span, real=True))
    hop = n_fft - span + 1

    *channels, n_samples = signals[0].shape
    n_blocks = -(-n_samples // hop)
    padded = np.zeros((*channels, n_blocks * hop + span - 1))
    inside = padded[..., span - 1 - delay :][..., :n_samples]
    blocks = sliding_window_view(padded, n_fft, axis=-1)[..., ::hop, :]
    product = np.empty((*channels, n_blocks, n_fft // 2 + 1), dtype=np.complex128)
    spectrum = np.zeros_like(product)
    for signal, taps in zip(signals, shifted, strict=True):
        inside[...] = signal
        np.fft.rfft(blocks, out=product)  # NumPy's, since SciPy's cannot write into an array: fresh memory is slow
        product *= np.fft.rfft(taps, n_fft)
        spectrum += product
    filtered = np.fft.irfft(spectrum, n_fft)[..., span - 1 :]  # before that, the circular convolution wraps around
    return filtered.reshape(*channels, -1)[..., :n_samples]


def _band_stops(notch: NotchFilter, nyquist: float) -> Iterator[NDArray[np.float64]]:
    """Yield each band's filter, not yet scaled; the sines of all bands are computed at once."""
    centers, widths = np.array(notch["center_freqs"]), np.array(notch["bandwidths"])
    low, high = np.clip([centers - widths / 2, centers + widths / 2], EDGE_HZ, nyquist - EDGE_HZ) / nyquist
    halves = np.array(notch["taps"]) // 2
    times = np.arange(1, halves.max() + 1)
    # A low-pass filter up to the lower cut-off, plus all of the signal, minus a low-pass filter up to the upper one.
    phases = np.pi * times
    sides = (np.sin(np.outer(low, phases)) - np.sin(np.outer(high, phases))) / phases
    sides *= 0.54 + 0.46 * np.cos(np.outer(1 / np.maximum(halves, 1), phases))
    for side, middle, half in zip(sides, 1 + low - high, halves, strict=True):
        yield np.concatenate([side[:half][::-1], [middle], side[:half]])


def _peak_response(cascade: NDArray[np.float64]) -> float:
    # Wrapped around to twice the grid, a longer response has the same spectrum on the grid.
    n_fft = 2 * N_GRID
    wrapped = np.pad(cascade, (0, -len(cascade) % n_fft)).reshape(-1, n_fft).sum(axis=0)
    return np.abs(np.fft.rfft(wrapped))[:N_GRID].max()
