"""Where the sound of a WAV or AIFF file begins and ends, whatever its header says.

Programs that write to a pipe, and servers that stream speech, write the header before they know the length: zero, the
greatest number there is, or a round one such as 2,000,000,000.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import Literal

from hf_gradalign.audio.errors import AudioDecodingError

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
# Sizes from here on are of no file of these formats, but what is written before the length is known.
_UNKNOWN_SIZE = 0x7FFF0000
# So are round numbers that are at least this large (1 GiB, two billion), with or without the header's bytes.
_LEAST_ROUND = 2**28
# Headers are off by a few bytes now and then.
_TOLERANCE = 0.01
_FEW_BYTES = 1024
_LARGEST_LIST = 2**16
# Tags that programs put behind the last chunk, and chunks that are known for what they are even where they are cut off.
_TAGS = (b"ID3", b"TAG", b"APETAGEX")
_METADATA = (b"LIST", b"id3 ", b"ID3 ", b"bext", b"iXML", b"_PMX", b"cue ", b"smpl", b"JUNK", b"PAD ", b"FLLR")


@dataclass(frozen=True)
class RiffSound:
    """The sound of one WAV or AIFF file, in bytes from the start of the data.

    Attributes:
        begin: Where the file begins.
        start: First byte of the sound.
        said: Bytes of sound by the header; None where it was written before the length was known.
        stop: One past the last byte of the sound that is there.
        end: One past the last byte that belongs to the file: its last chunk's.
        mended_sizes: The header's sizes that libsndfile stumbles on: place, bytes, and what belongs there.
    """

    begin: int
    start: int
    said: int | None
    stop: int
    end: int
    mended_sizes: tuple[tuple[int, int, int], ...] = ()

    def mended(self, data: Data) -> bytes:
        """The file with sizes that tell where its sound ends."""
        file = bytearray(data[self.begin : self.stop])
        for place, length, size in self.mended_sizes:
            size = min(size, 2 ** (8 * length) - 1)
            file[place - self.begin : place - self.begin + length] = size.to_bytes(
                length, "big" if file[:4] == b"RIFX" else "little"
            )
        return bytes(file)


def find_riff_sound(data: Data, begin: int = 0) -> RiffSound | None:
    """The sound of the WAV or AIFF file that begins at `begin`; None where there is none, or no sound chunk is found.

    Raises:
        AudioDecodingError: if the sound is shorter than the header says, or much more follows it than chunks.
    """
    order = _BYTE_ORDERS.get(data[begin : begin + 4])
    if order is None or data[begin + 8 : begin + 12] not in _FORMS:
        return None
    place, wide_sizes = begin + 12, None
    while place + 8 <= len(data):
        name, said = data[place : place + 4], int.from_bytes(data[place + 4 : place + 8], order)
        if name == b"ds64":
            wide_sizes = place + 8
        if name in (b"data", b"SSND"):
            break
        place += 8 + said + said % 2
    else:
        return None
    start = place + 8
    places = [(begin + 4, 4), (place + 4, 4)]
    if wide_sizes is not None and said == 0xFFFFFFFF:
        said = int.from_bytes(data[wide_sizes + 8 : wide_sizes + 16], "little")
        places = [(wide_sizes, 8), (wide_sizes + 8, 8)]
    if said == 0 and _end_of_chunks(data, start, order) == len(data):
        return RiffSound(begin, start, 0, start, len(data))  # nothing but chunks: it is empty indeed
    if said == 0 or (start + said > len(data) and _is_placeholder(said)):
        stop = _before_list(data, start, _next_wave(data, start))
        sizes = (stop - begin - 8, stop - start)
        mended = tuple((where, length, size) for (where, length), size in zip(places, sizes, strict=True))
        # libsndfile reads to the end of the file where a size is too large, but not where it is wider than 32 bits.
        needed = said == 0 or wide_sizes is not None or stop < len(data)
        if data[begin + 8 : begin + 12] != b"WAVE" or not needed:
            mended = ()
        return RiffSound(begin, start, None, stop, stop, mended)
    there = min(said, len(data) - start)
    if said and not there:
        raise AudioDecodingError("it is empty (no samples)")
    if there < (1 - _TOLERANCE) * said:
        raise AudioDecodingError(f"it is truncated: {there} of {said} bytes of sound are there")
    # Not every program pads a chunk of odd length.
    end = max(_end_of_chunks(data, start + said + pad, order) for pad in {0, said % 2})
    _refuse_much_after(data, said, end)
    return RiffSound(begin, start, said, start + there, end)


def _is_placeholder(size: int) -> bool:
    if size >= _UNKNOWN_SIZE and (size < 2**32 or size >= 2**62):
        return True
    return size >= _LEAST_ROUND and any(
        (size + header) % unit == 0 for unit in (10**6, 2**16) for header in (0, 1, 8, 36, 44)
    )


def _next_wave(data: Data, start: int) -> int:
    """Where another WAV file's header follows, or the end."""
    place = start
    while (place := data.find(b"WAVEfmt ", place)) != -1:
        if place - 8 >= start and data[place - 8 : place - 4] in _BYTE_ORDERS:
            return place - 8
        place += 8
    return len(data)


def _before_list(data: Data, start: int, end: int) -> int:
    """Where a last chunk of texts begins that ends with the file, or the end."""
    place = data.rfind(b"LIST", max(start, end - _LARGEST_LIST), end)
    if place == -1:
        return end
    size = int.from_bytes(data[place + 4 : place + 8], "little")
    return place if place + 8 + size + size % 2 == end else end


def _end_of_chunks(data: Data, place: int, order: Literal["little", "big"]) -> int:
    """From a chunk on, where the chunks end: at the end, at another file's header, or where no chunk is."""
    while place + 8 <= len(data):
        name = data[place : place + 4]
        size = int.from_bytes(data[place + 4 : place + 8], order)
        fits = place + 8 + size <= len(data)
        if name in _BYTE_ORDERS or not all(32 <= byte < 127 for byte in name) or not (fits or name in _METADATA):
            return place
        place += 8 + size + size % 2
    return len(data)


def _refuse_much_after(data: Data, said: int, end: int) -> None:
    after = len(data) - end
    if after <= max(_TOLERANCE * said, _FEW_BYTES) or data[end : end + 4] in _BYTE_ORDERS:
        return
    if data[end : end + 8].startswith(_TAGS) or not any(data[end:]):
        return
    raise AudioDecodingError(
        f"its header says that it has {said} bytes of sound, but {after} more bytes follow that are no chunk: "
        "a recorder that was stopped, or more than a WAV file holds. Write the file again with its length"
    )
