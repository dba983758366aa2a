"""Whether a stream's packets follow on one another, and give as much sound as they say."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hf_gradalign.audio.containers import lost_fragments
from hf_gradalign.audio.errors import AudioDecodingError
from hf_gradalign.audio.riff import Data

# So large a share of a lossy stream's packets may be undecodable, or missing from what is heard.
BAD_PACKETS = 0.03
# Decoders leave out so many frames at start and end: their delay, and an encoder's padding.
_FEW_FRAMES = 4
_ROUNDING = 0.05  # seconds
_LEAST_HOLE = 256  # bytes; headers between packets are shorter
_LEAST_REST = 512  # bytes; an index and tags are shorter


class Course:
    """The packets of a stream, in their order, and how much is heard of them.

    Args:
        tick: of the packets' times, in seconds.
    """

    def __init__(self, tick: float) -> None:
        self._tick = tick
        self._begin = self._end = self._stop = self._n_bytes = 0
        self._is_first = True
        self._durations: Counter[int] = Counter()
        self._heard: Counter[tuple[int, int]] = Counter()
        self._gaps: list[tuple[float, int]] = []

    def follow(self, packet: Any) -> None:
        """Take in the next packet."""
        begin, size = packet.pts, packet.size
        if not size or begin is None:
            return
        duration, place = packet.duration or 0, packet.pos or 0
        if self._is_first:
            self._begin, self._is_first = begin, False
        elif (gap := (begin - self._end) * self._tick) > _ROUNDING:
            self._gaps.append((gap, place - self._stop))
        self._end = max(self._end, begin + duration)
        self._stop = place + size
        self._n_bytes += size
        if not packet.is_discard:
            self._durations[duration] += 1

    def hear(self, n_samples: int, rate: int) -> None:
        """Take in what a packet gave."""
        self._heard[n_samples, rate] += 1

    @property
    def seconds(self) -> float:
        """How much is heard."""
        return sum(n_samples / rate * n for (n_samples, rate), n in self._heard.items())

    @property
    def end(self) -> float:
        """When the last packet ends, in seconds; not every format says how long it lasts."""
        return max(self._end * self._tick, self._begin * self._tick + self.seconds)

    def has_hole(self, end: float, n_bytes: int) -> bool:
        """Whether there are bytes behind the last packet for what is missing until `end`, in seconds.

        Args:
            end: when the stream ends, by its header.
            n_bytes: of the file.
        """
        behind = n_bytes - self._stop
        return behind > max(_LEAST_REST, self._n_bytes / max(self.end, 1e-3) * (end - self.end) / 2)

    def check(self, container: Any, data: Data) -> None:
        """Compare what is heard with what the packets say, once all were decoded.

        Args:
            container: that they are from.
            data: the file's bytes.

        Raises:
            AudioDecodingError: if packets are missing in the middle, or give less sound than they say.
        """
        if not self._heard or not self._durations:
            return
        said, heard = sum(n * duration for duration, n in self._durations.items()) * self._tick, self.seconds
        if heard < said / 2 - _ROUNDING:
            raise AudioDecodingError(f"it is corrupt: {heard:.2f} s are heard of packets that last {said:.2f} s")
        [(duration, n_packets)], [((n_samples, rate), _)] = self._durations.most_common(1), self._heard.most_common(1)
        usual = n_samples / rate
        if abs(duration * self._tick - usual) < 0.05 * usual:  # else the packets' durations are rounded, or guessed
            missing = n_packets * usual - heard
            if missing > max(BAD_PACKETS * n_packets, _FEW_FRAMES) * usual:
                raise AudioDecodingError(f"it is corrupt: {missing:.2f} of {n_packets * usual:.2f} s cannot be heard")
        if self._gaps and container.format.name.startswith("mov") and lost_fragments(data):
            gap = sum(seconds for seconds, _ in self._gaps)
            raise AudioDecodingError(f"it is corrupt: fragments are missing in the middle, {gap:.2f} s")
        # A pause has no bytes. (Of a film, the picture may lie between.)
        for seconds, n_bytes in self._gaps if len(container.streams) == 1 else ():
            if n_bytes > max(_LEAST_HOLE, self._n_bytes / said * seconds / 4 if said else 0):
                raise AudioDecodingError(
                    f"it is corrupt: {n_bytes} bytes in the middle, of {seconds:.2f} s, are no sound"
                )
