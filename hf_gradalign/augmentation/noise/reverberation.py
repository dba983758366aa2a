"""Reverberation with recorded impulse responses or simulated rooms (image sources, then a diffuse tail)."""

import os
import random
from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray
from scipy.signal import oaconvolve

from hf_gradalign.augmentation.base import SpeechTransform, check_number
from hf_gradalign.augmentation.noise.recordings import list_recordings, read_impulse_response

SPEED_OF_SOUND = 343.0  # m/s
# Floor sides of small and medium rooms, and heights, in m, as in RIRS_NOISES (Ko et al., ICASSP 2017).
FLOOR_RANGES = ((1.0, 10.0), (10.0, 30.0))
HEIGHT_RANGE = (2.0, 5.0)
ABSORPTION_RANGE = (0.2, 0.8)
_WALL_DISTANCE = 0.2  # m, the smallest distance of talker and microphone from a wall
# Responses are cut off at this decay.
_DECAY_DB = 60.0
# Image sources are used up to this multiple of Polack's mixing time, which in ms is the square root of the volume in
# m^3.
_MIXING_TIMES = 3.0


class Reverberation(SpeechTransform):
    """Convolves the clip with a recorded impulse response, or with the response of a simulated room.

    The position of the direct sound, the length and the root mean square stay the same. (audiomentations'
    `ApplyImpulseResponse` adds the response's delay and scales every clip to a peak of 0.5, which would change the
    distortion of a RawBoost after it. Its `RoomSimulator` needs pyroomacoustics and takes 70 ms per clip.)

    `randomize_parameters` draws from Python's global `random`. `parameters` can be written as JSON.
    """

    def __init__(
        self, ir_path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None, p: float = 1.0
    ) -> None:
        """Check and store the ranges to draw from.

        Args:
            ir_path: One or more impulse responses, or folders of them. The draws depend on their order. All responses
                are equally likely. Only the first channel is used. None simulates rooms.
            p: Probability of applying the transform, 0 to 1.

        Raises:
            ValueError: If `p` is outside its range or there are no impulse responses.
        """
        super().__init__(check_number("p", p, 0, 1))
        self.ir_path = [] if ir_path is None else list_recordings(ir_path, "ir_path")
        if ir_path is not None and not self.ir_path:
            raise ValueError("ir_path has no impulse responses; leave it out to simulate rooms")

    def randomize_parameters(self, samples: NDArray[np.floating], sample_rate: int) -> None:
        """Draw whether to apply the transform, and the room, into `self.parameters`."""
        super().randomize_parameters(samples, sample_rate)
        if self.parameters["should_apply"]:
            self.parameters |= {"file": random.choice(self.ir_path)} if self.ir_path else {"room": draw_room()}

    def _transform(self, samples: NDArray[np.floating], sample_rate: int) -> NDArray[np.floating]:
        if "room" in self.parameters:
            response, direct = room_impulse_response(self.parameters["room"], sample_rate), 0
        else:
            response = read_impulse_response(self.parameters["file"], sample_rate).astype(np.float64)
            direct = int(np.argmax(np.abs(response)))
        channels = np.atleast_2d(samples.astype(np.float64))
        wet = oaconvolve(channels, response[None], axes=-1)[:, direct : direct + samples.shape[-1]]
        rms, wet_rms = (np.sqrt(np.mean(np.square(x), axis=-1, keepdims=True)) for x in (channels, wet))
        gains = np.divide(rms, wet_rms, out=np.ones_like(rms), where=wet_rms > 0)
        return (wet * gains).reshape(samples.shape)


class Room(TypedDict):
    """The random parameters of a room.

    Attributes:
        size: Length, width and height in m.
        absorption: Share of the energy that the surfaces absorb, above 0 and below 1.
        source: Position of the talker in m.
        microphone: Position of the microphone in m.
        seed: Seed of the diffuse tail.
    """

    size: list[float]
    absorption: float
    source: list[float]
    microphone: list[float]
    seed: int


def draw_room() -> Room:
    """Draw a small or medium room (equally likely), and uniform positions of talker and microphone.

    Draws from Python's global `random`.
    """
    floor = random.choice(FLOOR_RANGES)
    size = [random.uniform(*floor), random.uniform(*floor), random.uniform(*HEIGHT_RANGE)]
    positions = [[random.uniform(_WALL_DISTANCE, side - _WALL_DISTANCE) for side in size] for _ in range(2)]
    return {
        "size": size,
        "absorption": random.uniform(*ABSORPTION_RANGE),
        "source": positions[0],
        "microphone": positions[1],
        "seed": random.getrandbits(53),
    }


def reverberation_time(room: Room) -> float:
    """Return the time in seconds in which the sound decays by 60 dB, by Eyring's formula (1930)."""
    length, width, height = room["size"]
    surface = 2 * (length * width + length * height + width * height)
    return -24 * np.log(10) / SPEED_OF_SOUND * length * width * height / (surface * np.log1p(-room["absorption"]))


def room_impulse_response(room: Room, sample_rate: int) -> NDArray[np.float64]:
    """Simulate a room's impulse response, starting at the direct sound.

    Early reflections come from image sources (Allen and Berkley, "Image method for efficiently simulating small-room
    acoustics", JASA 1979), each at the nearest sample. All surfaces have the reflection coefficient
    sqrt(1 - absorption). After three mixing times (Polack 1988) reflections are dense, and Gaussian noise of the same
    energy replaces them: 4 pi c^3 t^2 / V image sources per second, each of energy 1 / (4 pi c t)^2, decaying by 60 dB
    in the reverberation time.

    Args:
        room: The room.
        sample_rate: In Hz.

    Returns:
        Shape (samples,), up to a decay of 60 dB. The first sample holds the direct sound, scaled to 1.
    """
    size, source, microphone = (np.array(room[key]) for key in ("size", "source", "microphone"))
    volume, decay_time = size.prod(), reverberation_time(room)
    mixing_time = _MIXING_TIMES * np.sqrt(volume) / 1000
    direct = max(float(np.linalg.norm(source - microphone)), 0.05)
    start = direct / SPEED_OF_SOUND
    end = start + decay_time * _DECAY_DB / 60
    distances, reflections = _image_sources(
        size, source, microphone, SPEED_OF_SOUND * min(max(mixing_time, start), end)
    )
    distances = np.maximum(distances, direct)
    strengths = (1 - room["absorption"]) ** (reflections / 2) / (4 * np.pi * distances)

    times = np.arange(max(int((end - start) * sample_rate), 1)) / sample_rate + start
    density = SPEED_OF_SOUND / (4 * np.pi * volume * sample_rate) * np.exp(-6 * np.log(10) / decay_time * times)
    tail = np.random.default_rng(room["seed"]).standard_normal(len(times)) * np.sqrt(density)
    response = np.where(times > mixing_time, tail, 0.0)
    indices = np.rint((distances / SPEED_OF_SOUND - start) * sample_rate).astype(np.int64)
    inside = indices < len(response)
    response += np.bincount(indices[inside], strengths[inside], minlength=len(response))
    return response * (4 * np.pi * direct)


def _image_sources(
    size: NDArray[np.float64], source: NDArray[np.float64], microphone: NDArray[np.float64], reach: float
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the distances in m of the image sources, up to `reach`, and the number of reflections of each."""
    offsets, counts = [], []
    for side, own, other in zip(size, source, microphone, strict=True):
        order = int(reach / (2 * side)) + 1
        cells = np.arange(-order, order + 1)
        # After an even number of reflections the source is at 2 n L + x, after an odd number at 2 n L - x.
        offsets.append(np.concatenate([2 * cells * side + own, 2 * cells * side - own]) - other)
        counts.append(np.concatenate([np.abs(2 * cells), np.abs(2 * cells - 1)]))
    x, y, z = offsets
    squares = (x**2)[:, None, None] + (y**2)[None, :, None] + (z**2)[None, None, :]
    near = squares <= reach**2
    reflections = counts[0][:, None, None] + counts[1][None, :, None] + counts[2][None, None, :]
    return np.sqrt(squares[near]), reflections[near]
