"""Reads a recording with FFmpeg's libraries, which come with PyAV's wheels, from its first packet to its last."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from hf_gradalign.audio.containers import check_structure, lost_fragments
from hf_gradalign.audio.riff import Data
from hf_gradalign.audio.sound import AudioDecodingError, Block, check_rate

# Tolerated share of a lossy stream's packets that cannot be decoded, or are missing from the decoded sound.
BAD_PACKETS = 0.03
# Decoders leave out this many frames at start and end: their delay, and an encoder's padding.
_FEW_FRAMES = 4
_MIN_HOLE = 256  # bytes; headers between packets are shorter
_MIN_REST = 512  # bytes; an index and tags are shorter
# Formats of audio and video files. Without this list, a text file could be read as a playlist, which makes FFmpeg open
# other addresses.
_FORMATS = (
    "3g2,3gp,aa,aac,aax,ac3,ac4,acm,act,aea,aiff,alp,amr,amrnb,amrwb,apac,ape,asf,asf_o,au,avi,bonk,caf,codec2,dff,dsf,"
    "dss,dts,dtshd,eac3,flac,flv,g729,iamf,ircam,laf,loas,m4a,matroska,mj2,mlp,mmf,mov,mp3,mp4,mpc,mpc8,mpeg,mpegts,"
    "nistsphere,nut,ogg,oma,osq,paf,pvf,qcp,rm,sds,shn,smjpeg,sox,svx,tak,truehd,tta,voc,vqf,w64,wav,webm,wv,xa,xwma"
)
# Formats whose header gives the length. For others FFmpeg guesses it from the bit rate.
_WITH_LENGTH = ("3gp", "ape", "asf", "avi", "caf", "flac", "flv", "matroska", "mov", "tta", "wv")
# A lossy stream may be shorter than its header says by this share, unless bytes are left undecoded: browsers take the
# length from the clock.
LOSSY_TOLERANCE = 0.1
# FFmpeg detects these formats by bytes that look like frames, which also occur in noise.
WITHOUT_CONTAINER = {"mp3", "aac", "ac3", "eac3", "ac4", "dts", "loas", "mlp", "truehd"}
_MIN_SHARE = 0.8
# In these formats every byte except tags belongs to a frame, so nearly all bytes must decode.
_FRAMES_ONLY, _FRAMES_SHARE, _TAG_BYTES = ("aac", "loas"), 0.97, 1024
# FFmpeg ignores wrong checksums in these unless told otherwise.
_WITH_CHECKSUMS = ("ape", "flac", "tak", "tta", "wavpack")
# In these, only an index and tags follow the last packet.
_WITHOUT_PADDING = ("matroska", "flv")
# PyAV 18.1 reads one plane too many from planar sound with this many channels, which can crash.
_MOST_PLANES = 8
_SCALES = {"u1": 2**7, "i2": 2**15, "i4": 2**31, "i8": 2**63}
_ROUNDING = 0.05  # seconds


class PacketTimeline:
    """Follows a stream's packets in order, and the sound decoded from them, to find what is missing.

    Args:
        tick: Unit of the packets' times, in seconds.
    """

    def __init__(self, tick: float) -> None:
        self._tick = tick
        self._begin = self._end = self._stop = self._n_bytes = 0
        self._is_first = True
        self._durations: Counter[int] = Counter()
        self._decoded: Counter[tuple[int, int]] = Counter()
        self._gaps: list[tuple[float, int]] = []

    def add_packet(self, packet: Any) -> None:
        """Add the next packet."""
        begin, size = packet.pts, packet.size
        if not size or begin is None:
            return
        duration, offset = packet.duration or 0, packet.pos or 0
        if self._is_first:
            self._begin, self._is_first = begin, False
        elif (gap := (begin - self._end) * self._tick) > _ROUNDING:
            self._gaps.append((gap, offset - self._stop))
        self._end = max(self._end, begin + duration)
        self._stop = offset + size
        self._n_bytes += size
        if not packet.is_discard:
            self._durations[duration] += 1

    def add_decoded(self, n_samples: int, rate: int) -> None:
        """Add the length of what a packet decoded to."""
        self._decoded[n_samples, rate] += 1

    @property
    def seconds(self) -> float:
        """Duration of the decoded sound in seconds."""
        return sum(n_samples / rate * n for (n_samples, rate), n in self._decoded.items())

    @property
    def end(self) -> float:
        """When the last packet ends, in seconds. Not every format gives a packet's duration."""
        return max(self._end * self._tick, self._begin * self._tick + self.seconds)

    def has_undecoded_end(self, end: float, n_bytes: int) -> bool:
        """Return whether enough bytes follow the last packet to contain the sound that is missing until `end`.

        Args:
            end: When the stream ends by its header, in seconds.
            n_bytes: Size of the file.
        """
        after = n_bytes - self._stop
        return after > max(_MIN_REST, self._n_bytes / max(self.end, 1e-3) * (end - self.end) / 2)

    def check(self, container: Any, data: Data) -> None:
        """Compare the decoded sound with the packets' durations, after all packets were decoded.

        Args:
            container: The packets' container.
            data: The file's bytes.

        Raises:
            AudioDecodingError: If packets are missing in the middle, or decode to less sound than they claim.
        """
        if not self._decoded or not self._durations:
            return
        claimed, decoded = sum(n * duration for duration, n in self._durations.items()) * self._tick, self.seconds
        if decoded < claimed / 2 - _ROUNDING:
            raise AudioDecodingError(f"it is corrupt: packets of {claimed:.2f} s decode to only {decoded:.2f} s")
        [(duration, n_packets)], [((n_samples, rate), _)] = self._durations.most_common(1), self._decoded.most_common(1)
        usual = n_samples / rate
        if abs(duration * self._tick - usual) < 0.05 * usual:  # otherwise the packets' durations are rounded or guessed
            missing = n_packets * usual - decoded
            if missing > max(BAD_PACKETS * n_packets, _FEW_FRAMES) * usual:
                raise AudioDecodingError(f"it is corrupt: {missing:.2f} of {n_packets * usual:.2f} s cannot be decoded")
        if self._gaps and container.format.name.startswith("mov") and lost_fragments(data):
            gap = sum(seconds for seconds, _ in self._gaps)
            raise AudioDecodingError(f"it is corrupt: fragments are missing in the middle, {gap:.2f} s")
        # A pause has no bytes. (In a film, pictures may lie between packets of sound.)
        for seconds, n_bytes in self._gaps if len(container.streams) == 1 else ():
            if n_bytes > max(_MIN_HOLE, self._n_bytes / claimed * seconds / 4 if claimed else 0):
                raise AudioDecodingError(
                    f"it is corrupt: {n_bytes} bytes in the middle, at a gap of {seconds:.2f} s, are not sound"
                )


class UnknownFormatError(AudioDecodingError):
    """FFmpeg does not know the format."""


def blocks_by_ffmpeg(data: Data, format_name: str | None = None) -> Iterator[Block]:
    """Decode all of a recording, in blocks of up to a few seconds.

    Args:
        data: The file's bytes.
        format_name: FFmpeg's name of the format; detected from the bytes by default.

    Yields:
        At least one block. `begins` is set where the sampling rate changes.

    Raises:
        UnknownFormatError: If FFmpeg cannot read it.
        AudioDecodingError: If it has no sound, or is corrupt or truncated. This may appear only at the end.
    """
    import av  # here, because it takes tens of milliseconds, and few files need it

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
            timeline = PacketTimeline(float(stream.time_base))
            for packet in container.demux(stream):
                # (Uncompressed sound is read in blocks, and the last block need not be full.)
                if packet.is_corrupt and not stream.codec_context.name.startswith("pcm_"):
                    raise AudioDecodingError("it is truncated: it ends within a packet")
                n_packets += 1
                n_bytes += packet.size
                timeline.add_packet(packet)
                first = packet.pos if first is None else first
                try:
                    for frame in packet.decode():
                        check_rate(frame.sample_rate)
                        is_new = frame.sample_rate != rate
                        rate = frame.sample_rate
                        timeline.add_decoded(frame.samples, rate)
                        yield Block(_mix_to_mono(frame), rate, codec.name.startswith("pcm_f"), is_new)
                    is_bad = False
                except av.error.InvalidDataError:
                    n_bad, is_bad = n_bad + 1, bool(packet.size)
                ends_badly = is_bad if packet.size else ends_badly
            if ends_badly and container_format == "amr":
                raise AudioDecodingError("it is truncated: it ends within a packet")
            timeline.check(container, data)
            if container_format.split(",")[0] in _WITH_LENGTH:
                _refuse_truncated(container, stream, timeline, lossless, len(data))
            elif container_format in WITHOUT_CONTAINER:
                _refuse_noise(n_bytes, len(data) - (first or 0), container_format)
    except av.error.FFmpegError as error:
        raise UnknownFormatError(f"FFmpeg: {error.strerror or error}") from error
    except IndexError as error:  # from PyAV, for a stream that first appears in the middle of a corrupt file
        raise AudioDecodingError("it is corrupt (FFmpeg finds streams that its header does not name)") from error
    if rate is None and container_format in WITHOUT_CONTAINER:
        raise UnknownFormatError("FFmpeg: no frame can be decoded")
    if rate is None and not n_bad:
        raise AudioDecodingError("it is empty (no samples)")
    if n_bad > (0 if lossless else BAD_PACKETS * n_packets):
        raise AudioDecodingError(f"it is corrupt: {n_bad} of {n_packets} packets cannot be decoded")


def count_samples(data: Data, format_name: str) -> tuple[int, int]:
    """Count the samples in a stream's packets without decoding them.

    Args:
        data: The file's bytes.
        format_name: FFmpeg's name of the format.

    Returns:
        Samples per channel, including those that decoders leave out at start and end, and the offset of the first
        packet in bytes.

    Raises:
        AudioDecodingError: If FFmpeg cannot read it.
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


def format_of(data: Data) -> str | None:
    """Return FFmpeg's name of a recording's format, by its content alone; None if FFmpeg does not know it."""
    import av

    try:
        with _open(data) as container:
            return container.format.name
    except av.error.FFmpegError:
        return None


def _open(data: Data, format_name: str | None = None) -> Any:
    import av

    # A file object has no name, so FFmpeg cannot choose the format by an extension or an address.
    file = io.BytesIO(data) if isinstance(data, bytes) else _Reader(data)
    options = {"format_whitelist": _FORMATS, "protocol_whitelist": ""}
    # Titles in other encodings must not matter. From PyAV 19 on, they are decoded only when they are asked for.
    titles: dict[str, Any] = {"metadata_errors": "ignore"} if int(av.__version__.partition(".")[0]) < 19 else {}
    return av.open(file, format=format_name, options=options, **titles)


class _Reader(io.BufferedIOBase):
    """A file object over a memory-mapped file, with its own position."""

    def __init__(self, data: Data) -> None:
        self._data = data
        self._offset = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> bytes:
        stop = len(self._data) if size is None or size < 0 else self._offset + size
        piece = self._data[self._offset : stop]
        self._offset += len(piece)
        return piece

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._offset = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._offset, io.SEEK_END: len(self._data)}[whence]
        return self._offset

    def tell(self) -> int:
        return self._offset


def _mix_to_mono(frame: Any) -> np.ndarray:
    if frame.format.is_planar and frame.layout.nb_channels >= _MOST_PLANES:
        frame = _pack_frame(frame)
    values = frame.to_ndarray()
    if not frame.format.is_planar:
        values = values.reshape(-1, frame.layout.nb_channels).T
    if values.dtype.kind != "f":
        offset = 128 if values.dtype.kind == "u" else 0
        values = (values.astype(np.float64) - offset) / _SCALES[values.dtype.str[1:]]
    return values.astype(np.float32).mean(axis=0)


def _pack_frame(frame: Any) -> Any:
    import av

    resampler = av.AudioResampler(frame.format.packed.name, frame.layout, frame.sample_rate)
    [packed] = [*resampler.resample(frame), *resampler.resample(None)]
    return packed


def _refuse_truncated(container: Any, stream: Any, timeline: PacketTimeline, lossless: bool, n_bytes: int) -> None:
    """Refuse a recording whose sound ends earlier than its header says."""
    if stream.duration:
        claimed = float(stream.duration * stream.time_base)
    elif match := re.fullmatch(r"(\d+):(\d+):(\d+\.?\d*)", stream.metadata.get("DURATION", "")):
        claimed = 3600 * int(match[1]) + 60 * int(match[2]) + float(match[3])
    elif container.duration and not container.streams.video:  # a film may be longer than its sound
        claimed = container.duration / 1e6
    else:
        return
    end = timeline.end
    is_cut = container.format.name.startswith(_WITHOUT_PADDING) and timeline.has_undecoded_end(claimed, n_bytes)
    tolerance = 0.0 if lossless or is_cut else LOSSY_TOLERANCE
    if end < (1 - tolerance) * claimed - _ROUNDING:
        raise AudioDecodingError(f"it is truncated: it has {end:.2f} of {claimed:.2f} s")


def _refuse_noise(n_bytes: int, n_total: int, format_name: str) -> None:
    least = _MIN_SHARE * n_total
    if format_name in _FRAMES_ONLY:
        least = max(least, _FRAMES_SHARE * n_total - _TAG_BYTES)
    if n_bytes < least:
        raise AudioDecodingError(f"only {n_bytes} of {n_total} bytes look like sound")
