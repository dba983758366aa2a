"""Measures MP3 files: libsndfile takes the length from a header that many files lack, or guesses it."""

from __future__ import annotations

from dataclasses import dataclass

from hf_gradalign.audio.ffmpeg import count_samples
from hf_gradalign.audio.riff import Data
from hf_gradalign.audio.sound import AudioDecodingError

# The header lies within this many bytes from the first frame on: after the frame's own header and side information.
_HEADER_AREA = 64
# An ID3v1 tag and one frame may follow the bytes that the header counts.
_UNCOUNTED = 128 + 1728
# Decoders leave out less than this at start and end, as the header asks (encoder and decoder delay, padding).
_LEFT_OUT = 4 * 1152


@dataclass(frozen=True)
class Mp3Length:
    """What is known about an MP3 file's length.

    Attributes:
        has_header: Whether an Xing, Info or VBRI header gives it.
        least: The least number of samples per channel in a complete decoding; 0 if unknown.
        left_out: Samples that decoders may leave out at start and end because the header asks for it.
    """

    has_header: bool
    least: int
    left_out: int = 0


def measure_mp3(data: Data) -> Mp3Length:
    """Compare the header with the frames in the file, without decoding them."""
    start = end_of_id3v2(data)
    area = data[start : start + _HEADER_AREA]
    offset = max(area.find(b"Xing"), area.find(b"Info"))
    whole = offset != -1 and offset + 16 <= len(area)  # after a second ID3 tag, it may reach beyond the area
    if whole and area[offset + 7] & 3 == 3:  # it counts the frames and the bytes
        n_bytes = int.from_bytes(area[offset + 12 : offset + 16], "big")
        if abs(len(data) - start - n_bytes) <= _UNCOUNTED:
            frame = 1152 if data[start + 1] >> 3 & 3 == 3 else 576  # MPEG 1, or 2 and 2.5
            n_frames = int.from_bytes(area[offset + 8 : offset + 12], "big")
            return Mp3Length(True, max(n_frames * frame - _LEFT_OUT, 0), _LEFT_OUT)
    try:
        n_samples, first = count_samples(data, "mp3")
    except AudioDecodingError:
        return Mp3Length(offset != -1, 0)
    head = data[max(first - 2 * 1728, 0) : first + _HEADER_AREA]
    has_header = any(name in head for name in (b"Xing", b"Info", b"VBRI"))
    left_out = _LEFT_OUT if has_header else 0
    return Mp3Length(has_header, max(n_samples - left_out, 1), left_out)


def end_of_id3v2(data: Data) -> int:
    """Return where the ID3v2 tag of an MP3 or FLAC file ends; 0 without a tag."""
    head = data[:10]
    if len(head) < 10 or not head.startswith(b"ID3"):
        return 0
    size = sum(byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
    return 10 + size + (10 if head[5] & 0x10 else 0)
