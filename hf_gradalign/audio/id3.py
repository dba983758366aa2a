"""Tags in front of MP3 and FLAC files."""

from __future__ import annotations

from hf_gradalign.audio.riff import Data


def end_of_id3v2(data: Data) -> int:
    """Where an ID3v2 tag ends; 0 where there is none."""
    head = data[:10]
    if len(head) < 10 or not head.startswith(b"ID3"):
        return 0
    size = sum(byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
    return 10 + size + (10 if head[5] & 0x10 else 0)
