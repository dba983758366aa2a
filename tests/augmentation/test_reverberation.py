import copy
import json
import os
import random

import numpy as np
import pytest
import soundfile

from hf_gradalign.augmentation import Reverberation

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


def test_of_several_channels_the_first_is_taken_and_the_rate_is_adapted(speech, write_response):
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


def test_frozen_parameters_repeat_and_survive_json(speech, write_response):
    for transform in (Reverberation(), Reverberation([write_response([1, 0, 0.5])])):
        random.seed(1)
        expected = transform(speech[0], RATE)
        other = copy.deepcopy(transform)
        other.parameters = json.loads(json.dumps(transform.serialize_parameters()))
        other.freeze_parameters()
        np.testing.assert_array_equal(other(speech[0], RATE), expected)


def test_no_responses_are_refused():
    with pytest.raises(ValueError, match="ir_path has no impulse responses; leave it out to simulate rooms"):
        Reverberation([])
    with pytest.raises(ValueError, match="ir_path: there is no file or folder /nowhere"):
        Reverberation("/nowhere")


def test_a_folder_of_responses(write_response, tmp_path):
    paths = [write_response([1, 0.1 * number]) for number in range(3)]
    (tmp_path / "deeper").mkdir()
    os.rename(paths[0], tmp_path / "deeper" / "z.wav")
    expected = sorted([*paths[1:], str(tmp_path / "deeper" / "z.wav")])
    assert Reverberation(tmp_path).ir_path == expected
    assert Reverberation([str(tmp_path / "deeper"), paths[1]]).ir_path == [str(tmp_path / "deeper" / "z.wav"), paths[1]]
    assert Reverberation(paths[1]).ir_path == [paths[1]]
