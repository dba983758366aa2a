import random

import numpy as np
import pytest
import soundfile
from scipy.signal import correlate

from hf_gradalign.augmentation import AddBabble

RATE = 16_000


@pytest.fixture
def talkers(tmp_path):
    """Recordings of tones with different frequencies and sampling rates, to tell them apart."""
    paths = []
    for number, (hertz, rate) in enumerate([(500, 16_000), (1000, 8000), (2000, 44_100)]):
        times = np.arange(3 * rate) / rate
        paths.append(str(tmp_path / f"{number}.wav"))
        soundfile.write(paths[-1], 0.1 * (number + 1) * np.sin(2 * np.pi * hertz * times), rate)
    return paths


def levels_at(noise, frequencies):
    power = np.abs(np.fft.rfft(noise)) ** 2
    hertz = np.fft.rfftfreq(len(noise), 1 / RATE)
    return [power[np.abs(hertz - frequency) < 200].sum() ** 0.5 for frequency in frequencies]


@pytest.mark.parametrize("simulated", [True, False])
@pytest.mark.parametrize("snr_db", [0.0, 20.0])
def test_reaches_the_ratio(speech, talkers, simulated, snr_db):
    transform = AddBabble(None if simulated else talkers, min_snr_db=snr_db, max_snr_db=snr_db)
    random.seed(0)
    noise = transform(speech[0], RATE).astype(float) - speech[0]
    reached = 10 * np.log10(np.mean(speech[0].astype(float) ** 2) / np.mean(noise**2))
    assert reached == pytest.approx(snr_db, abs=1e-3)


def test_talkers_of_recordings_are_equally_loud(speech, talkers):
    transform = AddBabble(talkers, min_talkers=3, max_talkers=3)
    random.seed(0)
    while {talker["file"] for talker in transform.parameters.get("talkers", ())} != set(talkers):
        transform.randomize_parameters(speech[0], RATE)
    transform.freeze_parameters()
    first, second, third = levels_at(transform(speech[0], RATE) - speech[0], [500, 1000, 2000])
    assert second == pytest.approx(first, rel=0.1)
    assert third == pytest.approx(first, rel=0.1)


def test_simulated_talkers_are_not_the_clip(speech):
    transform = AddBabble(min_talkers=1, max_talkers=1)
    for seed in range(5):
        random.seed(seed)
        noise = transform(speech[0], RATE) - speech[0]
        likeness = np.abs(correlate(noise, speech[0])).max() / np.linalg.norm(noise) / np.linalg.norm(speech[0])
        assert likeness < 0.5
        # But it has the same timbre: a similar share of it lies below 1 kHz.
        shares = []
        for sound in (noise, speech[0]):
            power = np.abs(np.fft.rfft(sound)) ** 2
            shares.append(power[: len(power) // 8].sum() / power.sum())
        assert shares[0] == pytest.approx(shares[1], abs=0.2)


def test_draws_as_published():
    transform, counts, ratios = AddBabble(), [], []
    random.seed(0)
    for _ in range(500):
        transform.randomize_parameters(np.zeros(10, np.float32), RATE)
        counts.append(len(transform.parameters["talkers"]))
        ratios.append(transform.parameters["snr_db"])
    assert set(counts) == {3, 4, 5, 6, 7}
    assert min(ratios) == pytest.approx(13, abs=0.1)
    assert max(ratios) == pytest.approx(20, abs=0.1)


def test_silence_stays_silence():
    assert not AddBabble()(np.zeros(4000, np.float32), RATE).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sounds_path": []}, "sounds_path has no recordings; leave it out to simulate talkers"),
        ({"sounds_path": "/nowhere"}, "sounds_path: /nowhere does not exist"),
        ({"sounds_path": ["/nowhere.wav"]}, "sounds_path: /nowhere.wav does not exist"),
        ({"min_talkers": 0}, "min_talkers must be an integer >= 1"),
        ({"min_talkers": 8}, "min_talkers must be <= max_talkers"),
        ({"min_snr_db": 21}, "min_snr_db must be <= max_snr_db"),
        ({"p": -1}, "p must be"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        AddBabble(**arguments)
