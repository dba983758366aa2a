"""Checks that all pages of an Ogg file are present and intact. Decoders silently skip damaged pages."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from hf_gradalign.audio.riff import Data
from hf_gradalign.audio.sound import AudioDecodingError

_HEADER = 27  # bytes of a page, before its table of segments
_FIRST, _LAST = 2, 4  # flags
# Ogg's checksum is zlib's with the bits of each byte, and of the sum, in reverse.
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass
class _Stream:
    """What the last page of a logical stream says.

    Attributes:
        number: Its number.
        position: The sample at which it ends.
        is_cut: Whether a packet continues on the next page.
        page: Where it begins in the file.
        has_ended: Whether it is marked as the stream's last page.
    """

    number: int
    position: int
    is_cut: bool
    page: int
    has_ended: bool


@dataclass(frozen=True)
class OpenEnd:
    """An Opus stream without a page that is marked as the last, as phones write it. libsndfile calls it malformed.

    Attributes:
        page: Where the last page begins.
    """

    page: int

    def repaired(self, data: Data) -> bytes:
        """Return the file with its last page marked as such."""
        file = bytearray(data)
        file[self.page + 5] |= _LAST
        file[self.page + 22 : self.page + 26] = _checksum(file[self.page : _end_of_page(file, self.page)])
        return bytes(file)


def find_ogg_links(data: Data, start: int) -> tuple[list[int], OpenEnd | None]:
    """Find where the links of a chained stream begin, and the open end of the last one.

    Like decoders, skips bytes between pages if no page is missing.

    Args:
        data: The file's bytes.
        start: Its first page.

    Raises:
        AudioDecodingError: If a page's checksum is wrong, or pages or the end of the last packet are missing.
    """
    links: list[int] = []
    streams: dict[bytes, _Stream] = {}
    end, number, follows_first = start, 0, False
    while (page := data.find(b"OggS\0", end)) != -1:
        end = _end_of_page(data, page)
        if end > len(data) or page + _HEADER > len(data):
            raise AudioDecodingError("it is truncated: it ends within a page")
        if bytes(data[page + 22 : page + 26]) != _checksum(data[page:end]):
            raise AudioDecodingError(f"it is corrupt: the checksum of its page {number} is wrong")
        is_first = bool(data[page + 5] & _FIRST)
        if is_first and not follows_first:
            _check_ends(streams)
            links.append(page)
            streams = {}
        _add_page(data, page, streams, is_first)
        number, follows_first = number + 1, is_first
    _check_ends(streams)
    last = max(streams.values(), key=lambda stream: stream.page, default=None)
    if last is None or last.has_ended:
        return links, None
    if end < len(data):
        raise AudioDecodingError(f"it is truncated: the {len(data) - end} bytes after its last page are not a page")
    first = links[-1] + _HEADER + data[links[-1] + 26]
    return links, OpenEnd(last.page) if data[first : first + 8] == b"OpusHead" else None


def _add_page(data: Data, page: int, streams: dict[bytes, _Stream], is_first: bool) -> None:
    """Check that a page follows its stream's previous one, and note it."""
    serial = bytes(data[page + 14 : page + 18])
    number = int.from_bytes(data[page + 18 : page + 22], "little")
    position = int.from_bytes(data[page + 6 : page + 14], "little", signed=True)
    before = streams.get(serial)
    if before is None and not is_first:
        raise AudioDecodingError("it is corrupt: the first page of a stream is missing")
    if before is not None:
        if number != (before.number + 1) % 2**32:
            raise AudioDecodingError(
                f"it is corrupt, or a part of a live stream: page {number} follows page {before.number}. If nothing "
                "that you need is missing, `ffmpeg -i old.ogg -c copy new.ogg` renumbers its pages"
            )
        if position == -1:  # no packet ends on this page
            position = before.position
        if position < before.position:
            raise AudioDecodingError(
                f"it is corrupt: page {number} ends at sample {position}, the one before at {before.position}"
            )
    n_segments = data[page + 26]
    table = data[page + _HEADER : page + _HEADER + n_segments]
    streams[serial] = _Stream(number, position, table[-1:] == b"\xff", page, bool(data[page + 5] & _LAST))


def _check_ends(streams: dict[bytes, _Stream]) -> None:
    if any(stream.is_cut for stream in streams.values()):
        raise AudioDecodingError("it is truncated: it ends within a packet")


def _end_of_page(data: Data | bytearray, page: int) -> int:
    n_segments = sum(data[page + 26 : page + 27])
    return page + _HEADER + n_segments + sum(data[page + _HEADER : page + _HEADER + n_segments])


def _checksum(page: bytes | bytearray) -> bytes:
    zeroed = page[:22] + bytes(4) + page[26:]
    reverse = zlib.crc32(zeroed.translate(_REVERSED), 2**32 - 1) ^ (2**32 - 1)
    return reverse.to_bytes(4, "big").translate(_REVERSED)
