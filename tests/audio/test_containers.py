"""MP4, WebM and AVI files whose header contradicts their content are refused, and not read in part."""

import functools
import struct

import numpy as np
import pytest
from encoded_audio import RATE, encode, loud_then_quiet

from hf_gradalign.audio import AudioDecodingError, read_sound

SAMPLES = loud_then_quiet()
NESTED = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts")
FRAGMENTS = {"movflags": "+empty_moov+default_base_moof+skip_trailer", "frag_duration": "400000"}
FILES = {
    "aac": {"container": "ipod", "codec": "aac"},
    "faststart": {"container": "ipod", "codec": "aac", "muxer": {"movflags": "+faststart"}},
    "alac": {"container": "ipod", "codec": "alac"},
    "mov": {"container": "mov", "codec": "pcm_s16le"},
    "opus": {"container": "mp4", "codec": "libopus", "rate": 48_000},
    "amr": {"container": "3gp", "codec": "libopencore_amrnb", "rate": 8000},
}
FRAGMENTED = {
    codec: {"container": "mp4", "codec": codec, "rate": 48_000, "muxer": FRAGMENTS} for codec in ("aac", "libopus")
}


@functools.cache
def encoded(name):
    return encode(SAMPLES, **FILES[name])


@functools.cache
def fragmented(codec):
    return encode(SAMPLES, **FRAGMENTED[codec])


def boxes(data, start=0, stop=None):
    stop = len(data) if stop is None else stop
    while start + 8 <= stop:
        size, name = int.from_bytes(data[start : start + 4], "big"), data[start + 4 : start + 8]
        yield name, start, start + size
        if name in NESTED:
            yield from boxes(data, start + 8, start + size)
        start += size


def place_of(data, name):
    return next(start for box, start, _ in boxes(data) if box == name)


def changed(data, box, place, *values):
    """Change a number in a box, at an offset from its start."""
    data = bytearray(data)
    struct.pack_into(f">{len(values)}I", data, place_of(bytes(data), box) + place, *values)
    return bytes(data)


def number(data, box, place):
    return struct.unpack_from(">I", data, place_of(data, box) + place)[0]


@pytest.mark.parametrize(
    ("box", "place", "value"),
    [
        ("mdhd", 20, 1),  # ticks per second
        ("mdhd", 20, 0),
        ("mdhd", 20, 100),
        ("mdhd", 20, 4000),
        ("mvhd", 20, 10_000),
        ("mvhd", 20, 2**31),
        ("elst", 16, 500),  # duration
        ("elst", 16, 10),
    ],
)
@pytest.mark.parametrize("name", FILES)
def test_an_edit_list_that_leaves_out_the_end_is_reported(name, box, place, value):
    with pytest.raises(AudioDecodingError, match=r"its edit list leaves out the last .*ffmpeg -ignore_editlist 1"):
        read_sound(changed(encoded(name), box.encode(), place, value))


@pytest.mark.parametrize("name", FILES)
def test_ticks_that_make_packets_last_minutes_are_reported(name):
    ticks = number(encoded(name), b"stts", 20)
    with pytest.raises(AudioDecodingError, match=r"its edit list leaves out|packets of .* decode to only"):
        read_sound(changed(encoded(name), b"stts", 20, 1000 * ticks))
    with pytest.raises(AudioDecodingError, match=r"packets of .* decode to only"):
        read_sound(changed(encoded(name), b"mdhd", 20, 2**31))  # FFmpeg reads it as 1


@pytest.mark.parametrize("begin", [20_000, 39_000, 10**6])
@pytest.mark.parametrize("name", FILES)
def test_an_edit_list_that_begins_late_is_reported(name, begin):
    data = encoded(name)
    with pytest.raises(AudioDecodingError, match="its edit list is longer than its sound"):
        read_sound(changed(data, b"elst", 20, begin * number(data, b"mdhd", 20) // RATE))


@pytest.mark.parametrize(
    ("box", "place", "values"),
    [
        ("mdhd", 20, (96_000,)),
        ("mdhd", 24, (1,)),
        ("mdhd", 24, (2**31,)),
        ("mvhd", 20, (1,)),
        ("mvhd", 24, (1,)),
        ("tkhd", 28, (1,)),
        ("elst", 16, (2450,)),  # no more than an encoder's padding is left out
        ("elst", 16, (10_000,)),
        ("elst", 20, (0,)),
    ],
)
@pytest.mark.parametrize("name", FILES)
def test_other_lengths_change_nothing(name, box, place, values):
    expected = read_sound(encoded(name)).samples
    samples = read_sound(changed(encoded(name), box.encode(), place, *values)).samples
    assert len(expected) - 4096 <= len(samples) <= len(expected)
    np.testing.assert_array_equal(samples, expected[: len(samples)])


def test_priming_is_left_out():
    data = changed(encoded("aac"), b"elst", 16, 2500, 1024)
    np.testing.assert_array_equal(read_sound(data).samples, read_sound(encoded("aac")).samples[1024:])


@pytest.mark.parametrize("codec", FRAGMENTED)
def test_a_missing_fragment_is_reported(codec):
    data = fragmented(codec)
    expected = len(read_sound(data).samples)
    begins = [start for name, start, _ in boxes(data) if name == b"moof"]
    assert len(begins) > 4
    with pytest.raises(AudioDecodingError, match=r"fragments are missing in the middle, 0\.\d+ s"):
        read_sound(data[: begins[1]] + data[begins[2] :])
    # A recording of the end of a stream.
    later = read_sound(data[: begins[0]] + data[begins[1] :]).samples
    assert expected / 2 < len(later) < expected


@pytest.mark.parametrize("name", ["faststart", *FRAGMENTED])
@pytest.mark.parametrize("share", [0.5, 0.9, 0.97])
def test_a_little_less_than_all_is_reported(name, share):
    data = fragmented(name) if name in FRAGMENTED else encoded(name)
    with pytest.raises(AudioDecodingError, match=r"it is truncated|or corrupt"):
        read_sound(data[: int(share * len(data))])


@pytest.mark.parametrize(("container", "codec"), [("webm", "libopus"), ("matroska", "aac"), ("avi", "libmp3lame")])
@pytest.mark.parametrize("share", [0.5, 0.9, 0.97])
def test_a_little_less_than_all_of_another_container_is_reported(container, codec, share):
    data = encode(SAMPLES, container, codec, rate=48_000)
    with pytest.raises(AudioDecodingError, match=r"it is truncated: it has \d+ of \d+ bytes"):
        read_sound(data[: int(share * len(data))])


@pytest.mark.parametrize("name", ["aac", "opus", "alac"])
def test_zeros_in_the_middle_are_reported(name):
    data = encoded(name)
    middle = place_of(data, b"mdat") + len(data) // 2
    zeros = data[:middle] + bytes(len(data) // 5) + data[middle + len(data) // 5 :]
    with pytest.raises(AudioDecodingError, match="it is corrupt"):
        read_sound(zeros)


def test_the_index_of_an_uncompressed_film():
    for per_chunk in (1, 500):
        with pytest.raises(AudioDecodingError, match=r"packets of .* decode to only"):
            read_sound(changed(encoded("mov"), b"stsc", 20, per_chunk))


@pytest.mark.parametrize("codec", ["alac", "wavpack"])
def test_packets_without_a_duration(codec):
    np.testing.assert_allclose(read_sound(encode(SAMPLES, "matroska", codec)).samples, SAMPLES, atol=1 / 64)
