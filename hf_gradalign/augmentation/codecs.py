"""Lossy codecs as an augmentation: from libsndfile, from FFmpeg's libraries in PyAV, and G.722 (extra `codecs`)."""

import io
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from importlib import import_module
from importlib.util import find_spec
from math import gcd
from typing import Any, Literal

import numpy as np
import soundfile
from numpy.typing import NDArray
from scipy.signal import resample_poly

from hf_gradalign.augmentation.base import SpeechTransform, check_number, check_ordered

_INSTALL = "pip install G722"
_MPEG_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_OPUS_RATES = (8000, 12000, 16000, 24000, 48000)
_TELEPHONE_RATES = (8000,)

# At low bit rates, a frame has no room for LAME's note on the delay of encoder (576 samples) and decoder (529 samples),
# so the decoder does not remove the delay.
_MP3_DELAY = 1105
_AMR_KBPS = (4.75, 5.15, 5.9, 6.7, 7.4, 7.95, 10.2, 12.2)


@dataclass(frozen=True)
class LossyCodec(ABC):
    """A codec that encodes and decodes waveforms.

    Attributes:
        sample_rates: The rates in Hz that the codec supports, in ascending order.
        setting: Kind of setting: a bit rate in kbit/s, a quality in [0, 1], one of `choices`, or None.
        choices: The bit rates in kbit/s to choose from, if `setting` is "choice".
    """

    sample_rates: tuple[int, ...]
    setting: Literal["kbps", "quality", "choice"] | None = None
    choices: tuple[float, ...] = ()

    def coding_rate(self, sample_rate: int) -> int:
        """Return the codec's lowest rate that is not below the sample rate, or else its highest."""
        return min((rate for rate in self.sample_rates if rate >= sample_rate), default=self.sample_rates[-1])

    @abstractmethod
    def unavailable_reason(self) -> str | None:
        """Return why the codec cannot be used and what to install; None if it can be used."""

    @abstractmethod
    def code(self, samples: NDArray[np.float64], rate: int, setting: float | None) -> NDArray[np.float64]:
        """Encode and decode a waveform.

        Args:
            samples: Shape (samples,), at least one, within [-1, 1].
            rate: One of `sample_rates`.
            setting: The bit rate or quality, limited to the codec's range.

        Returns:
            Samples without delay. There may be a few samples too few or too many at the end.
        """


@dataclass(frozen=True)
class SoundfileCodec(LossyCodec):
    """A codec of libsndfile.

    Attributes:
        format: soundfile's name of the file format.
        subtype: soundfile's name of the coding within the file.
        compression_level: libsndfile's level in [0, 1] for a setting at a rate in Hz.
        bitrate_mode: soundfile's name of the bit rate mode, if the codec has modes.
        delay: Samples to remove from the start if decoding gives more samples than were coded.
    """

    format: str = ""
    subtype: str = ""
    compression_level: Callable[[float, int], float] = lambda setting, rate: 0.0
    bitrate_mode: str | None = None
    delay: int = 0

    def unavailable_reason(self) -> str | None:
        """Return what to install if this libsndfile lacks the codec."""
        formats = soundfile.available_formats()
        if self.format in formats and self.subtype in soundfile.available_subtypes(self.format):
            return None
        return "the installed libsndfile cannot write it; install soundfile as a wheel, which includes one that can"

    def code(self, samples: NDArray[np.float64], rate: int, setting: float | None) -> NDArray[np.float64]:
        """Encode and decode; see `LossyCodec.code`."""
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
        decoded = np.asarray(soundfile.read(file, dtype="float64")[0], np.float64)
        return decoded[self.delay :] if len(decoded) > len(samples) else decoded


def _mp3_level(kbps: float, rate: int) -> float:
    # libsndfile maps its level linearly to the bit rates of the rate's MPEG version, and LAME picks the nearest one.
    # A level of 1 is refused.
    low, high = (32, 320) if rate >= 32000 else (8, 160) if rate >= 16000 else (8, 64)
    return min((high - kbps) / (high - low), 0.999)


def _opus_level(kbps: float, rate: int) -> float:
    return (256 - kbps) / 250


def _vorbis_level(quality: float, rate: int) -> float:
    return 1 - quality


def _soundfile_codec(
    format: str,
    subtype: str,
    rates: tuple[int, ...],
    setting: Literal["kbps", "quality"] | None = None,
    level: Callable[[float, int], float] = lambda setting, rate: 0.0,
    **options: Any,
) -> SoundfileCodec:
    return SoundfileCodec(rates, setting, format=format, subtype=subtype, compression_level=level, **options)


@dataclass(frozen=True)
class G722Codec(LossyCodec):
    """ITU-T G.722, wideband telephony (sub-band ADPCM at 48, 56 or 64 kbit/s), with the package `G722`."""

    def unavailable_reason(self) -> str | None:
        """Return how to install the package if it is missing."""
        return None if find_spec("G722") else f"it needs the package G722: {_INSTALL}"

    def code(self, samples: NDArray[np.float64], rate: int, setting: float | None) -> NDArray[np.float64]:
        """Encode and decode; see `LossyCodec.code`."""
        G722 = import_module("G722").G722  # optional, and has no stubs
        delay = 22  # of the two filter banks
        padded = np.pad(samples, (0, delay + len(samples) % 2))  # a byte holds two samples
        kbits = int(1000 * (setting or self.choices[-1]))
        decoded = G722(rate, kbits).decode(G722(rate, kbits).encode(_to_int16(padded)))
        return np.asarray(decoded, dtype=np.float64)[delay:] / 32768


@dataclass(frozen=True)
class AvCodec(LossyCodec):
    """A codec of FFmpeg's libraries, through PyAV.

    Attributes:
        encoder: FFmpeg's name for the encoder.
        decoder: FFmpeg's name for the decoder.
        delay: Samples that encoder and decoder add at the start.
    """

    encoder: str = ""
    decoder: str = ""
    delay: int = 0

    def unavailable_reason(self) -> str | None:
        """Return what to install if this PyAV lacks the codec."""
        from av.codec import codecs_available

        if {self.encoder, self.decoder} <= codecs_available:
            return None
        return (
            f"the installed PyAV was built without {self.encoder} (wheels since version 19 have no AMR encoder); "
            'install an earlier one: pip install "av<19"'
        )

    def code(self, samples: NDArray[np.float64], rate: int, setting: float | None) -> NDArray[np.float64]:
        """Encode and decode; see `LossyCodec.code`."""
        import av

        encoder: Any = av.CodecContext.create(self.encoder, "w")
        encoder.sample_rate, encoder.layout, encoder.time_base = rate, "mono", Fraction(1, rate)
        encoder.format = encoder.codec.audio_formats[0]
        if setting is not None:
            encoder.bit_rate = round(1000 * setting)
        encoder.open()
        packets = [packet for frame in _frames(samples, encoder, self.delay) for packet in encoder.encode(frame)]
        decoder: Any = av.CodecContext.create(self.decoder, "r")
        decoder.sample_rate, decoder.layout = rate, "mono"
        if encoder.extradata:
            decoder.extradata = encoder.extradata
        decoded = [frame.to_ndarray()[0] for packet in [*packets, None] for frame in decoder.decode(packet)]
        joined = np.concatenate(decoded)
        scale = 1.0 if np.issubdtype(joined.dtype, np.floating) else 2.0 ** (8 * joined.dtype.itemsize - 1)
        return joined[self.delay :] / scale


def _frames(samples: NDArray[np.float64], encoder: Any, delay: int) -> Iterator[Any]:
    """Yield the waveform in the encoder's frames, padded with silence for the delay, then None to flush the encoder."""
    import av

    length = encoder.frame_size or 1024
    padded = np.pad(samples, (0, delay + -(len(samples) + delay) % length))
    values = padded.astype(np.float32) if encoder.format.name.startswith("flt") else _to_int16(padded)
    for start in range(0, len(values), length):
        frame = av.AudioFrame.from_ndarray(values[None, start : start + length], encoder.format.name, "mono")
        frame.sample_rate, frame.time_base, frame.pts = encoder.sample_rate, encoder.time_base, start
        yield frame
    yield None


def _to_int16(samples: NDArray[np.float64]) -> NDArray[np.int16]:
    return np.clip(np.rint(samples * 32768), -32768, 32767).astype(np.int16)


CODECS: dict[str, LossyCodec] = {
    "mp3": _soundfile_codec(
        "MP3", "MPEG_LAYER_III", _MPEG_RATES, "kbps", _mp3_level, bitrate_mode="CONSTANT", delay=_MP3_DELAY
    ),
    "vorbis": _soundfile_codec("OGG", "VORBIS", _MPEG_RATES, "quality", _vorbis_level),
    "opus": _soundfile_codec("OGG", "OPUS", _OPUS_RATES, "kbps", _opus_level),
    "gsm": _soundfile_codec("WAV", "GSM610", _TELEPHONE_RATES),
    "mu_law": _soundfile_codec("WAV", "ULAW", _TELEPHONE_RATES),
    "a_law": _soundfile_codec("WAV", "ALAW", _TELEPHONE_RATES),
}
"""The codecs of soundfile's libsndfile."""

EXTRA_CODECS: dict[str, LossyCodec] = {
    "g722": G722Codec((16000,), "choice", (48.0, 56.0, 64.0)),
    "aac": AvCodec(_MPEG_RATES, "kbps", encoder="aac", decoder="aac", delay=1024),
    "amr_nb": AvCodec((8000,), "choice", _AMR_KBPS, encoder="libopencore_amrnb", decoder="amrnb", delay=38),
    "g723_1": AvCodec((8000,), "choice", (6.3,), encoder="g723_1", decoder="g723_1", delay=60),
}

ALL_CODECS: dict[str, LossyCodec] = CODECS | EXTRA_CODECS


def available_codecs() -> tuple[str, ...]:
    """Return the names in `ALL_CODECS` that work with what is installed."""
    return tuple(name for name, codec in ALL_CODECS.items() if codec.unavailable_reason() is None)


def code_and_decode(
    samples: NDArray[np.float64], name: str, sample_rate: int, setting: float | None = None
) -> NDArray[np.float64]:
    """Encode and decode a waveform.

    If the codec does not support the sample rate, the waveform is resampled before and after. Telephone codecs work at
    8 kHz, which cuts the band at 4 kHz. The result has no delay (measured on speech), except for up to 0.1 ms with Opus
    below 20 kbit/s.

    Args:
        samples: Shape (samples,), at least one, within [-1, 1].
        name: Key of `ALL_CODECS`.
        sample_rate: In Hz.
        setting: The bit rate in kbit/s, limited to the codec's range, or the quality in [0, 1].

    Returns:
        Shape (samples,), finite.
    """
    codec = ALL_CODECS[name]
    rate = codec.coding_rate(sample_rate)
    # Resampling overshoots, and codecs cannot represent samples beyond full scale.
    coded = np.clip(_resample(samples, sample_rate, rate), -1, 1)
    decoded = codec.code(coded, rate, setting)[: len(coded)]
    return _resample(decoded, rate, sample_rate)[: len(samples)]


def _resample(samples: NDArray[np.float64], rate: int, new_rate: int) -> NDArray[np.float64]:
    if rate == new_rate:
        return samples
    divisor = gcd(rate, new_rate)
    return resample_poly(samples, new_rate // divisor, rate // divisor)


# The range of bit rates of MP3 and Opus.
MIN_KBPS, MAX_KBPS = 6.0, 320.0


class Codec(SpeechTransform):
    """Encodes and decodes the clip with a lossy codec, as used by telephones, messengers and the Web.

    Telephone codecs, at 8 kHz: `gsm` (GSM 06.10 full rate), `mu_law` and `a_law` (G.711). Web codecs, at the sample
    rate or the next higher one they support: `mp3` (constant bit rate), `opus` and `vorbis` (variable bit rate; Vorbis
    has a quality instead of a bit rate). All of them run in memory through libsndfile, without FFmpeg.
    (audiomentations' `Mp3Compression` supports MP3 only, and needs an extra package.)

    These codecs are only used if you name them: `g722` (wideband telephony, 16 kHz), which needs the extra `codecs`,
    and `aac`, `amr_nb` (mobile telephony, 8 kHz) and `g723_1` (Internet telephony, 8 kHz) from the FFmpeg libraries in
    PyAV's wheels. The draws never depend on what is installed: naming a missing codec is an error.

    Takes finite floating-point samples of shape (samples,) or (channels, samples) and returns float32 of the same
    shape, without delay. Channels are coded separately. A channel with a peak above 1 is scaled down to 1 for the codec
    and back up afterward. An empty clip is returned unchanged. Integer samples are refused, because a codec's losses
    depend on the level: scale them to [-1, 1] first. Silence may not stay digital silence: A-law and GSM cannot
    represent it.

    `randomize_parameters` draws from Python's global `random`, like other audiomentations transforms. `parameters` can
    be written as JSON. Applying frozen parameters draws nothing, and gives the same samples with the same libsndfile.
    """

    def __init__(
        self,
        codecs: Sequence[str] = tuple(CODECS),
        min_kbps: float = 16.0,
        max_kbps: float = 64.0,
        min_vorbis_quality: float = 0.0,
        max_vorbis_quality: float = 1.0,
        p: float = 1.0,
    ) -> None:
        """Check and store the ranges to draw from: first a codec, all equally likely, then its bit rate, uniformly.

        Args:
            codecs: Names of codecs (see above). A name given twice is twice as likely.
            min_kbps: Lowest bit rate of MP3, Opus and AAC in kbit/s, 6 to 320. MP3 uses the nearest bit rate that it
                supports at the sample rate: 8 to 160 at 16 to 24 kHz, 8 to 64 below, 32 to 320 above. Opus has at most
                256.
            max_kbps: Highest bit rate in kbit/s.
            min_vorbis_quality: Lowest quality of Vorbis, 0 to 1. At 16 kHz, 0 is about 35 and 1 about 80 kbit/s.
            max_vorbis_quality: Highest quality of Vorbis.
            p: Probability of applying the transform, 0 to 1.

        Raises:
            ValueError: If a codec is unknown or cannot be used here, a number is outside its range, or a
                `min_` argument is above its `max_` argument.
        """
        super().__init__(check_number("p", p, 0, 1))
        self.codecs = _check_codecs(codecs)
        self.min_kbps = check_number("min_kbps", min_kbps, MIN_KBPS, MAX_KBPS)
        self.max_kbps = check_number("max_kbps", max_kbps, MIN_KBPS, MAX_KBPS)
        self.min_vorbis_quality = check_number("min_vorbis_quality", min_vorbis_quality, 0, 1)
        self.max_vorbis_quality = check_number("max_vorbis_quality", max_vorbis_quality, 0, 1)
        check_ordered("min_kbps", self.min_kbps, "max_kbps", self.max_kbps)
        check_ordered("min_vorbis_quality", self.min_vorbis_quality, "max_vorbis_quality", self.max_vorbis_quality)

    def randomize_parameters(self, samples: NDArray[np.floating], sample_rate: int) -> None:
        """Draw whether to apply the transform, the codec and its setting, into `self.parameters`.

        Args:
            samples: Unused.
            sample_rate: Unused.
        """
        super().randomize_parameters(samples, sample_rate)
        if self.parameters["should_apply"]:
            name = random.choice(self.codecs)
            self.parameters |= {"codec": name, "setting": self._draw_setting(name)}

    def _transform(self, samples: NDArray[np.floating], sample_rate: int) -> NDArray[np.float64]:
        channels = [self._code(channel, sample_rate) for channel in np.atleast_2d(samples.astype(np.float64))]
        return np.reshape(channels, samples.shape)

    def _draw_setting(self, name: str) -> float | None:
        setting = ALL_CODECS[name].setting
        if setting == "kbps":
            return random.uniform(self.min_kbps, self.max_kbps)
        if setting == "quality":
            return random.uniform(self.min_vorbis_quality, self.max_vorbis_quality)
        if setting == "choice":
            return random.choice(ALL_CODECS[name].choices)
        return None

    def _code(self, channel: NDArray[np.float64], sample_rate: int) -> NDArray[np.float64]:
        scale = max(1.0, np.abs(channel).max())
        codec, setting = self.parameters["codec"], self.parameters["setting"]
        return scale * code_and_decode(channel / scale, codec, int(sample_rate), setting)


def _check_codecs(codecs: Sequence[str]) -> tuple[str, ...]:
    names = (codecs,) if isinstance(codecs, str) else tuple(codecs)
    if not names:
        raise ValueError(f"codecs must name at least one of {', '.join(ALL_CODECS)}")
    if unknown := [name for name in names if name not in ALL_CODECS]:
        raise ValueError(f"unknown codec {unknown[0]!r}; available: {', '.join(ALL_CODECS)}")
    missing = [
        f"{name}: {reason}" for name in dict.fromkeys(names) if (reason := ALL_CODECS[name].unavailable_reason())
    ]
    if missing:
        raise ValueError(
            f"these codecs cannot be used here: {'; '.join(missing)}. Available: {', '.join(available_codecs())}"
        )
    return names
