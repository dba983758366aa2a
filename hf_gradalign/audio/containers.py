"""Whether an MP4, Matroska, ASF, CAF or AVI file is all there, and its sound: decoders pass over contradictions."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise

from hf_gradalign.audio.errors import AudioDecodingError
from hf_gradalign.audio.riff import Data

# Headers are off by a few bytes now and then.
_TOLERANCE = 0.01
_UNKNOWN_RIFF_SIZE = 0x7FFF0000
# An edit list leaves out the padding of an encoder, and what a film's sound is longer than its picture.
_LEFT_OUT_SECONDS, _LEFT_OUT_SHARE = 0.25, 0.03
_MOVIE_BOXES = (b"moov", b"moof", b"mdat")
_SEGMENT = b"\x18\x53\x80\x67"
_ASF_PROPERTIES = uuid.UUID("8cabdca1-a947-11cf-8ee4-00c00c205365").bytes_le


def check_structure(data: Data, format_name: str) -> None:
    """Refuse a file that ends before its header says, or leaves out much of its sound.

    Args:
        data: the file's bytes.
        format_name: FFmpeg's name of its format.

    Raises:
        AudioDecodingError: if it does.
    """
    if format_name.startswith("mov"):
        _refuse_cut(data, max((stop for name, _, stop in boxes(data, 0, None) if name in _MOVIE_BOXES), default=0))
        _refuse_edit(data)
    elif format_name.startswith("matroska"):
        place = data.find(_SEGMENT, 0, 4096)
        _refuse_cut(data, _end_of_segment(data, place + 4) if place != -1 else 0)
    elif format_name == "asf":
        place = data.find(_ASF_PROPERTIES, 0, 2**16)
        is_stream = place == -1 or data[place + 88 : place + 89] in (b"", b"\1", b"\3")
        _refuse_cut(data, 0 if is_stream else int.from_bytes(data[place + 40 : place + 48], "little"))
    elif format_name == "caf":
        _refuse_cut(data, _end_of_caf(data))
    elif format_name == "avi":
        said = int.from_bytes(data[4:8], "little")
        _refuse_cut(data, 8 + said if said < _UNKNOWN_RIFF_SIZE else 0)


def lost_fragments(data: Data) -> int:
    """How many fragments of an MP4 file are missing between others, by their numbers."""
    numbers = []
    for name, start, stop in boxes(data, 0, None):
        if name == b"moof":
            numbers += [_integer(data, at + 4, 4) for kind, at, _ in boxes(data, start, stop) if kind == b"mfhd"]
    return sum(after - before - 1 for before, after in pairwise(numbers) if after > before)


def boxes(data: Data, start: int, stop: int | None) -> Iterator[tuple[bytes, int, int]]:
    """The boxes of an MP4 file, or of a box: name, first byte of the content, one past the last.

    Args:
        data: the file's bytes.
        start: where the first box begins.
        stop: one past the last byte of the box that they are in; None for the file, which may end too early.
    """
    end = len(data) if stop is None else min(stop, len(data))
    while start + 8 <= end:
        size, header = _integer(data, start, 4), 8
        if size == 1:
            size, header = _integer(data, start + 8, 8), 16
        if size == 0:
            size = end - start
        if size < header:
            return
        yield data[start + 4 : start + 8], start + header, start + size if stop is None else min(start + size, end)
        start += size


def _refuse_cut(data: Data, said: int) -> None:
    if len(data) < (1 - _TOLERANCE) * said:
        raise AudioDecodingError(f"it is truncated: {len(data)} of {said} bytes are there")


def _refuse_edit(data: Data) -> None:
    """Refuse an edit list that leaves out the end of the sound, or times that make it do so."""
    for movie, start, stop in boxes(data, 0, None):
        if movie != b"moov":
            continue
        scale = _time_scale(data, _inner(data, start, stop, b"mvhd"))
        for name, *track in boxes(data, start, stop):
            handler = _inner(data, *track, b"mdia", b"hdlr")
            if name != b"trak" or handler is None or data[handler[0] + 8 : handler[0] + 12] != b"soun":
                continue
            media = _media_seconds(data, *track)
            edits = _edits(data, _inner(data, *track, b"edts", b"elst"))
            if not edits or not all(duration for duration, _ in edits):  # one of no length is to the end
                return
            heard = sum(Fraction(duration, scale) for duration, _ in edits)
            first = Fraction(edits[0][1], _time_scale(data, _inner(data, *track, b"mdia", b"mdhd")))
            left_out = float(media - first - heard)
            tolerance = max(_LEFT_OUT_SECONDS, _LEFT_OUT_SHARE * media)
            if first > tolerance and left_out < -tolerance:
                raise AudioDecodingError("it is corrupt: its edit list says more than there is")
            if left_out > tolerance:
                raise AudioDecodingError(
                    f"its edit list leaves out the last {left_out:.2f} of {float(media):.2f} s, by its header. If they "
                    "are to be heard, `ffmpeg -ignore_editlist 1 -i old.m4a new.wav`; if not, `ffmpeg -i old.m4a "
                    "new.wav`"
                )
            return


def _inner(data: Data, start: int, stop: int, *names: bytes) -> tuple[int, int] | None:
    for wanted in names:
        found = next(((at, end) for name, at, end in boxes(data, start, stop) if name == wanted), None)
        if found is None:
            return None
        start, stop = found
    return start, stop


def _time_scale(data: Data, header: tuple[int, int] | None) -> int:
    """Ticks a second, as FFmpeg takes them."""
    if header is None:
        return 1
    place = header[0] + (20 if data[header[0]] == 1 else 12)
    return max(_integer(data, place, 4), 1)


def _media_seconds(data: Data, start: int, stop: int) -> Fraction:
    table = _inner(data, start, stop, b"mdia", b"minf", b"stbl", b"stts")
    if table is None:
        return Fraction(0)
    places = range(table[0] + 8, table[1] - 7, 8)
    ticks = sum(_integer(data, place, 4) * _integer(data, place + 4, 4) for place in places)
    return Fraction(ticks, _time_scale(data, _inner(data, start, stop, b"mdia", b"mdhd")))


def _edits(data: Data, edit_list: tuple[int, int] | None) -> list[tuple[int, int]]:
    """Duration in ticks of the film, and start in ticks of the track, of each edit that is not a pause."""
    if edit_list is None:
        return []
    start, stop = edit_list
    width = 8 if data[start] == 1 else 4
    edits = [
        (_integer(data, place, width), _integer(data, place + width, width))
        for place in range(start + 8, stop - 2 * width - 3, 2 * width + 4)
    ]
    return [(duration, begin) for duration, begin in edits if begin != 2 ** (8 * width) - 1]


def _integer(data: Data, place: int, width: int) -> int:
    return int.from_bytes(data[place : place + width], "big")


def _end_of_segment(data: Data, place: int) -> int:
    """Where a Matroska file's segment ends; 0 where its size was written before it was known."""
    if place >= len(data) or not data[place]:
        return 0
    width = 9 - data[place].bit_length()
    size = _integer(data, place, width) & (2 ** (7 * width) - 1)
    return place + width + size if size != 2 ** (7 * width) - 1 else 0


def _end_of_caf(data: Data) -> int:
    """Where a CAF file's last chunk ends; 0 where the sound's size was written before it was known."""
    place = 8
    while place + 12 <= len(data):
        size = int.from_bytes(data[place + 4 : place + 12], "big", signed=True)
        if size < 0:
            return 0
        place += 12 + size
    return place
