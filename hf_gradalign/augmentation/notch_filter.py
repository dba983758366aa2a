"""RawBoost's random multi-band notch filters: what is drawn for them, and their frequency responses."""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

# Cut-offs keep this distance from 0 Hz and from the Nyquist frequency.
EDGE_HZ = 1e-3
# The peak response is looked for on this many frequencies from 0 up to, and without, the Nyquist frequency.
N_GRID = 512
# The response of so many bands in series does not leave the range of floating-point numbers.
_BANDS_AT_ONCE = 8


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


def reach_of(clips: Sequence[Sequence[NotchFilter]]) -> int:
    """How far the longest of some filters reaches to either side of a sample, in samples."""
    return max(sum(taps // 2 for taps in notch["taps"]) for notches in clips for notch in notches)


def notch_responses(clips: Sequence[Sequence[NotchFilter]], sample_rate: float, n_fft: int) -> NDArray[np.float64]:
    """Compute the frequency responses of cascades of band-stop filters, with their delays taken out.

    Each band is a windowed-sinc band-stop filter with a Hamming window, the one that `scipy.signal.firwin` designs; the
    cascade is scaled so that its greatest response, over a grid of 512 frequencies, is the gain. Cut-offs outside the
    band from 0 Hz to the Nyquist frequency are moved to 1 mHz inside it. The filters are symmetric about their middle,
    so that without the delay the response is real; the cascade's is the product of the bands'.

    Source: Tak et al., "RawBoost", ICASSP 2022 (arXiv 2111.04433), multi-band filters of its first and third noise.

    Args:
        clips: The drawn parameters of each clip's filters, as many for each clip.
        sample_rate: In Hz.
        n_fft: A multiple of 1024 of at least twice `reach_of(clips)` and two.

    Returns:
        Responses at the frequencies 0, 1/n_fft, ... 1/2 of the sample rate, of shape (clips, filters, n_fft // 2 + 1).

    Raises:
        ValueError: If clips differ in how many filters they have, or filters in how many bands.
    """
    keys = ("center_freqs", "bandwidths", "taps")
    bands = np.array([[[notch[key] for notch in notches] for notches in clips] for key in keys])
    gains = 10 ** (np.array([[notch["gain_db"] for notch in notches] for notches in clips]) / 20)
    bands[2] //= 2
    reach = int(bands[2].sum(axis=-1).max())
    # The shortest transform that holds the cascade will do for the product of the bands.
    n_short = 1 << (2 * reach + 1).bit_length()
    cascade = _product(_band_responses(bands, sample_rate / 2, n_short))
    # Twice the one side and no other has the real part that both sides have.
    half = 2 * np.fft.irfft(cascade, n_short)[..., : reach + 1]
    half[..., 0] /= 2
    responses = np.fft.rfft(half, n_fft).real
    peaks = np.abs(responses[..., : n_fft // 2 : n_fft // (2 * N_GRID)]).max(axis=-1)
    return responses * (gains / peaks)[..., None]


def _product(bands: NDArray[np.float64]) -> NDArray[np.float64]:
    """The product of bands' responses of shape (..., bands, bins), with a peak of 1."""
    # firwin gives each band a response of 1 at 0 Hz. The cascade's scale is set later, so of that only the sign
    # matters; without a division by a response that may be next to zero, wide stop bands stay harmless.
    cascade = np.copysign(1.0, bands[..., :1]).prod(axis=-2)
    for first in range(0, bands.shape[-2], _BANDS_AT_ONCE):  # all at once, many wide stop bands would underflow
        cascade = cascade * bands[..., first : first + _BANDS_AT_ONCE, :].prod(axis=-2)
        cascade /= np.abs(cascade).max(axis=-1, keepdims=True)
    return cascade


def _band_responses(bands: NDArray[np.float64], nyquist: float, n_fft: int) -> NDArray[np.float64]:
    """The real response of each band, not yet scaled, of shape (clips, filters, bands, n_fft // 2 + 1).

    Args:
        bands: Centres and widths in Hz, and how far each filter reaches in samples, of shape (3, ..., bands).
        nyquist: In Hz.
        n_fft: Twice the longest reach, or more.
    """
    centers, widths, reaches = bands
    edges = np.stack([centers - widths / 2, centers + widths / 2], axis=-1)
    edges = np.clip(edges, EDGE_HZ, nyquist - EDGE_HZ) * (np.pi / nyquist)
    times = np.arange(1, int(reaches.max()) + 1)
    # A low-pass filter up to the lower cut-off, plus all of the signal, minus a low-pass filter up to the upper one.
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
