"""Blocks and windows have the same bits as reading whole files, and no header can make a reader fill the memory."""

import functools
import io
import struct
import tracemalloc

import numpy as np
import pytest
import soundfile
from encoded_audio import RATE, encode, loud_then_quiet, mp3, wav

from hf_gradalign.audio import AudioDecodingError, open_sound, read_sound, reading, resample_clip
from hf_gradalign.data import Window, crop, decode_audio

SAMPLES = loud_then_quiet()


def by_libsndfile(file_format, subtype=None, channels=1, rate=RATE):
    file = io.BytesIO()
    samples = np.stack([SAMPLES * (1 - 0.3 * channel) for channel in range(channels)], axis=1)
    soundfile.write(file, samples, rate, format=file_format, subtype=subtype)
    return file.getvalue()


FILES = {
    "wav": lambda: by_libsndfile("WAV", channels=2),
    "float": lambda: by_libsndfile("WAV", "FLOAT", channels=3),
    "adpcm": lambda: by_libsndfile("WAV", "IMA_ADPCM"),
    "flac": lambda: by_libsndfile("FLAC", channels=2),
    "vorbis": lambda: by_libsndfile("OGG", "VORBIS", channels=2),
    "opus": lambda: by_libsndfile("OGG", "OPUS"),
    "mp3": lambda: by_libsndfile("MP3", channels=2),
    "mp3_without_header": lambda: mp3(SAMPLES, header=False),
    "m4a": lambda: encode(SAMPLES, "ipod", "aac"),
    "pipe": lambda: wav(SAMPLES, data=0xFFFFFFFF),
    "several": lambda: by_libsndfile("FLAC") + by_libsndfile("FLAC", rate=22_050),
}


@functools.cache
def encoded(name):
    return FILES[name]()


@pytest.mark.parametrize("rate", [None, 16_000, 8000])
@pytest.mark.parametrize("name", FILES)
def test_blocks(name, rate, monkeypatch):
    whole = decode_audio(encoded(name), rate)
    for block in ("_BLOCK", "_MP3_BLOCK"):
        monkeypatch.setattr(reading, block, 3000)
    monkeypatch.setattr(reading, "_KEPT", 5000)  # files that must be decoded to their end first are decoded twice
    rounding = 3e-7 if name.startswith("mp3") else 0
    np.testing.assert_allclose(decode_audio(encoded(name), rate), whole, rtol=0, atol=rounding)
    for window in (Window(4000), Window(70_000), Window(4000, 0.7)):
        part = decode_audio(encoded(name), rate, window=window)
        np.testing.assert_allclose(part, crop(whole, window), rtol=0, atol=rounding)


@pytest.mark.parametrize("rate", [8000, 11_025, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("file_format", ["WAV", "FLAC"])
def test_a_window_at_another_rate(file_format, rate):
    data = by_libsndfile(file_format, rate=rate, channels=2)
    whole = resample_clip(read_sound(data).samples, rate, RATE)
    with open_sound(data) as sound:
        for position in (0.0, 0.3, 0.999):
            window = Window(1000, position)
            found = sound.window(window.bounds, RATE)
            assert found.rate == RATE
            np.testing.assert_array_equal(found.samples, crop(whole, window))


def test_the_peak_of_a_window_is_that_of_the_file(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.array([0.5, -3.0, 0.5] * 20_000), 8000, subtype="FLOAT")
    with open_sound(tmp_path / "a.wav") as sound:
        assert sound.window(Window(1000).bounds, RATE).peak == 3.0


def claiming(file_format, place, size, n_claimed, subtype=None, order=">"):
    data = bytearray(by_libsndfile(file_format, subtype))
    place = data.index(place) + len(place) if isinstance(place, bytes) else place
    data[place : place + size] = struct.pack(order + {4: "I", 8: "Q"}[size], n_claimed)
    return bytes(data)


def flac_claiming(n_claimed):
    data = bytearray(by_libsndfile("FLAC"))
    data[21] |= n_claimed >> 32
    data[22:26] = struct.pack(">I", n_claimed % 2**32)
    return bytes(data)


# Ten gigabytes of samples, or nearly the field's largest value.
@pytest.mark.parametrize(
    "data",
    [
        wav(SAMPLES, data=2_500_000_000),
        flac_claiming(5 * 10**9),
        flac_claiming(2**36 - 1),
        claiming("AIFF", b"COMM\0\0\0\x12\0\x01", 4, 2_500_000_000),
        claiming("AU", 8, 4, 0xFFFFFFF0),
        claiming("CAF", b"data", 8, 10**10),
        claiming("W64", b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a", 8, 10**10, order="<"),
        by_libsndfile("NIST").replace(b"sample_count -i 40000", b"sample_count -i 5000000000"),
    ],
    ids=["wav", "flac", "flac_most", "aiff", "au", "caf", "w64", "sphere"],
)
@pytest.mark.parametrize("window", [None, Window(4000), Window(4000, 0.9)], ids=["all", "first", "random"])
def test_a_header_that_claims_gigabytes_takes_no_memory(data, window):
    tracemalloc.start()
    try:
        samples = decode_audio(data, RATE, window=window)
    except AudioDecodingError as error:
        samples, message = (), str(error)
    else:
        message = "not believed"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6
    assert len(samples) <= len(SAMPLES) + 8  # if the claim is not trusted, or the window exists
    assert any(word in message for word in ("truncated", "corrupt", "empty", "header", "not believed"))


@pytest.mark.parametrize("rate", [1, 4_000_000_000])
@pytest.mark.parametrize("file_format", ["WAV", "AU", "W64"])
def test_impossible_rates(file_format, rate):
    data = bytearray(by_libsndfile(file_format))
    place = {"WAV": 24, "AU": 16}.get(file_format) or data.index(b"fmt ") + 28
    data[place : place + 4] = rate.to_bytes(4, "big" if file_format == "AU" else "little")
    for window in (None, Window(100)):
        with pytest.raises(AudioDecodingError, match=r"is not used for speech|FFmpeg can read, or corrupt"):
            decode_audio(bytes(data), RATE, window=window)
