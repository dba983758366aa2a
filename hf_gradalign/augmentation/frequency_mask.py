import random
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hf_gradalign.augmentation.checks import check_number, check_ordered
from hf_gradalign.augmentation.one_thread import one_thread
from hf_gradalign.augmentation.speech_transform import SpeechTransform

_WINDOW_SECONDS = 0.032


class FrequencyMask(SpeechTransform):
    """A band of frequencies is taken out of the whole clip: frequency masking, on the waveform.

    The band's bins of the short-time Fourier transform (Hann windows of 32 ms, half apart) are set to zero and the
    transform is inverted. In time with what went in.

    Source: Park et al., "SpecAugment", Interspeech 2019, section 2: the band's width is drawn first, from 0 to the
    greatest, and then where it begins, both uniformly; there in mel bins of a spectrogram, here in Hz. The greatest
    width there, 27 of 80 mel bins, is 0.9 kHz at the lower end of 0 to 8 kHz and 5 kHz at the upper; that of 1.5 kHz
    here is this project's choice.

    `randomize_parameters` draws from Python's global `random`; `parameters` can be written as JSON.
    """

    def __init__(self, min_width: float = 0.0, max_width: float = 1500.0, p: float = 1.0) -> None:
        """Check and keep what to draw from.

        Args:
            min_width: Least width of the band in Hz, >= 0.
            max_width: Greatest width in Hz; half the sample rate if that is less.
            p: Probability of applying the transform, 0 to 1.

        Raises:
            ValueError: If an argument is outside its range or `min_width` is above `max_width`.
        """
        super().__init__(check_number("p", p, 0, 1))
        self.min_width = check_number("min_width", min_width, 0, float("inf"))
        self.max_width = check_number("max_width", max_width, 0, float("inf"))
        check_ordered("min_width", self.min_width, "max_width", self.max_width)

    def randomize_parameters(self, samples: NDArray[np.floating], sample_rate: int) -> None:
        """Draw whether to apply the transform, and if so the band, into `self.parameters`."""
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
        with torch.inference_mode(), one_thread():
            options: dict[str, Any] = {"n_fft": n_fft, "hop_length": n_fft // 2, "window": torch.hann_window(n_fft)}
            spectra = torch.stft(torch.from_numpy(scaled), **options, pad_mode="constant", return_complex=True)
            spectra[:, torch.from_numpy(masked)] = 0
            filtered = torch.istft(spectra, **options, length=samples.shape[-1])
        return (filtered.numpy() * peaks).reshape(samples.shape)
