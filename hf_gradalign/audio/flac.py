"""Finds out whether a FLAC file has more sound than its header says. Decoders such as libsndfile stop there."""

from __future__ import annotations

from hf_gradalign.audio.riff import Data

MARKER = b"fLaC"
_STREAMINFO = 8  # where its content begins, after the marker and the block's own header
# More than a frame of 8 channels of 32 bits in the largest blocks that encoders write (16,384 samples).
_LARGEST_FRAME = 2**20
_LAST_CHANNEL_CODE = 10


def has_more_sound(data: Data, begin: int = 0) -> bool:
    """Return whether the last frame of a FLAC file ends later than the header says. False for other files.

    Format: RFC 9639. Candidates for a frame's header must have the right checksum.

    Args:
        data: The file's bytes, up to its end.
        begin: Where the stream begins, with its marker.
    """
    info = data[begin + _STREAMINFO : begin + _STREAMINFO + 18]
    if data[begin : begin + 4] != MARKER or len(info) < 18 or data[begin + 4] & 0x7F:
        return False
    n_samples = int.from_bytes(info[13:18], "big") & (2**36 - 1)
    if n_samples == 0:  # unknown
        return False
    block_size = int.from_bytes(info[2:4], "big")
    lowest = max(len(data) - _LARGEST_FRAME, begin + _STREAMINFO)
    stop = len(data)
    while (offset := max(data.rfind(sync, lowest, stop) for sync in (b"\xff\xf8", b"\xff\xf9"))) != -1:
        if (end := _end_of_frame(data[offset : offset + 16], block_size)) is not None:
            return end > n_samples
        stop = offset + 1
    return False


def _end_of_frame(header: bytes, block_size: int) -> int | None:
    """Return one past the last sample of a frame; None if these bytes are not a frame's header.

    Args:
        header: At least as many bytes as the header has.
        block_size: Samples of the blocks before, if all are of the same size.
    """
    if len(header) < 6 or header[3] & 1 or header[3] >> 4 > _LAST_CHANNEL_CODE:
        return None
    has_sample_number, size_code, rate_code = header[1] & 1, header[2] >> 4, header[2] & 0xF
    n_bytes = max(8 - (header[4] ^ 0xFF).bit_length(), 1)  # of the number, which is coded like UTF-8
    n_size_bytes, n_rate_bytes = {6: 1, 7: 2}.get(size_code, 0), {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    after = 4 + n_bytes
    is_number = (header[4] < 0x80 or 2 <= n_bytes <= 7) and all(byte >> 6 == 0b10 for byte in header[5:after])
    length = after + n_size_bytes + n_rate_bytes
    if (
        not is_number
        or size_code == 0
        or rate_code == 15
        or len(header) <= length
        or _crc8(header[:length]) != header[length]
    ):
        return None
    number = header[4] & (0x7F if n_bytes == 1 else 0x7F >> n_bytes)
    for byte in header[5:after]:
        number = number << 6 | byte & 0x3F
    if n_size_bytes:
        size = int.from_bytes(header[after : after + n_size_bytes], "big") + 1
    else:
        size = 192 if size_code == 1 else 576 << (size_code - 2) if size_code < 6 else 256 << (size_code - 8)
    return (number if has_sample_number else number * block_size) + size


def _crc8(values: bytes) -> int:
    """Return the checksum with the polynomial x^8 + x^2 + x + 1."""
    remainder = 0
    for value in values:
        remainder ^= value
        for _ in range(8):
            remainder = (remainder << 1 ^ 0x107) if remainder & 0x80 else remainder << 1
    return remainder
