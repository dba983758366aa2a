"""Impulse responses of simulated rooms: early reflections from image sources, and a diffuse tail."""

import random
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

SPEED_OF_SOUND = 343.0  # m/s
# Lengths and widths of small and medium rooms, and all heights, in m; Ko et al., ICASSP 2017, as in RIRS_NOISES.
FLOOR_RANGES = ((1.0, 10.0), (10.0, 30.0))
HEIGHT_RANGE = (2.0, 5.0)
ABSORPTION_RANGE = (0.2, 0.8)
_WALL_DISTANCE = 0.2  # m; nobody speaks out of a wall
# A response is followed until it has fallen by so much.
_DECAY_DB = 60.0
# Reflections are followed one by one for so many times Polack's mixing time, which is the root of the volume in ms.
_MIXING_TIMES = 3.0


class Room(TypedDict):
    """What is drawn for a room.

    Attributes:
        size: Length, width and height in m.
        absorption: Share of the energy that its surfaces absorb, above 0 and below 1.
        source: Where the talker is, in m.
        microphone: Where the microphone is, in m.
        seed: Fixes the diffuse tail.
    """

    size: list[float]
    absorption: float
    source: list[float]
    microphone: list[float]
    seed: int


def draw_room() -> Room:
    """Draw a small or a medium room, each equally likely, and where talker and microphone are, all uniformly.

    Draws from Python's global `random`.
    """
    floor = random.choice(FLOOR_RANGES)
    size = [random.uniform(*floor), random.uniform(*floor), random.uniform(*HEIGHT_RANGE)]
    places = [[random.uniform(_WALL_DISTANCE, side - _WALL_DISTANCE) for side in size] for _ in range(2)]
    return {
        "size": size,
        "absorption": random.uniform(*ABSORPTION_RANGE),
        "source": places[0],
        "microphone": places[1],
        "seed": random.getrandbits(53),
    }


def reverberation_time(room: Room) -> float:
    """How long the sound in a room takes to fall by 60 dB, in seconds, by Eyring's formula (1930)."""
    length, width, height = room["size"]
    surface = 2 * (length * width + length * height + width * height)
    return -24 * np.log(10) / SPEED_OF_SOUND * length * width * height / (surface * np.log1p(-room["absorption"]))


def room_impulse_response(room: Room, sample_rate: int) -> NDArray[np.float64]:
    """Simulate a room's impulse response, from the arrival of the direct sound on.

    Early reflections come from image sources (Allen and Berkley, "Image method for efficiently simulating small-room
    acoustics", JASA 1979), each at the nearest sample, with the same reflection coefficient sqrt(1 - absorption) on all
    surfaces. After three mixing times (Polack 1988) they lie so close together that Gaussian noise takes their place,
    the energy of which is that of the image sources: these are 4 pi c^3 t^2 / V a second, each 1 / (4 pi c t)^2 strong,
    and reflections make it fall by 60 dB in the reverberation time.

    Args:
        room: The room.
        sample_rate: In Hz.

    Returns:
        Shape (samples,), until it has fallen by 60 dB; the direct sound, at the first sample, is 1.
    """
    size, source, microphone = (np.array(room[key]) for key in ("size", "source", "microphone"))
    volume, decay_time = size.prod(), reverberation_time(room)
    mixing_time = _MIXING_TIMES * np.sqrt(volume) / 1000
    direct = max(float(np.linalg.norm(source - microphone)), 0.05)
    start = direct / SPEED_OF_SOUND
    end = start + decay_time * _DECAY_DB / 60
    distances, reflections = _images(size, source, microphone, SPEED_OF_SOUND * min(max(mixing_time, start), end))
    distances = np.maximum(distances, direct)
    strengths = (1 - room["absorption"]) ** (reflections / 2) / (4 * np.pi * distances)

    times = np.arange(max(int((end - start) * sample_rate), 1)) / sample_rate + start
    density = SPEED_OF_SOUND / (4 * np.pi * volume * sample_rate) * np.exp(-6 * np.log(10) / decay_time * times)
    tail = np.random.default_rng(room["seed"]).standard_normal(len(times)) * np.sqrt(density)
    response = np.where(times > mixing_time, tail, 0.0)
    places = np.rint((distances / SPEED_OF_SOUND - start) * sample_rate).astype(np.int64)
    inside = places < len(response)
    response += np.bincount(places[inside], strengths[inside], minlength=len(response))
    return response * (4 * np.pi * direct)


def _images(
    size: NDArray[np.float64], source: NDArray[np.float64], microphone: NDArray[np.float64], reach: float
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Distances in m, up to `reach`, of the sources that the walls mirror, and how often each was reflected."""
    offsets, counts = [], []
    for side, own, other in zip(size, source, microphone, strict=True):
        order = int(reach / (2 * side)) + 1
        cells = np.arange(-order, order + 1)
        # Mirrored an even number of times the source is at 2 n L + x, an odd number of times at 2 n L - x.
        offsets.append(np.concatenate([2 * cells * side + own, 2 * cells * side - own]) - other)
        counts.append(np.concatenate([np.abs(2 * cells), np.abs(2 * cells - 1)]))
    x, y, z = offsets
    squares = (x**2)[:, None, None] + (y**2)[None, :, None] + (z**2)[None, None, :]
    near = squares <= reach**2
    reflections = counts[0][:, None, None] + counts[1][None, :, None] + counts[2][None, None, :]
    return np.sqrt(squares[near]), reflections[near]
