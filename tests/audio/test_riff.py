"""Files with more sound than the header, or its first chunk of sound, says."""

import io
import struct

import numpy as np
import pytest
import soundfile
from noise_clips import draw_clip

from hf_gradalign.audio import AudioDecodingError
from hf_gradalign.audio.reading import read_sound
from hf_gradalign.data import Window, decode_audio

CLIP = draw_clip(0, 5000)


def encode(format_name="WAV", subtype="PCM_16"):
    file = io.BytesIO()
    soundfile.write(file, CLIP, 16_000, format=format_name, subtype=subtype)
    return file.getvalue()


def chunk(name, content):
    return name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


def cut(data, *sizes, between=b""):
    """A WAV file whose sound is in several chunks: of these sizes, and the rest."""
    start = data.index(b"data") + 8
    parts, end = [], start
    for size in (*sizes, len(data)):
        parts.append(chunk(b"data", data[end : end + size]))
        end += size
    body = data[8 : start - 8] + between.join(parts)
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_U8", "PCM_24", "FLOAT"])
@pytest.mark.parametrize(
    "make",
    [
        lambda data: cut(data, 1200),
        lambda data: cut(data, 600, 1200, between=chunk(b"LIST", b"INFOx")),
        lambda data: cut(data, 0),
        lambda data: cut(data, 1200) + chunk(b"LIST", b"INFOx"),
    ],
    ids=["two", "three", "the first is empty", "metadata at the end"],
)
def test_all_chunks_of_sound_are_read(subtype, make):
    data = encode(subtype=subtype)
    whole = read_sound(data).samples
    np.testing.assert_array_equal(read_sound(make(data)).samples, whole)
    window = decode_audio(make(data), None, window=Window(1000, position=0.9999))
    np.testing.assert_array_equal(window, whole[-1000:])
    np.testing.assert_array_equal(read_sound(make(data) + data).samples, np.tile(whole, 2))


def test_aiff_has_one():
    data = encode("AIFF")
    start = data.index(b"SSND")
    twice = data + data[start:]
    twice = twice[:4] + struct.pack(">I", len(twice) - 8) + twice[8:]
    with pytest.raises(AudioDecodingError, match="it has 2 chunks of sound, and AIFF files have one"):
        read_sound(twice)


@pytest.mark.parametrize("format_name", ["AU", "CAF"])
@pytest.mark.parametrize("endian", ["BIG", "LITTLE"])
def test_more_in_a_file_than_it_says(format_name, endian):
    file = io.BytesIO()
    soundfile.write(file, CLIP, 16_000, format=format_name, endian=endian)
    data = file.getvalue()
    assert len(read_sound(data).samples) == len(CLIP)
    if format_name == "AU":
        half = data[:8] + struct.pack(">I" if endian == "BIG" else "<I", len(CLIP)) + data[12:]
    else:
        start = data.index(b"data") + 4
        half = data[:start] + struct.pack(">Q", len(CLIP)) + data[start + 8 :]
    with pytest.raises(AudioDecodingError, match=r"it has 5000 bytes of sound, but \d+ more bytes follow"):
        read_sound(half)
