"""Read a recording by FFmpeg's libraries, which PyAV's wheels bring along, from its first packet to its last."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from hf_gradalign.audio.containers import check_structure
from hf_gradalign.audio.course import BAD_PACKETS, Course
from hf_gradalign.audio.errors import AudioDecodingError
from hf_gradalign.audio.resampling import check_rate
from hf_gradalign.audio.riff import Data
from hf_gradalign.audio.sound import Block

# Files of sound and of film. Without such a list a text could be a playlist, which has FFmpeg open other addresses.
_FORMATS = (
    "3g2,3gp,aa,aac,aax,ac3,ac4,acm,act,aea,aiff,alp,amr,amrnb,amrwb,apac,ape,asf,asf_o,au,avi,bonk,caf,codec2,dff,dsf,"
    "dss,dts,dtshd,eac3,flac,flv,g729,iamf,ircam,laf,loas,m4a,matroska,mj2,mlp,mmf,mov,mp3,mp4,mpc,mpc8,mpeg,mpegts,"
    "nistsphere,nut,ogg,oma,osq,paf,pvf,qcp,rm,sds,shn,smjpeg,sox,svx,tak,truehd,tta,voc,vqf,w64,wav,webm,wv,xa,xwma"
)
# Formats whose header says how long the recording is; for others FFmpeg guesses from the bit rate.
_SAY_THEIR_LENGTH = ("3gp", "ape", "asf", "avi", "caf", "flac", "flv", "matroska", "mov", "tta", "wv")
# A lossy stream that lacks no more than this share is taken for whole where no bytes speak against it: lengths are what
# an encoder noted down, browsers by the clock.
LOSSY_TOLERANCE = 0.1
_ROUNDING = 0.05  # seconds
# These are found by looking for what could be their frames, and in noise some bytes seem to be such.
_WITHOUT_CONTAINER = {"mp3", "aac", "ac3", "eac3", "ac4", "dts", "loas", "mlp", "truehd"}
_LEAST_SHARE = 0.8
# Of formats whose every byte is of a frame, tags apart, so many may be passed over.
_FRAMES_ONLY, _FRAMES_SHARE, _TAG_BYTES = ("aac", "loas"), 0.97, 1024
# FFmpeg passes over wrong checksums of these unless asked not to.
_WITH_CHECKSUMS = ("ape", "flac", "tak", "tta", "wavpack")
# Nothing but an index and tags follows the last packet of these.
_WITHOUT_PADDING = ("matroska", "flv")
# Of so many channels, each in a memory of its own, PyAV reads one more than there are, which can crash (18.1).
_MOST_PLANES = 8
_SCALES = {"u1": 2**7, "i2": 2**15, "i4": 2**31, "i8": 2**63}


class UnknownFormatError(AudioDecodingError):
    """FFmpeg does not know what it is."""


def blocks_by_ffmpeg(data: Data, format_name: str | None = None) -> Iterator[Block]:
    """Decode all of a recording, a part of a second to a few seconds at a time.

    Args:
        data: the file's bytes.
        format_name: FFmpeg's name of its format; found from the bytes where there is none.

    Yields:
        At least one block; a new stretch begins where the rate changes.

    Raises:
        UnknownFormatError: if FFmpeg cannot read it.
        AudioDecodingError: if it has no sound, or is corrupt or truncated; that may show at its end only.
    """
    import av  # tens of milliseconds, and few need it

    rate = None
    try:
        with _open(data, format_name) as container:
            if not container.streams.audio:
                raise AudioDecodingError("it has no sound (FFmpeg finds no audio stream)")
            stream = container.streams.audio[0]
            if stream.codec_context is None:
                raise UnknownFormatError("FFmpeg: no decoder for its codec")
            codec, container_format = stream.codec_context.codec, container.format.name
            check_structure(data, container_format)
            lossless = codec.lossless and not codec.lossy
            if codec.name in _WITH_CHECKSUMS:
                stream.codec_context.options = {"err_detect": "crccheck+explode"}
            n_packets = n_bad = n_bytes = 0
            first, ends_badly = None, False
            course = Course(float(stream.time_base))
            for packet in container.demux(stream):
                # (Sound without a codec is read in blocks, of which the last one need not be full.)
                if packet.is_corrupt and not stream.codec_context.name.startswith("pcm_"):
                    raise AudioDecodingError("it is truncated: it ends within a packet")
                n_packets += 1
                n_bytes += packet.size
                course.follow(packet)
                first = packet.pos if first is None else first
                try:
                    for frame in packet.decode():
                        check_rate(frame.sample_rate)
                        is_new = frame.sample_rate != rate
                        rate = frame.sample_rate
                        course.hear(frame.samples, rate)
                        yield Block(_mono(frame), rate, codec.name.startswith("pcm_f"), is_new)
                    is_bad = False
                except av.error.InvalidDataError:
                    n_bad, is_bad = n_bad + 1, bool(packet.size)
                ends_badly = is_bad if packet.size else ends_badly
            if ends_badly and container_format == "amr":
                raise AudioDecodingError("it is truncated: it ends within a packet")
            course.check(container, data)
            if container_format.split(",")[0] in _SAY_THEIR_LENGTH:
                _refuse_cut_off(container, stream, course, lossless, len(data))
            elif container_format in _WITHOUT_CONTAINER:
                _refuse_noise(n_bytes, len(data) - (first or 0), container_format)
    except av.error.FFmpegError as error:
        raise UnknownFormatError(f"FFmpeg: {error.strerror or error}") from error
    except IndexError as error:  # PyAV's answer to a stream that first shows up in the midst of a corrupt file
        raise AudioDecodingError("it is corrupt (FFmpeg finds streams that its header does not name)") from error
    if rate is None and container_format in _WITHOUT_CONTAINER:
        raise UnknownFormatError("FFmpeg: no frame can be decoded")
    if rate is None and not n_bad:
        raise AudioDecodingError("it is empty (no samples)")
    if n_bad > (0 if lossless else BAD_PACKETS * n_packets):
        raise AudioDecodingError(f"it is corrupt: {n_bad} of {n_packets} packets cannot be decoded")


def count_samples(data: Data, format_name: str) -> tuple[int, int]:
    """How many samples the packets of a stream have, without decoding them.

    Args:
        data: the file's bytes.
        format_name: FFmpeg's name of its format.

    Returns:
        Samples a channel, before what decoders leave out at start and end, and the place of the first packet.

    Raises:
        AudioDecodingError: if FFmpeg cannot read it.
    """
    import av

    total, first = 0, None
    try:
        with _open(data, format_name) as container:
            stream = container.streams.audio[0]
            for packet in container.demux(stream):
                first = packet.pos if first is None else first
                total += packet.duration or 0
            return round(total * stream.time_base * stream.codec_context.sample_rate), first or 0
    except (av.error.FFmpegError, IndexError) as error:
        raise AudioDecodingError(f"FFmpeg cannot read it ({error})") from error


def _open(data: Data, format_name: str | None = None) -> Any:
    import av

    # A file object without a name: neither its ending nor an address in it is looked at.
    file = io.BytesIO(data) if isinstance(data, bytes) else _Reader(data)
    options = {"format_whitelist": _FORMATS, "protocol_whitelist": ""}
    return av.open(file, format=format_name, options=options, metadata_errors="ignore")


class _Reader(io.BufferedIOBase):
    """A mapped file with a place of its own."""

    def __init__(self, data: Data) -> None:
        self._data = data
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> bytes:
        stop = len(self._data) if size is None or size < 0 else self._place + size
        piece = self._data[self._place : stop]
        self._place += len(piece)
        return piece

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: len(self._data)}[whence]
        return self._place

    def tell(self) -> int:
        return self._place


def _mono(frame: Any) -> np.ndarray:
    if frame.format.is_planar and frame.layout.nb_channels >= _MOST_PLANES:
        frame = _packed(frame)
    values = frame.to_ndarray()
    if not frame.format.is_planar:
        values = values.reshape(-1, frame.layout.nb_channels).T
    if values.dtype.kind != "f":
        offset = 128 if values.dtype.kind == "u" else 0
        values = (values.astype(np.float64) - offset) / _SCALES[values.dtype.str[1:]]
    return values.astype(np.float32).mean(axis=0)


def _packed(frame: Any) -> Any:
    import av

    resampler = av.AudioResampler(frame.format.packed.name, frame.layout, frame.sample_rate)
    [packed] = [*resampler.resample(frame), *resampler.resample(None)]
    return packed


def _refuse_cut_off(container: Any, stream: Any, course: Course, lossless: bool, n_bytes: int) -> None:
    """Compare when the sound ends, in seconds, with when the header says that the recording does."""
    if stream.duration:
        said = float(stream.duration * stream.time_base)
    elif match := re.fullmatch(r"(\d+):(\d+):(\d+\.?\d*)", stream.metadata.get("DURATION", "")):
        said = 3600 * int(match[1]) + 60 * int(match[2]) + float(match[3])
    elif container.duration and not container.streams.video:  # the film may be longer than its sound
        said = container.duration / 1e6
    else:
        return
    end = course.end
    has_hole = container.format.name.startswith(_WITHOUT_PADDING) and course.has_hole(said, n_bytes)
    tolerance = 0.0 if lossless or has_hole else LOSSY_TOLERANCE
    if end < (1 - tolerance) * said - _ROUNDING:
        raise AudioDecodingError(f"it is truncated: {end:.2f} of {said:.2f} s are there")


def _refuse_noise(n_bytes: int, n_there: int, format_name: str) -> None:
    least = _LEAST_SHARE * n_there
    if format_name in _FRAMES_ONLY:
        least = max(least, _FRAMES_SHARE * n_there - _TAG_BYTES)
    if n_bytes < least:
        raise AudioDecodingError(f"only {n_bytes} of {n_there} bytes look like sound")
