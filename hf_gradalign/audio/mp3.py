"""Whether libsndfile knows how long an MP3 is: it takes the length from a header that many files lack, or guesses."""

from __future__ import annotations

from dataclasses import dataclass

from hf_gradalign.audio.errors import AudioDecodingError
from hf_gradalign.audio.ffmpeg import count_samples
from hf_gradalign.audio.id3 import end_of_id3v2
from hf_gradalign.audio.riff import Data

# Bytes within which the header lies, from the first frame on: behind four of the frame's header and its side info.
_HEADER_AREA = 64
# An ID3v1 tag and a frame may follow the bytes that the header counts.
_UNCOUNTED = 128 + 1728
# What the header has decoders leave out at start and end (encoder and decoder delay, padding) is below this.
_LEFT_OUT = 4 * 1152


@dataclass(frozen=True)
class Mp3Length:
    """What is known of an MP3's length.

    Attributes:
        has_header: whether an Xing, Info or VBRI header gives it.
        least: samples a channel that a whole decode has at least; 0 where nothing says so.
        left_out: samples that decoders may leave out at start and end because the header says so.
    """

    has_header: bool
    least: int
    left_out: int = 0


def measure_mp3(data: Data) -> Mp3Length:
    """Compare the header with the frames that are there, without decoding them."""
    start = end_of_id3v2(data)
    area = data[start : start + _HEADER_AREA]
    place = max(area.find(b"Xing"), area.find(b"Info"))
    if place != -1 and len(area) == _HEADER_AREA and area[place + 7] & 3 == 3:  # it has the frames and the bytes
        said = int.from_bytes(area[place + 12 : place + 16], "big")
        if abs(len(data) - start - said) <= _UNCOUNTED:
            frame = 1152 if data[start + 1] >> 3 & 3 == 3 else 576  # MPEG 1, or 2 and 2.5
            n_frames = int.from_bytes(area[place + 8 : place + 12], "big")
            return Mp3Length(True, max(n_frames * frame - _LEFT_OUT, 0), _LEFT_OUT)
    try:
        there, first = count_samples(data, "mp3")
    except AudioDecodingError:
        return Mp3Length(place != -1, 0)
    head = data[max(first - 2 * 1728, 0) : first + _HEADER_AREA]
    has_header = any(name in head for name in (b"Xing", b"Info", b"VBRI"))
    left_out = _LEFT_OUT if has_header else 0
    return Mp3Length(has_header, max(there - left_out, 1), left_out)
