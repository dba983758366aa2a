"""Ogg files are read completely or refused: no page is skipped silently."""

import functools
import io
import struct

import numpy as np
import pytest
import soundfile
from encoded_audio import RATE, encode, loud_then_quiet

from hf_gradalign.audio import AudioDecodingError, read_sound
from hf_gradalign.data import Window, crop, decode_audio

SAMPLES = loud_then_quiet()


def by_libsndfile(subtype):
    file = io.BytesIO()
    soundfile.write(file, SAMPLES, RATE, format="OGG", subtype=subtype)
    return file.getvalue()


FILES = {
    "vorbis": lambda: by_libsndfile("VORBIS"),
    "opus": lambda: by_libsndfile("OPUS"),
    "opus_48k": lambda: encode(SAMPLES, "ogg", "libopus", rate=48_000),
    "flac": lambda: encode(SAMPLES, "ogg", "flac", muxer={"page_duration": "500000"}),
}


@functools.cache
def encoded(name):
    return FILES[name]()


def pages_of(data):
    pages = []
    while data:
        n_segments = data[26]
        end = 27 + n_segments + sum(data[27 : 27 + n_segments])
        pages.append(data[:end])
        data = data[end:]
    return pages


def with_checksum(page):
    page = bytearray(page)
    page[22:26] = bytes(4)
    register = 0
    for byte in page:
        register ^= byte << 24
        for _ in range(8):
            register = (register << 1 ^ (0x104C11DB7 if register >> 31 else 0)) & 0xFFFFFFFF
    page[22:26] = struct.pack("<I", register)
    return bytes(page)


def changed(page, place, form, value):
    page = bytearray(page)
    struct.pack_into(form, page, place, value)
    return with_checksum(page)


def flipped(page, place):
    return page[:place] + bytes([page[place] ^ 1]) + page[place + 1 :]


def without_last_flag(page):
    return changed(page, 5, "B", page[5] & ~4)


DAMAGED = {
    "checksum": (lambda p: [*p[:2], flipped(p[2], 22), *p[3:]], "checksum of its page 2 is wrong"),
    "sound": (lambda p: [*p[:2], flipped(p[2], len(p[2]) - 5), *p[3:]], "checksum of its page 2 is wrong"),
    "last_page": (lambda p: [*p[:-1], flipped(p[-1], len(p[-1]) - 5)], r"checksum of its page \d+ is wrong"),
    "zeros": (lambda p: [*p[:2], p[2][:40] + bytes(len(p[2]) - 40), *p[3:]], "checksum of its page 2 is wrong"),
    "missing": (lambda p: p[:3] + p[4:], "page 4 follows page 2"),
    "first_sound_missing": (lambda p: p[:2] + p[3:], "page 3 follows page 1.*ffmpeg"),
    "page_start": (lambda p: [*p[:3], b"o" + p[3][1:], *p[4:]], "page 4 follows page 2"),
    "last_page_start": (lambda p: [*p[:-1], b"o" + p[-1][1:]], "truncated: the .* after its last page are not a page"),
    "zeros_to_the_end": (lambda p: [*p[:3], bytes(sum(map(len, p[3:])))], "truncated"),
    "twice": (lambda p: p[:3] + p[2:], "page 2 follows page 2"),
    "swapped": (lambda p: [*p[:2], p[3], p[2], *p[4:]], "page 3 follows page 1"),
    "cut_in_the_middle": (lambda p: [*p[:2], p[2][:-100], *p[3:]], "checksum of its page 2 is wrong"),
    "cut_at_the_end": (lambda p: [*p[:-1], p[-1][:-1]], "truncated: it ends within a page"),
    "cut_in_a_header": (lambda p: [*p[:-1], p[-1][:20]], "truncated: it ends within a page"),
    "other_stream": (lambda p: [*p[:3], *(changed(page, 14, "<I", 1) for page in p[3:])], "first page of a stream"),
    "backward": (lambda p: [*p[:-1], changed(p[-1], 6, "<q", 2000)], r"ends at sample 2000, the one before at \d+"),
    "header": (lambda p: [p[0], flipped(p[1], 40), *p[2:]], "checksum of its page 1 is wrong"),
}


@pytest.mark.parametrize("damage", DAMAGED)
@pytest.mark.parametrize("name", FILES)
def test_damage_is_reported(name, damage, tmp_path):
    change, reason = DAMAGED[damage]
    path = tmp_path / "a.ogg"
    path.write_bytes(b"".join(change(pages_of(encoded(name)))))
    for source in (path, path.read_bytes()):
        with pytest.raises(AudioDecodingError, match=reason):
            read_sound(source)
    with pytest.raises(AudioDecodingError, match=reason):
        decode_audio(path, RATE, window=Window(1000))


def test_damage_of_a_later_link_is_reported():
    pages = pages_of(encoded("vorbis"))
    with pytest.raises(AudioDecodingError, match="checksum"):
        read_sound(b"".join([*pages, *pages[:2], flipped(pages[2], 50), *pages[3:]]))


def test_a_link_that_ends_within_a_packet_is_reported():
    pages = pages_of(encoded("vorbis"))
    [place] = [26 + pages[2][26]]  # the last of its segments
    cut = [*pages[:2], with_checksum(pages[2][:place] + b"\xff" + pages[2][place + 1 :] + bytes(255 - pages[2][place]))]
    for rest in ([], pages):
        with pytest.raises(AudioDecodingError, match="truncated: it ends within a packet"):
            read_sound(b"".join(cut + rest))


HARMLESS = {
    "between": lambda p: [*p[:3], bytes(range(256)) * 10, *p[3:]],
    "behind": lambda p: [*p, b"TAG" + bytes(125)],
    "no_last_page": lambda p: [*p[:-1], without_last_flag(p[-1])],  # Telegram, MuseScore, Android's OggWriter
}


@pytest.mark.parametrize("change", HARMLESS)
@pytest.mark.parametrize("name", FILES)
def test_undamaged_files_are_read(name, change, tmp_path):
    path = tmp_path / "a.ogg"
    path.write_bytes(b"".join(HARMLESS[change](pages_of(encoded(name)))))
    expected = read_sound(encoded(name)).samples
    assert len(expected) == len(SAMPLES) * (3 if name == "opus_48k" else 1)
    for source in (path, path.read_bytes()):
        np.testing.assert_array_equal(read_sound(source).samples, expected)
    whole = decode_audio(encoded(name), RATE)
    np.testing.assert_array_equal(decode_audio(path, RATE, window=Window(900, 0.9)), crop(whole, Window(900, 0.9)))


def test_links_without_a_last_page_are_read():
    pages = pages_of(encoded("opus"))
    open_ended = b"".join([*pages[:-1], without_last_flag(pages[-1])])
    expected = read_sound(encoded("opus")).samples
    np.testing.assert_array_equal(read_sound(open_ended + open_ended).samples, np.tile(expected, 2))
