"""Finds the recordings in a file that contains several, one after the other.

People join files with `cat`, and streams are chained. A reader that stops after the first recording misses the rest.
"""

from __future__ import annotations

from dataclasses import dataclass

from hf_gradalign.audio.containers import boxes
from hf_gradalign.audio.flac import MARKER, has_more_sound
from hf_gradalign.audio.mp3 import end_of_id3v2
from hf_gradalign.audio.ogg import OpenEnd, find_ogg_links
from hf_gradalign.audio.riff import Data, RiffSound, find_riff_sound

# How recordings begin, by their first bytes: long enough not to occur by chance.
_STARTS = {MARKER: (b"fLaC\0\0\0\x22", b"fLaC\x80\0\0\x22"), b"#!AMR": (b"#!AMR\n", b"#!AMR-WB\n")}
_EBML = b"\x1a\x45\xdf\xa3"


@dataclass(frozen=True)
class ForFFmpeg:
    """A file that libsndfile would read only in part.

    Attributes:
        reason: Why.
    """

    reason: str


def find_recordings(data: Data) -> tuple[list[tuple[int, int]], RiffSound | OpenEnd | ForFFmpeg | None]:
    """Find the recordings in a file's bytes.

    Knows WAV, AIFF, Ogg, FLAC, AMR, MP4 and Matroska. (FFmpeg reads joined MP3 and AAC files as one.)

    Returns:
        Begin and end of each recording, in order; all bytes if there is only one. For a single recording that
        libsndfile cannot read, also the object that repairs it, or the reason to use FFmpeg.

    Raises:
        AudioDecodingError: If a WAV or AIFF file's header contradicts its content, or an Ogg file lacks pages.
    """
    after_tag, open_end = end_of_id3v2(data), None
    if data[after_tag : after_tag + 4] == b"OggS":
        links, open_end = find_ogg_links(data, after_tag)
        begins = [0, *links[1:]]
    else:
        begins = _find_starts(data, after_tag)
    recordings = list(zip(begins, [*begins[1:], len(data)], strict=True))
    if len(recordings) > 1:
        return recordings, None
    if has_more_sound(data, after_tag):
        return recordings, ForFFmpeg("libsndfile reads only as many samples as its header says, and it has more")
    riff = find_riff_sound(data)
    return recordings, riff if riff is not None and riff.repaired_sizes else open_end


def _find_starts(data: Data, after_tag: int) -> list[int]:
    head = data[:16]
    if head[8:12] in (b"WAVE", b"AIFF", b"AIFC"):
        return _riff_files(data)
    if head[4:8] == b"ftyp":
        return [start - 8 for name, start, _ in boxes(data, 0, None) if name == b"ftyp"]
    if head.startswith(_EBML):
        offsets = _find_all(data, _EBML)
        return [
            offset
            for offset in offsets
            if offset == 0 or b"webm" in (near := data[offset : offset + 64]) or b"matroska" in near
        ]
    for first, starts in _STARTS.items():
        if data[after_tag : after_tag + len(first)] == first:
            return sorted({0, *(offset for start in starts for offset in _find_all(data, start, after_tag + 1))})
    return [0]


def _find_all(data: Data, wanted: bytes, start: int = 0) -> list[int]:
    offsets = []
    offset = start - 1
    while (offset := data.find(wanted, offset + 1)) != -1:
        offsets.append(offset)
    return offsets


def _riff_files(data: Data) -> list[int]:
    begins = [0]
    while (sound := find_riff_sound(data, begins[-1])) is not None and data[sound.end + 8 : sound.end + 12] in (
        b"WAVE",
        b"AIFF",
        b"AIFC",
    ):
        begins.append(sound.end)
    return begins
