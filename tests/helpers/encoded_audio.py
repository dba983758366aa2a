"""Recordings as phones, browsers, servers and pipes write them, made with FFmpeg's encoders."""

import io
import pathlib
import struct
import tempfile

import av
import numpy as np
import pytest

RATE = 16_000
LAYER3 = {"flags": "+qscale", "global_quality": str(118 * 4)}  # a variable bit rate


def loud_then_quiet(n_samples=40_000, seed=0):
    """Noise with a tone, loud in its first third: what comes first tells little about the bit rate of the rest."""
    rng = np.random.default_rng(seed)
    samples = 0.4 * np.sin(np.arange(n_samples) ** 1.3 * 0.01) + rng.normal(0, 0.02, n_samples)
    samples[n_samples // 3 :] *= 0.02
    return samples.astype(np.float32)


class Pipe:
    """Where nobody can go back to put a length into the header."""

    def __init__(self):
        self.data = bytearray()

    def write(self, data):
        self.data += bytes(data)
        return len(data)


def encode(samples, container, codec, *, rate=RATE, piped=False, muxer=None, encoder=None, layout="mono"):
    """The file's bytes; `muxer` and `encoder` are FFmpeg's options. Skips the test if PyAV lacks the encoder."""
    if codec not in av.codecs_available:
        pytest.skip(f"PyAV was built without {codec}")
    if "faststart" in (muxer or {}).get("movflags", ""):  # for which FFmpeg opens the file twice
        with tempfile.TemporaryDirectory() as folder:
            _encode(f"{folder}/a", samples, container, codec, rate, muxer, encoder, layout)
            return pathlib.Path(folder, "a").read_bytes()
    file = Pipe() if piped else io.BytesIO()
    _encode(file, samples, container, codec, rate, muxer, encoder, layout)
    return bytes(file.data) if piped else file.getvalue()


def _encode(file, samples, container, codec, rate, muxer, encoder, layout):
    with av.open(file, "w", format=container, options=muxer or {}) as out:
        stream = out.add_stream(codec, rate=rate, layout=layout, options=encoder or {})
        frame = av.AudioFrame.from_ndarray((samples[None] * 32767).astype("int16"), format="s16p", layout="mono")
        frame.sample_rate = RATE
        size = stream.codec_context.frame_size or 0
        resampler = av.AudioResampler(stream.codec_context.format.name, layout, rate, frame_size=size)
        for frames in (resampler.resample(frame), resampler.resample(None)):
            for piece in frames:
                out.mux(stream.encode(piece))
        # FLAC ends with a packet of no sound but a header, for which only its own files have a place.
        out.mux([packet for packet in stream.encode(None) if packet.size or container in ("flac", "wav")])


def mp3(samples, *, header, encoder=None):
    """An MP3 with or without an Xing or Info header."""
    options = {"write_xing": str(int(header)), "id3v2_version": "0"}
    return encode(samples, "mp3", "libmp3lame", muxer=options, encoder=encoder or LAYER3)


def wav(samples, *, riff=None, data=None, after=b"", before=b"", extensible=False, floats=False):
    """A WAV file whose header says that it has `riff` and `data` bytes; by default what it has."""
    values = samples.astype("<f4") if floats else (samples * 32767).astype("<i2")
    width, tag = values.itemsize, 3 if floats else 1
    form = struct.pack("<HHIIHH", 0xFFFE if extensible else tag, 1, RATE, width * RATE, width, 8 * width)
    if extensible:
        form += struct.pack("<HHIH", 22, 8 * width, 4, tag) + bytes.fromhex("000000001000800000aa00389b71")
    sound = values.tobytes()
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form + before
    body += b"data" + struct.pack("<I", len(sound) if data is None else data) + sound + after
    return b"RIFF" + struct.pack("<I", len(body) if riff is None else riff) + body


def rf64(samples, sizes):
    """An RF64 file whose ds64 chunk says how many bytes, bytes of sound and samples it has."""
    sound = (samples * 32767).astype("<i2").tobytes()
    form = struct.pack("<HHIIHH", 1, 1, RATE, 2 * RATE, 2, 16)
    wide = b"ds64" + struct.pack("<IQQQI", 28, *sizes, 0)
    return b"RF64\xff\xff\xff\xffWAVE" + wide + b"fmt \x10\0\0\0" + form + b"data\xff\xff\xff\xff" + sound
