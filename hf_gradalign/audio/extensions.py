"""Notices when a file's extension, by which libsndfile decodes a few formats, does not match its content."""

from __future__ import annotations

import soundfile

from hf_gradalign.audio.ffmpeg import WITHOUT_CONTAINER, format_of
from hf_gradalign.audio.riff import Data

_PEEKED = 512
_TEXT = frozenset(range(0x20, 0x7F)) | frozenset(b"\t\r\n")


def misleading_extension(file: soundfile.SoundFile, data: Data) -> str | None:
    """Return why a file that libsndfile opened does not match its extension; None if it seems to match.

    libsndfile reads any content as MPEG audio if the extension is `.mp3`, and as headerless sound if it is `.au`,
    `.snd`, `.gsm` or `.vox`. So a video that was renamed to `.mp3` becomes a moment of noise, without an error.

    Args:
        file: The file that libsndfile opened by its path.
        data: Its bytes.
    """
    if file.format == "MP3" and file.frames == 0:
        return "no MPEG frames"
    if file.format == "MP3":
        content = None if _begins_like_mp3(data) else format_of(data)
        return None if content in (None, "mp3") else f"its content is {content}, not MP3"
    if file.format != "RAW":
        return None
    if _TEXT.issuperset(data[:_PEEKED]):
        return "its content is text"
    content = format_of(data)
    # Headerless sound may look like frames of a format without a container.
    return None if content is None or content in WITHOUT_CONTAINER else f"its content is {content}"


def _begins_like_mp3(data: Data) -> bool:
    """Return whether a file begins with a tag or a frame of MPEG audio. Frames of AAC differ in the layer's bits."""
    return data[:3] == b"ID3" or (data[0] == 0xFF and data[1:2] >= b"\xe0" and data[1] & 0x06 != 0)
