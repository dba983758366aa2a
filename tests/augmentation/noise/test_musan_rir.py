import collections
import pickle
import random
import warnings

import numpy as np
import pytest
import soundfile

from hf_gradalign.augmentation import MusanRir

RATE = 16_000


@pytest.fixture
def folders(tmp_path):
    """One second of each kind; noise and music are tones, and one of them has another rate."""
    times = np.arange(RATE) / RATE
    sounds = {
        "musan/noise/n.wav": (0.3 * np.sin(2 * np.pi * 1000 * times), RATE),
        "musan/music/m.wav": (0.3 * np.sin(2 * np.pi * 3000 * times)[::2], RATE // 2),
        "musan/speech/s.wav": (np.random.default_rng(0).uniform(-0.3, 0.3, RATE), RATE),
        "RIRS_NOISES/simulated_rirs/smallroom/r.wav": (np.eye(1, 400)[0], RATE),
    }
    for name, (samples, rate) in sounds.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / name, samples, rate)
    return [str(tmp_path / "musan"), str(tmp_path / "RIRS_NOISES")]


def names_of(transform):
    return [type(each).__name__ for each in transform.transforms]


def test_transforms_and_their_ranges(folders):
    assert names_of(MusanRir()) == ["AddColorNoise", "AddBabble", "Reverberation"]
    recorded = MusanRir(folders)
    assert names_of(recorded) == ["AddBackgroundNoise", "AddBackgroundNoise", "AddBabble", "Reverberation"]
    noise, music, babble, rooms = recorded.transforms
    assert (noise.min_snr_db, noise.max_snr_db) == (0, 15)
    assert (music.min_snr_db, music.max_snr_db) == (5, 15)
    assert (babble.min_snr_db, babble.max_snr_db, babble.min_talkers, babble.max_talkers) == (13, 20, 3, 7)
    assert babble.sounds_path[0].endswith("s.wav")
    assert rooms.ir_path[0].endswith("r.wav")
    assert names_of(MusanRir(folders[1])) == ["AddColorNoise", "AddBabble", "Reverberation"]
    assert MusanRir(folders[1]).transforms[2].ir_path


def test_each_is_equally_likely(folders):
    transform, drawn = MusanRir(folders), collections.Counter()
    np.random.seed(0)
    for _ in range(400):
        transform.randomize_parameters(np.zeros(RATE, np.float32), RATE, apply_to_children=False)
        drawn[transform.transform_index] += 1
    assert all(70 < drawn[index] < 130 for index in range(4))


@pytest.mark.parametrize("recorded", [True, False])
def test_augments_and_is_reproducible(folders, speech, recorded):
    transform = MusanRir(folders if recorded else None)

    def run():
        random.seed(3), np.random.seed(3)
        return [transform(clip, RATE) for clip in speech * 3]

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # resampling is not worth a warning for each file
        warnings.simplefilter("ignore", DeprecationWarning)  # from librosa's imports when it first reads a file
        first = run()
    transform = pickle.loads(pickle.dumps(transform))
    changed = 0
    for a, b, clip in zip(first, run(), speech * 3, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == np.float32
        assert a.shape == clip.shape
        assert np.isfinite(a).all()
        changed += np.abs(a - clip).max() > 1e-4
    assert changed > 6  # the recorded room is an impulse


@pytest.mark.parametrize("n_samples", [0, 1, 799, 800, 801])
def test_short_clips(folders, n_samples):
    clip = np.random.default_rng(0).uniform(-0.1, 0.1, n_samples).astype(np.float32)
    for transform in (MusanRir(folders), MusanRir()):
        for _ in range(8):
            result = transform(clip, RATE)
            assert result.shape == clip.shape
            assert np.isfinite(result).all()
            assert (result is clip) == (n_samples < 800)


def test_p_is_the_share_of_clips(speech):
    transform = MusanRir(p=0.3)
    random.seed(0)
    samples = speech[0][:1000]
    left = [np.array_equal(transform(samples, RATE), samples) for _ in range(100)]
    assert 0.55 < np.mean(left) < 0.85


def test_impossible_arguments_are_refused(tmp_path):
    with pytest.raises(ValueError, match="p must be"):
        MusanRir(p=2)
    with pytest.raises(ValueError, match="neither a folder nor a data set on the Hub"):
        MusanRir(str(tmp_path / "a" / "b"))
