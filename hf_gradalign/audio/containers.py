"""Checks that MP4, Matroska, ASF, CAF and AVI files are complete. Decoders ignore contradictions in their headers."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise

from hf_gradalign.audio.riff import Data, refuse_trailing_bytes
from hf_gradalign.audio.sound import AudioDecodingError

# Headers may be off by a few bytes.
_TOLERANCE = 0.01
_UNKNOWN_RIFF_SIZE = 0x7FFF0000
# Edit lists may leave this much out: an encoder's padding, and the end of a film's sound after its last picture.
_LEFT_OUT_SECONDS, _LEFT_OUT_SHARE = 0.25, 0.03
_MOVIE_BOXES = (b"moov", b"moof", b"mdat")
_SEGMENT = b"\x18\x53\x80\x67"
_ASF_PROPERTIES = uuid.UUID("8cabdca1-a947-11cf-8ee4-00c00c205365").bytes_le


def check_structure(data: Data, format_name: str) -> None:
    """Refuse a file that ends earlier than its header says, or leaves out much of its sound.

    Args:
        data: The file's bytes.
        format_name: FFmpeg's name of its format.

    Raises:
        AudioDecodingError: If it does.
    """
    if format_name.startswith("mov"):
        ends = [stop for name, _, stop in boxes(data, 0, None) if name in _MOVIE_BOXES]
        _refuse_truncated(data, max(ends, default=0))
        _refuse_edit(data)
    elif format_name.startswith("matroska"):
        offset = data.find(_SEGMENT, 0, 4096)
        _refuse_truncated(data, _end_of_segment(data, offset + 4) if offset != -1 else 0)
    elif format_name == "asf":
        offset = data.find(_ASF_PROPERTIES, 0, 2**16)
        is_stream = offset == -1 or data[offset + 88 : offset + 89] in (b"", b"\1", b"\3")
        _refuse_truncated(data, 0 if is_stream else int.from_bytes(data[offset + 40 : offset + 48], "little"))
    elif format_name == "caf":
        _refuse_truncated(data, _end_of_caf(data))
    elif format_name == "avi":
        size = int.from_bytes(data[4:8], "little")
        _refuse_truncated(data, 8 + size if size < _UNKNOWN_RIFF_SIZE else 0)


def lost_fragments(data: Data) -> int:
    """Count the fragments that are missing in the middle of an MP4 file, by the numbers of the others."""
    numbers = []
    for name, start, stop in boxes(data, 0, None):
        if name == b"moof":
            numbers += [
                _read_integer(data, begin + 4, 4) for kind, begin, _ in boxes(data, start, stop) if kind == b"mfhd"
            ]
    return sum(after - before - 1 for before, after in pairwise(numbers) if after > before)


def boxes(data: Data, start: int, stop: int | None) -> Iterator[tuple[bytes, int, int]]:
    """Yield the boxes of an MP4 file, or of a box: name, first byte of the content, one past the last.

    Args:
        data: The file's bytes.
        start: Where the first box begins.
        stop: One past the last byte of the outer box; None for the whole file, which may be truncated.
    """
    end = len(data) if stop is None else min(stop, len(data))
    while start + 8 <= end:
        size, header = _read_integer(data, start, 4), 8
        if size == 1:
            size, header = _read_integer(data, start + 8, 8), 16
        if size == 0:
            size = end - start
        if size < header:
            return
        yield data[start + 4 : start + 8], start + header, start + size if stop is None else min(start + size, end)
        start += size


def _refuse_truncated(data: Data, size: int) -> None:
    if len(data) < (1 - _TOLERANCE) * size:
        raise AudioDecodingError(f"it is truncated: it has {len(data)} of {size} bytes")


def _refuse_edit(data: Data) -> None:
    """Refuse an edit list that leaves out the end of the sound, or contradicts the sound's times."""
    for movie, start, stop in boxes(data, 0, None):
        if movie != b"moov":
            continue
        scale = _read_time_scale(data, _find_inner_box(data, start, stop, b"mvhd"))
        for name, begin, end in boxes(data, start, stop):
            handler = _find_inner_box(data, begin, end, b"mdia", b"hdlr")
            if name != b"trak" or handler is None or data[handler[0] + 8 : handler[0] + 12] != b"soun":
                continue
            media = _media_seconds(data, begin, end)
            edits = _read_edits(data, _find_inner_box(data, begin, end, b"edts", b"elst"))
            if not edits or not all(duration for duration, _ in edits):  # a duration of 0 means to the end
                return
            kept = sum(Fraction(duration, scale) for duration, _ in edits)
            first = Fraction(edits[0][1], _read_time_scale(data, _find_inner_box(data, begin, end, b"mdia", b"mdhd")))
            left_out = float(media - first - kept)
            tolerance = max(_LEFT_OUT_SECONDS, _LEFT_OUT_SHARE * media)
            if first > tolerance and left_out < -tolerance:
                raise AudioDecodingError("it is corrupt: its edit list is longer than its sound")
            if left_out > tolerance:
                raise AudioDecodingError(
                    f"its edit list leaves out the last {left_out:.2f} of {float(media):.2f} s. Convert it with them "
                    "(`ffmpeg -ignore_editlist 1 -i old.m4a new.wav`) or without them (`ffmpeg -i old.m4a new.wav`)"
                )
            return


def _find_inner_box(data: Data, start: int, stop: int, *names: bytes) -> tuple[int, int] | None:
    for wanted in names:
        box = next(((begin, end) for name, begin, end in boxes(data, start, stop) if name == wanted), None)
        if box is None:
            return None
        start, stop = box
    return start, stop


def _read_time_scale(data: Data, header: tuple[int, int] | None) -> int:
    """Return the ticks per second, read as FFmpeg does."""
    if header is None:
        return 1
    offset = header[0] + (20 if data[header[0]] == 1 else 12)
    return max(_read_integer(data, offset, 4), 1)


def _media_seconds(data: Data, start: int, stop: int) -> Fraction:
    table = _find_inner_box(data, start, stop, b"mdia", b"minf", b"stbl", b"stts")
    if table is None:
        return Fraction(0)
    offsets = range(table[0] + 8, table[1] - 7, 8)
    ticks = sum(_read_integer(data, offset, 4) * _read_integer(data, offset + 4, 4) for offset in offsets)
    return Fraction(ticks, _read_time_scale(data, _find_inner_box(data, start, stop, b"mdia", b"mdhd")))


def _read_edits(data: Data, edit_list: tuple[int, int] | None) -> list[tuple[int, int]]:
    """Return each edit that is not a pause: its duration in ticks of the movie, and its start in ticks of the track."""
    if edit_list is None:
        return []
    start, stop = edit_list
    width = 8 if data[start] == 1 else 4
    edits = [
        (_read_integer(data, offset, width), _read_integer(data, offset + width, width))
        for offset in range(start + 8, stop - 2 * width - 3, 2 * width + 4)
    ]
    return [(duration, begin) for duration, begin in edits if begin != 2 ** (8 * width) - 1]


def _read_integer(data: Data, offset: int, width: int) -> int:
    return int.from_bytes(data[offset : offset + width], "big")


def _end_of_segment(data: Data, offset: int) -> int:
    """Return where a Matroska file's segment ends; 0 if its size was unknown when it was written."""
    if offset >= len(data) or not data[offset]:
        return 0
    width = 9 - data[offset].bit_length()
    size = _read_integer(data, offset, width) & (2 ** (7 * width) - 1)
    return offset + width + size if size != 2 ** (7 * width) - 1 else 0


def _end_of_caf(data: Data) -> int:
    """Return where a CAF file's last chunk ends; 0 if the sound's size was unknown when it was written.

    Raises:
        AudioDecodingError: If many bytes follow that are not a chunk.
    """
    offset, sound = 8, 0
    while offset + 12 <= len(data):
        name, size = data[offset : offset + 4], int.from_bytes(data[offset + 4 : offset + 12], "big", signed=True)
        if not all(32 <= byte < 127 for byte in name):
            refuse_trailing_bytes(data, sound, offset)
            return offset
        if size < 0:
            return 0
        sound = size if name == b"data" else sound
        offset += 12 + size
    return offset
