"""Codecs beyond libsndfile's: G.722 by a package of its own (extra `codecs`), others by FFmpeg's libraries in PyAV."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_gradalign.augmentation.lossy_codec import LossyCodec

_INSTALL = 'pip install "hf-gradalign[codecs]"'


@dataclass(frozen=True)
class G722Codec(LossyCodec):
    """ITU-T G.722, wideband telephony, by the package `G722` (sub-band ADPCM at 48, 56 or 64 kbit/s; no FFmpeg)."""

    def missing(self) -> str | None:
        """How to install the package, where it is not."""
        return None if find_spec("G722") else f"it needs the package G722: {_INSTALL}"

    def code(self, samples: NDArray[np.float64], rate: int, setting: float | None) -> NDArray[np.float64]:
        """Code and decode; see `LossyCodec.code`."""
        from G722 import G722

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
        delay: Samples that encoder and decoder put first.
    """

    encoder: str = ""
    decoder: str = ""
    delay: int = 0

    def missing(self) -> str | None:
        """That PyAV was built without the codec."""
        from av.codec import codecs_available

        if {self.encoder, self.decoder} <= codecs_available:
            return None
        return f"the installed PyAV was built without {self.encoder}; install it as a wheel: pip install av"

    def code(self, samples: NDArray[np.float64], rate: int, setting: float | None) -> NDArray[np.float64]:
        """Code and decode; see `LossyCodec.code`."""
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
    """The waveform in the encoder's frames, with as much silence after it as comes out late, and None for the end."""
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


_AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_AMR_KBPS = (4.75, 5.15, 5.9, 6.7, 7.4, 7.95, 10.2, 12.2)

EXTRA_CODECS: dict[str, LossyCodec] = {
    "g722": G722Codec((16000,), "choice", (48.0, 56.0, 64.0)),
    "aac": AvCodec(_AAC_RATES, "kbps", encoder="aac", decoder="aac", delay=1024),
    "amr_nb": AvCodec((8000,), "choice", _AMR_KBPS, encoder="libopencore_amrnb", decoder="amrnb", delay=38),
    "g723_1": AvCodec((8000,), "choice", (6.3,), encoder="g723_1", decoder="g723_1", delay=60),
}
