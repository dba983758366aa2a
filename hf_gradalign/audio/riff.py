"""Finds where the sound of a WAV or AIFF file begins and ends, even if its header is wrong.

Programs that write to a pipe, and servers that stream speech, write the header before they know the length. They write
zero, the largest possible number, or a round one such as 2,000,000,000.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from hf_gradalign.audio.sound import AudioDecodingError

Data = bytes | mmap.mmap
"""A file's bytes."""

_BYTE_ORDERS: dict[bytes, Literal["little", "big"]] = {
    b"RIFF": "little",
    b"RF64": "little",
    b"BW64": "little",
    b"RIFX": "big",
    b"FORM": "big",
}
_FORMS = (b"WAVE", b"AIFF", b"AIFC")
_SOUND = (b"data", b"SSND")
# Sizes from here on are placeholders, written before the length is known.
_UNKNOWN_SIZE = 0x7FFF0000
# So are round numbers of at least this size (1 GiB, two billion), with or without the header's bytes.
_MIN_ROUND = 2**28
# Headers may be off by a few bytes.
_TOLERANCE = 0.01
_FEW_BYTES = 1024
_LARGEST_LIST = 2**16
# Tags that programs write after the last chunk, and chunks that are recognized even if they are truncated.
_TAGS = (b"ID3", b"TAG", b"APETAGEX")
_METADATA = (b"LIST", b"id3 ", b"ID3 ", b"bext", b"iXML", b"_PMX", b"cue ", b"smpl", b"JUNK", b"PAD ", b"FLLR")


@dataclass(frozen=True)
class RiffSound:
    """The sound of one WAV or AIFF file, in bytes from the start of the data.

    Attributes:
        begin: Where the file begins.
        start: First byte of the sound.
        claimed: Bytes of sound by the header; None if the header has a placeholder.
        stop: One past the last byte of sound in the file.
        end: One past the last byte of the file's last chunk.
        repaired_sizes: The sizes in the header that libsndfile cannot handle: offset, width in bytes, correct value.
        further: Begin and end of further chunks of sound in a WAV file. libsndfile refuses them, and FFmpeg reads only
            the last.
    """

    begin: int
    start: int
    claimed: int | None
    stop: int
    end: int
    repaired_sizes: tuple[tuple[int, int, int], ...] = ()
    further: tuple[tuple[int, int], ...] = ()

    def repaired(self, data: Data) -> bytes:
        """Return the file with correct sizes in its header, and all its sound in one chunk."""
        file = bytearray(data[self.begin : self.stop])
        for start, stop in self.further:
            file += data[start:stop]
        for offset, width, size in self.repaired_sizes:
            size = min(size, 2 ** (8 * width) - 1)
            file[offset - self.begin : offset - self.begin + width] = size.to_bytes(
                width, "big" if file[:4] == b"RIFX" else "little"
            )
        return bytes(file)


def find_riff_sound(data: Data, begin: int = 0) -> RiffSound | None:
    """Find the sound of the WAV or AIFF file that begins at `begin`. None without such a file, or without sound in it.

    Raises:
        AudioDecodingError: If the sound is shorter than the header says, or followed by many bytes that are not a
            chunk, or by another chunk of sound in an AIFF file.
    """
    order = _BYTE_ORDERS.get(data[begin : begin + 4])
    if order is None or data[begin + 8 : begin + 12] not in _FORMS:
        return None
    offset, wide_sizes = begin + 12, None
    while offset + 8 <= len(data):
        name, claimed = data[offset : offset + 4], int.from_bytes(data[offset + 4 : offset + 8], order)
        if name == b"ds64":
            wide_sizes = offset + 8
        if name in _SOUND:
            break
        offset += 8 + claimed + claimed % 2
    else:
        return None
    start = offset + 8
    fields = [(begin + 4, 4), (offset + 4, 4)]
    if wide_sizes is not None and claimed == 0xFFFFFFFF:
        claimed = int.from_bytes(data[wide_sizes + 8 : wide_sizes + 16], "little")
        fields = [(wide_sizes, 8), (wide_sizes + 8, 8)]
    if claimed == 0 and (chunks := _chunks(data, start, order))[1] == len(data):  # only chunks follow
        return _add_later_chunks(RiffSound(begin, start, 0, start, len(data)), data, chunks[0], fields)
    if claimed == 0 or (start + claimed > len(data) and _is_placeholder(claimed)):
        stop = _end_before_list(data, start, _find_next_wave(data, start))
        sizes = (stop - begin - 8, stop - start)
        repaired = tuple((offset, width, size) for (offset, width), size in zip(fields, sizes, strict=True))
        # libsndfile reads to the end of the file if a size is too large, but not if it is wider than 32 bits.
        needed = claimed == 0 or wide_sizes is not None or stop < len(data)
        if data[begin + 8 : begin + 12] != b"WAVE" or not needed:
            repaired = ()
        return RiffSound(begin, start, None, stop, stop, repaired)
    available = min(claimed, len(data) - start)
    if claimed and not available:
        raise AudioDecodingError("it is empty (no samples)")
    if available < (1 - _TOLERANCE) * claimed:
        raise AudioDecodingError(f"it is truncated: it has {available} of {claimed} bytes of sound")
    # Not every program pads a chunk of odd length.
    chunks, end = max((_chunks(data, start + claimed + pad, order) for pad in {0, claimed % 2}), key=lambda it: it[1])
    refuse_trailing_bytes(data, claimed, end)
    return _add_later_chunks(RiffSound(begin, start, claimed, start + available, end), data, chunks, fields)


def _add_later_chunks(
    sound: RiffSound, data: Data, chunks: Sequence[tuple[bytes, int, int]], fields: Sequence[tuple[int, int]]
) -> RiffSound:
    """Add the sound in later chunks, and the sizes that belong in the header for all of the sound."""
    further = tuple((start, stop) for name, start, stop in chunks if name in _SOUND)
    if not further:
        return sound
    if data[sound.begin + 8 : sound.begin + 12] != b"WAVE":
        raise AudioDecodingError(f"it has {1 + len(further)} chunks of sound, and AIFF files have one")
    n_bytes = sound.stop - sound.start + sum(stop - start for start, stop in further)
    sizes = (sound.start + n_bytes - sound.begin - 8, n_bytes)
    repaired = tuple((offset, width, size) for (offset, width), size in zip(fields, sizes, strict=True))
    return replace(sound, repaired_sizes=repaired, further=further)


def _is_placeholder(size: int) -> bool:
    if size >= _UNKNOWN_SIZE and (size < 2**32 or size >= 2**62):
        return True
    return size >= _MIN_ROUND and any(
        (size + header) % unit == 0 for unit in (10**6, 2**16) for header in (0, 1, 8, 36, 44)
    )


def _find_next_wave(data: Data, start: int) -> int:
    """Return where the next WAV file's header begins; the end without one."""
    offset = start
    while (offset := data.find(b"WAVEfmt ", offset)) != -1:
        if offset - 8 >= start and data[offset - 8 : offset - 4] in _BYTE_ORDERS:
            return offset - 8
        offset += 8
    return len(data)


def _end_before_list(data: Data, start: int, end: int) -> int:
    """Return where a last chunk of texts begins, if it ends with the file; the end otherwise."""
    offset = data.rfind(b"LIST", max(start, end - _LARGEST_LIST), end)
    if offset == -1:
        return end
    size = int.from_bytes(data[offset + 4 : offset + 8], "little")
    return offset if offset + 8 + size + size % 2 == end else end


def _chunks(data: Data, offset: int, order: Literal["little", "big"]) -> tuple[list[tuple[bytes, int, int]], int]:
    """Return a sequence of chunks (name, begin and end of the content), and where it ends.

    The sequence ends at the end of the file, at another file's header, or before bytes that are not a chunk.
    """
    chunks = []
    while offset + 8 <= len(data):
        name = data[offset : offset + 4]
        size = int.from_bytes(data[offset + 4 : offset + 8], order)
        fits = offset + 8 + size <= len(data)
        if name in _BYTE_ORDERS or not all(32 <= byte < 127 for byte in name) or not (fits or name in _METADATA):
            return chunks, offset
        chunks.append((name, offset + 8, min(offset + 8 + size, len(data))))
        offset += 8 + size + size % 2
    return chunks, len(data)


def refuse_trailing_bytes(data: Data, claimed: int, end: int) -> None:
    """Refuse a file with many more bytes after its sound than its header says.

    Args:
        data: The file's bytes.
        claimed: Bytes of sound by the header.
        end: One past the last byte of the sound, and of what may follow it.

    Raises:
        AudioDecodingError: If more than about 1 % of the file follows, and it is not tags, zeros or another file.
    """
    after = len(data) - end
    if after <= max(_TOLERANCE * claimed, _FEW_BYTES) or data[end : end + 4] in _BYTE_ORDERS:
        return
    if data[end : end + 8].startswith(_TAGS) or not any(data[end:]):
        return
    raise AudioDecodingError(
        f"its header says that it has {claimed} bytes of sound, but {after} more bytes follow that are not a chunk. "
        "Perhaps the recorder was interrupted, or the sound is too long for WAV. Write the file again with its length"
    )
