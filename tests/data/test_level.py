import numpy as np
import pytest

from hf_gradalign.data import ClipDataset, ViewDataset
from hf_gradalign.data.level import scale_to_rms


def rms(samples):
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))


def test_reaches_the_level_and_keeps_the_shape():
    samples = np.random.default_rng(0).normal(0, 0.02, 1000).astype(np.float32)
    scaled = scale_to_rms(samples, 0.1)
    assert scaled.dtype == np.float32
    assert rms(scaled) == pytest.approx(0.1, rel=1e-5)
    np.testing.assert_allclose(scaled / samples, scaled[0] / samples[0], rtol=1e-4)


def test_silence_and_nothing_stay_as_they_are():
    assert scale_to_rms(np.zeros(10, np.float32), 0.1).tolist() == [0.0] * 10
    assert scale_to_rms(np.zeros(0, np.float32), 0.1).size == 0


def test_transforms_hear_the_level(make_dataset, write_clip):
    dataset = make_dataset([write_clip("a.wav"), write_clip("b.flac", seed=1)])
    heard = []

    def listen(samples, sample_rate):
        heard.append(rms(samples))
        return samples

    for level in (None, 0.1):
        ViewDataset(dataset, {"clean": None, "heard": listen}, sampling_rate=16_000, rms_level=level)[0]
    assert heard[0] != pytest.approx(0.1, abs=0.01)
    assert heard[1] == pytest.approx(0.1, rel=1e-5)
    item = ClipDataset(dataset, sampling_rate=16_000, rms_level=0.1)[1]
    assert rms(item["input_values"]) == pytest.approx(0.1, rel=1e-5)


@pytest.mark.parametrize("level", [0, -1, 1.5, float("nan")])
def test_impossible_levels_are_refused(make_dataset, write_clip, level):
    with pytest.raises(ValueError, match="rms_level must be above 0 and at most 1"):
        ClipDataset(make_dataset([write_clip("a.wav")]), sampling_rate=16_000, rms_level=level)
