"""Lossy codecs by name: a waveform coded and decoded in memory, in time with what went in."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from math import gcd
from typing import Any, Literal

import numpy as np
import soundfile
from numpy.typing import NDArray
from scipy.signal import resample_poly

from hf_gradalign.augmentation.extra_codecs import EXTRA_CODECS
from hf_gradalign.augmentation.lossy_codec import LossyCodec

_MPEG_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_OPUS_RATES = (8000, 12000, 16000, 24000, 48000)
_TELEPHONE_RATES = (8000,)

# A frame of a low bit rate has no room for LAME's note of how much silence encoder and decoder put first, and the
# decoder leaves it in: 576 samples of the one and 529 of the other.
_MP3_DELAY = 1105


@dataclass(frozen=True)
class SoundfileCodec(LossyCodec):
    """How libsndfile is told to use a codec.

    Attributes:
        format: File format, as soundfile names it.
        subtype: Coding within the file, as soundfile names it.
        compression_level: libsndfile's level in [0, 1] for a setting at a rate in Hz.
        bitrate_mode: As soundfile names it, where the codec has modes.
        delay: Samples that the decoder puts first where it gives more samples than were coded.
    """

    format: str = ""
    subtype: str = ""
    compression_level: Callable[[float, int], float] = lambda setting, rate: 0.0
    bitrate_mode: str | None = None
    delay: int = 0

    def missing(self) -> str | None:
        """Which libsndfile to install, where the one at hand cannot write the codec."""
        formats = soundfile.available_formats()
        if self.format in formats and self.subtype in soundfile.available_subtypes(self.format):
            return None
        return "the installed libsndfile cannot write it; install soundfile as a wheel, which brings one that can"

    def code(self, samples: NDArray[np.float64], rate: int, setting: float | None) -> NDArray[np.float64]:
        """Code and decode; see `LossyCodec.code`."""
        level = None if setting is None else float(np.clip(self.compression_level(setting, rate), 0, 1))
        file = io.BytesIO()
        soundfile.write(
            file,
            samples,
            rate,
            subtype=self.subtype,
            format=self.format,
            compression_level=level,
            bitrate_mode=self.bitrate_mode,
        )
        file.seek(0)
        decoded, _ = soundfile.read(file, dtype="float64")
        return decoded[self.delay :] if len(decoded) > len(samples) else decoded


def _mp3_level(kbps: float, rate: int) -> float:
    # libsndfile takes its level for a straight line between the bit rates of the MPEG version that goes with the
    # rate, LAME the next bit rate that there is; a level of 1 is refused.
    low, high = (32, 320) if rate >= 32000 else (8, 160) if rate >= 16000 else (8, 64)
    return min((high - kbps) / (high - low), 0.999)


def _opus_level(kbps: float, rate: int) -> float:
    return (256 - kbps) / 250


def _vorbis_level(quality: float, rate: int) -> float:
    return 1 - quality


def _by_soundfile(
    format: str,
    subtype: str,
    rates: tuple[int, ...],
    setting: Literal["kbps", "quality"] | None = None,
    level: Callable[[float, int], float] = lambda setting, rate: 0.0,
    **options: Any,
) -> SoundfileCodec:
    return SoundfileCodec(rates, setting, format=format, subtype=subtype, compression_level=level, **options)


CODECS: dict[str, LossyCodec] = {
    "mp3": _by_soundfile(
        "MP3", "MPEG_LAYER_III", _MPEG_RATES, "kbps", _mp3_level, bitrate_mode="CONSTANT", delay=_MP3_DELAY
    ),
    "vorbis": _by_soundfile("OGG", "VORBIS", _MPEG_RATES, "quality", _vorbis_level),
    "opus": _by_soundfile("OGG", "OPUS", _OPUS_RATES, "kbps", _opus_level),
    "gsm": _by_soundfile("WAV", "GSM610", _TELEPHONE_RATES),
    "mu_law": _by_soundfile("WAV", "ULAW", _TELEPHONE_RATES),
    "a_law": _by_soundfile("WAV", "ALAW", _TELEPHONE_RATES),
}
"""The codecs that soundfile's libsndfile has."""

ALL_CODECS: dict[str, LossyCodec] = CODECS | EXTRA_CODECS


def available_codecs() -> tuple[str, ...]:
    """The names in `ALL_CODECS` that can be used here."""
    return tuple(name for name, codec in ALL_CODECS.items() if codec.missing() is None)


def code_and_decode(
    samples: NDArray[np.float64], name: str, sample_rate: int, setting: float | None = None
) -> NDArray[np.float64]:
    """Pass a waveform through a codec and back.

    Where the codec does not take the sample rate, the waveform is resampled for it and back; the telephone's codecs
    work at 8 kHz, which cuts the band at 4 kHz. The result is in time with the samples: measured on speech, to the
    sample for most codecs; Opus is up to 0.1 ms late below 20 kbit/s.

    Args:
        samples: Shape (samples,), at least one, within [-1, 1].
        name: Key of `ALL_CODECS`.
        sample_rate: In Hz.
        setting: The bit rate in kbit/s or quality in [0, 1]; a bit rate beyond the codec's ends is taken to the end.

    Returns:
        Shape (samples,), finite.
    """
    codec = ALL_CODECS[name]
    rate = codec.coding_rate(sample_rate)
    # Resampling overshoots, and what is beyond full scale has no code.
    coded = np.clip(_resample(samples, sample_rate, rate), -1, 1)
    decoded = codec.code(coded, rate, setting)[: len(coded)]
    return _resample(decoded, rate, sample_rate)[: len(samples)]


def _resample(samples: NDArray[np.float64], rate: int, new_rate: int) -> NDArray[np.float64]:
    if rate == new_rate:
        return samples
    divisor = gcd(rate, new_rate)
    return resample_poly(samples, new_rate // divisor, rate // divisor)
