import random

import numpy as np
import pytest
from scipy import signal

from hf_gradalign.augmentation import simulated_room
from hf_gradalign.augmentation.simulated_room import draw_room, reverberation_time, room_impulse_response

RATE = 16_000
# Of no round numbers, by which many reflections would arrive at once.
ROOM = {
    "size": [6.17, 5.31, 3.07],
    "absorption": 0.3,
    "source": [2.1, 2.2, 1.5],
    "microphone": [4.13, 3.21, 1.27],
    "seed": 5,
}


def decay_of(response, rate, low=-5, high=-25):
    """The reverberation time by Schroeder's backward integration, from the decay between two levels in dB."""
    energy = np.cumsum(response[::-1] ** 2)[::-1]
    level = 10 * np.log10(energy / energy[0])
    times = np.arange(len(level)) / rate
    inside = (level < low) & (level > high)
    slope, _ = np.polyfit(times[inside], level[inside], 1)
    return -60 / slope


def test_eyrings_formula():
    room = ROOM | {"size": [6.0, 5.0, 3.0]}  # 90 m3, 126 m2; Sabine's constant is 0.161
    assert reverberation_time(room) == pytest.approx(0.161 * 90 / (126 * -np.log(0.7)), rel=1e-3)


def test_direct_sound_and_first_reflections_are_where_geometry_says():
    response = room_impulse_response(ROOM, RATE)
    source, microphone, size = (np.array(ROOM[key]) for key in ("source", "microphone", "size"))
    direct = np.linalg.norm(source - microphone)
    assert response[0] == pytest.approx(1)
    expected = {}
    for axis in range(3):
        for wall in (0, size[axis]):
            image = source.copy()
            image[axis] = 2 * wall - source[axis]
            distance = np.linalg.norm(image - microphone)
            place = round((distance - direct) / 343 * RATE)
            expected[place] = expected.get(place, 0) + 0.7**0.5 * direct / distance
    for place, strength in expected.items():
        assert response[place] >= strength - 1e-9
    # Nothing but these arrives before the first that was reflected twice.
    early = np.zeros(min(expected) + 1)
    early[[0, -1]] = 1, expected[min(expected)]
    np.testing.assert_allclose(response[: len(early)], early, atol=1e-9)


@pytest.mark.parametrize(
    ("size", "absorption"),
    # In large rooms of much absorption the sound is not diffuse, as the formula supposes.
    [(ROOM["size"], 0.2), (ROOM["size"], 0.4), (ROOM["size"], 0.6), ([20.3, 15.1, 4.3], 0.2)],
)
def test_decays_in_the_reverberation_time(size, absorption):
    room = ROOM | {"size": size, "absorption": absorption}
    measured = np.median([decay_of(room_impulse_response(room | {"seed": seed}, RATE), RATE) for seed in range(5)])
    assert measured == pytest.approx(reverberation_time(room), rel=0.25)


def test_the_tail_goes_on_where_the_image_sources_end(monkeypatch):
    """Followed one by one for longer, the reflections have the energy that the noise has in their place.

    But at low frequencies, where reflections of one sign add up (as Allen and Berkley say: they take them out).
    """
    high_pass = signal.butter(4, 500, "highpass", fs=RATE, output="sos")
    energies = []
    for mixing_times in (3.0, 9.0):
        monkeypatch.setattr(simulated_room, "_MIXING_TIMES", mixing_times)
        responses = [room_impulse_response(ROOM | {"seed": seed}, RATE) for seed in range(10)]
        start, end = int(0.030 * RATE), int(0.080 * RATE)  # the noise begins at 23 ms, or at 83
        energies.append(np.mean([np.sum(signal.sosfilt(high_pass, r)[start:end] ** 2) for r in responses]))
    assert energies[0] == pytest.approx(energies[1], rel=0.3)


def test_drawn_rooms_are_possible_and_all_give_a_response():
    random.seed(0)
    lengths, floors = [], []
    for _ in range(150):
        room = draw_room()
        floors.append(room["size"][0])
        for key in ("source", "microphone"):
            assert all(0 < place < side for place, side in zip(room[key], room["size"], strict=True))
        response = room_impulse_response(room, RATE)
        assert np.isfinite(response).all()
        assert response[0] > 1 - 1e-9
        lengths.append(len(response) / RATE)
    assert 0.01 < min(lengths) < 0.1
    assert 0.5 < max(lengths) < 1.6
    assert 0.35 < np.mean(np.array(floors) < 10) < 0.65


def test_talker_and_microphone_in_one_place():
    response = room_impulse_response(ROOM | {"microphone": ROOM["source"]}, RATE)
    assert np.isfinite(response).all()
    assert np.argmax(response) == 0
