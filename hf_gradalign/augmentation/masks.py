"""Masks on the waveform: removed frequency bands and lost packets."""

import random
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hf_gradalign.augmentation.base import SpeechTransform, check_number, check_ordered, single_thread

_WINDOW_SECONDS = 0.032
PACKET_SECONDS = 0.02


class FrequencyMask(SpeechTransform):
    """Frequency masking on the waveform: removes one band of frequencies from the whole clip.

    Sets the band's bins of the short-time Fourier transform (32 ms Hann windows, 50 % overlap) to zero, and inverts the
    transform. Adds no delay.

    Source: Park et al., "SpecAugment", Interspeech 2019, section 2. First the band's width is drawn, from 0 to the
    largest, then its start, both uniformly. SpecAugment masks mel bins of a spectrogram; this class masks a band in Hz.
    Its largest width, 27 of 80 mel bins, is 0.9 kHz wide near 0 Hz and 5 kHz wide near 8 kHz; the 1.5 kHz used here is
    this project's choice.

    `randomize_parameters` draws from Python's global `random`. `parameters` can be written as JSON.
    """

    def __init__(self, min_width: float = 0.0, max_width: float = 1500.0, p: float = 1.0) -> None:
        """Check and store the ranges to draw from.

        Args:
            min_width: Smallest width of the band in Hz, >= 0.
            max_width: Largest width in Hz, at most half the sample rate.
            p: Probability of applying the transform, 0 to 1.

        Raises:
            ValueError: If an argument is outside its range or `min_width` is above `max_width`.
        """
        super().__init__(check_number("p", p, 0, 1))
        self.min_width = check_number("min_width", min_width, 0, float("inf"))
        self.max_width = check_number("max_width", max_width, 0, float("inf"))
        check_ordered("min_width", self.min_width, "max_width", self.max_width)

    def randomize_parameters(self, samples: NDArray[np.floating], sample_rate: int) -> None:
        """Draw whether to apply the transform, and the band, into `self.parameters`."""
        super().randomize_parameters(samples, sample_rate)
        if self.parameters["should_apply"]:
            nyquist = sample_rate / 2
            width = random.uniform(min(self.min_width, nyquist), min(self.max_width, nyquist))
            low = random.uniform(0, nyquist - width)
            self.parameters |= {"low_hz": low, "high_hz": low + width}

    def _transform(self, samples: NDArray[np.floating], sample_rate: int) -> NDArray[np.floating]:
        n_fft = max(2, round(_WINDOW_SECONDS * sample_rate / 2) * 2)
        frequencies = np.arange(n_fft // 2 + 1) * (sample_rate / n_fft)
        masked = (self.parameters["low_hz"] <= frequencies) & (frequencies < self.parameters["high_hz"])
        channels = np.atleast_2d(samples.astype(np.float64))
        peaks = np.abs(channels).max(axis=-1, keepdims=True)
        scaled = (channels / np.maximum(peaks, np.finfo(np.float64).tiny)).astype(np.float32)
        with torch.inference_mode(), single_thread():
            options: dict[str, Any] = {"n_fft": n_fft, "hop_length": n_fft // 2, "window": torch.hann_window(n_fft)}
            spectra = torch.stft(torch.from_numpy(scaled), **options, pad_mode="constant", return_complex=True)
            spectra[:, torch.from_numpy(masked)] = 0
            filtered = torch.istft(spectra, **options, length=samples.shape[-1])
        return (filtered.numpy() * peaks).reshape(samples.shape)


class PacketLoss(SpeechTransform):
    """Packet loss in a call: random stretches of 20 ms become silent.

    20 ms is the default length of a speech packet in RTP (RFC 3551, section 4.2). Packets are lost independently, with
    the same probability, and gaps are not concealed.

    `randomize_parameters` draws from Python's global `random`. `parameters` can be written as JSON and holds a seed for
    the lost packets.
    """

    def __init__(self, max_percent: float = 5.0, p: float = 1.0) -> None:
        """Check and store the ranges to draw from.

        Args:
            max_percent: Largest probability of losing a packet in percent, 0 to 100. The smallest is 0.
            p: Probability of applying the transform, 0 to 1.

        Raises:
            ValueError: If an argument is outside its range.
        """
        super().__init__(check_number("p", p, 0, 1))
        self.max_percent = check_number("max_percent", max_percent, 0, 100)

    def randomize_parameters(self, samples: NDArray[np.floating], sample_rate: int) -> None:
        """Draw whether to apply the transform, and the loss probability, into `self.parameters`."""
        super().randomize_parameters(samples, sample_rate)
        if self.parameters["should_apply"]:
            self.parameters |= {"percent": random.uniform(0, self.max_percent), "seed": random.getrandbits(53)}

    def _transform(self, samples: NDArray[np.floating], sample_rate: int) -> NDArray[np.floating]:
        length = max(1, round(PACKET_SECONDS * sample_rate))
        n_packets = -(-samples.shape[-1] // length)
        arrives = np.random.default_rng(self.parameters["seed"]).random(n_packets) >= self.parameters["percent"] / 100
        return samples * np.repeat(arrives, length)[: samples.shape[-1]].astype(samples.dtype)
