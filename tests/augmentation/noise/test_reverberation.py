import os
import random

import numpy as np
import pytest
import soundfile
from scipy import signal

from hf_gradalign.augmentation import Reverberation
from hf_gradalign.augmentation.noise import reverberation
from hf_gradalign.augmentation.noise.reverberation import draw_room, reverberation_time, room_impulse_response

RATE = 16_000


@pytest.fixture
def write_response(tmp_path):
    def write(response, rate=RATE):
        path = tmp_path / f"rir{len(list(tmp_path.iterdir()))}.wav"
        soundfile.write(path, np.asarray(response, np.float32), rate, subtype="FLOAT")
        return str(path)

    return write


def test_a_recorded_response_is_applied_in_time_and_at_the_same_level(speech, write_response):
    response = np.zeros(700)
    response[[40, 240]] = 0.8, 0.4  # 40 samples late, and an echo
    x = speech[0].astype(float)
    expected = x + 0.5 * np.concatenate([np.zeros(200), x[:-200]])
    expected *= np.sqrt(np.mean(x**2) / np.mean(expected**2))
    wet = Reverberation([write_response(response)])(speech[0], RATE)
    assert wet.dtype == np.float32
    np.testing.assert_allclose(wet, expected, atol=1e-6)


def test_first_channel_is_used_and_resampled(speech, write_response):
    response = np.zeros((300, 2))
    response[0, 0], response[::7, 1] = 1, 1
    np.testing.assert_allclose(Reverberation([write_response(response)])(speech[0], RATE), speech[0], atol=1e-6)
    smooth = np.exp(-(((np.arange(400) - 200) / 20) ** 2))
    by_rate = [
        Reverberation([write_response(smooth[:: 2 if rate == 8000 else 1], rate)])(speech[0], RATE)
        for rate in (RATE, 8000)
    ]
    np.testing.assert_allclose(by_rate[0], by_rate[1], atol=0.02 * np.abs(speech[0]).max())


def test_simulated_rooms_smear_in_time(speech):
    silent_end = np.concatenate([speech[0][:16_000], np.zeros(8000, np.float32)])
    random.seed(0)
    tails = []
    for _ in range(10):
        wet = Reverberation()(silent_end, RATE)
        assert np.sqrt(np.mean(wet**2)) == pytest.approx(np.sqrt(np.mean(silent_end**2)), rel=1e-4)
        tails.append(np.abs(wet[16_100:]).max())
    assert min(tails) > 0
    assert max(tails) > 1e-3


def test_every_recording_is_drawn(write_response, speech):
    paths = [write_response([1, 0.1 * number]) for number in range(3)]
    transform, drawn = Reverberation(paths), set()
    random.seed(0)
    for _ in range(40):
        transform.randomize_parameters(speech[0], RATE)
        drawn.add(transform.parameters["file"])
    assert drawn == set(paths)


def test_no_responses_are_refused():
    with pytest.raises(ValueError, match="ir_path has no impulse responses; leave it out to simulate rooms"):
        Reverberation([])
    with pytest.raises(ValueError, match="ir_path: /nowhere does not exist"):
        Reverberation("/nowhere")


def test_a_folder_of_responses(write_response, tmp_path):
    paths = [write_response([1, 0.1 * number]) for number in range(3)]
    (tmp_path / "deeper").mkdir()
    os.rename(paths[0], tmp_path / "deeper" / "z.wav")
    expected = sorted([*paths[1:], str(tmp_path / "deeper" / "z.wav")])
    assert Reverberation(tmp_path).ir_path == expected
    assert Reverberation([str(tmp_path / "deeper"), paths[1]]).ir_path == [str(tmp_path / "deeper" / "z.wav"), paths[1]]
    assert Reverberation(paths[1]).ir_path == [paths[1]]


# No round numbers, because many reflections would arrive at the same time.
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


def test_direct_sound_and_first_reflections_follow_the_geometry():
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
    # Only these arrive before the first double reflection.
    early = np.zeros(min(expected) + 1)
    early[[0, -1]] = 1, expected[min(expected)]
    np.testing.assert_allclose(response[: len(early)], early, atol=1e-9)


@pytest.mark.parametrize(
    ("size", "absorption"),
    # In large rooms with much absorption, the sound is not diffuse, which the formula assumes.
    [(ROOM["size"], 0.2), (ROOM["size"], 0.4), (ROOM["size"], 0.6), ([20.3, 15.1, 4.3], 0.2)],
)
def test_decays_in_the_reverberation_time(size, absorption):
    room = ROOM | {"size": size, "absorption": absorption}
    measured = np.median([decay_of(room_impulse_response(room | {"seed": seed}, RATE), RATE) for seed in range(5)])
    assert measured == pytest.approx(reverberation_time(room), rel=0.25)


def test_the_tail_continues_the_image_sources(monkeypatch):
    """Followed one by one for longer, the reflections have the energy that the noise has in their place.

    But at low frequencies, where reflections of one sign add up (as Allen and Berkley say: they take them out).
    """
    high_pass = signal.butter(4, 500, "highpass", fs=RATE, output="sos")
    energies = []
    for mixing_times in (3.0, 9.0):
        monkeypatch.setattr(reverberation, "_MIXING_TIMES", mixing_times)
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


def test_talker_and_microphone_at_the_same_position():
    response = room_impulse_response(ROOM | {"microphone": ROOM["source"]}, RATE)
    assert np.isfinite(response).all()
    assert np.argmax(response) == 0
