import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_gradalign.data import ClipDataset, ViewDataset, Window, crop, draw_position, repeat_pad
from hf_gradalign.data.decoding import scale_to_rms


@given(total=st.integers(0, 1000), n_samples=st.integers(1, 1000), position=st.floats(0, 1, exclude_max=True))
def test_a_window_lies_inside_the_clip(total, n_samples, position):
    start, stop = Window(n_samples, position).bounds(total)
    assert 0 <= start <= stop <= total
    assert stop - start == min(n_samples, total)


def test_every_start_is_reached_equally_often():
    starts = [Window(3, position).bounds(5)[0] for position in np.linspace(0, 1, 3000, endpoint=False)]
    assert np.bincount(starts).tolist() == [1000, 1000, 1000]


def test_the_last_position_below_one_ends_with_the_clip():
    assert Window(3, np.nextafter(1, 0)).bounds(10**9) == (10**9 - 3, 10**9)


@pytest.mark.parametrize("n_samples", [0, -4])
def test_a_window_without_samples_is_refused(n_samples):
    with pytest.raises(ValueError, match=f"n_samples must be at least 1, not {n_samples}"):
        Window(n_samples)


@pytest.mark.parametrize("position", [-0.1, 1.0, float("nan")])
def test_a_position_outside_the_clip_is_refused(position):
    with pytest.raises(ValueError, match=r"position must lie in \[0, 1\), not"):
        Window(5, position)


def test_crop_cuts_time():
    samples = np.arange(20).reshape(2, 10)
    assert crop(samples, Window(4)).tolist() == [[0, 1, 2, 3], [10, 11, 12, 13]]
    assert crop(samples, Window(4, 0.99)).tolist() == [[6, 7, 8, 9], [16, 17, 18, 19]]
    assert crop(samples, Window(40, 0.5)).tolist() == samples.tolist()


def test_draw_position():
    rng = np.random.default_rng(0)
    positions = [draw_position("random", rng) for _ in range(1000)]
    assert 0 <= min(positions) < 0.05
    assert 0.95 < max(positions) < 1
    assert draw_position("leading", rng) == 0


def test_an_unknown_crop_is_refused():
    with pytest.raises(ValueError, match="crop must be one of random, leading, not 'centre'"):
        draw_position("centre", np.random.default_rng(0))


@pytest.mark.parametrize(
    ("length", "expected"),
    [(1, [1]), (3, [1, 2, 3]), (4, [1, 2, 3, 1]), (8, [1, 2, 3, 1, 2, 3, 1, 2])],
)
def test_repeat_pad(length, expected):
    padded = repeat_pad(np.array([1, 2, 3], dtype=np.float32), length)
    assert padded.tolist() == expected
    assert padded.dtype == np.float32


def test_an_empty_clip_cannot_be_repeated():
    with pytest.raises(ValueError, match="cannot repeat a clip without samples"):
        repeat_pad(np.zeros(0, np.float32), 5)


def rms(samples):
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))


def test_reaches_the_level_and_keeps_the_shape():
    samples = np.random.default_rng(0).normal(0, 0.02, 1000).astype(np.float32)
    scaled = scale_to_rms(samples, 0.1)
    assert scaled.dtype == np.float32
    assert rms(scaled) == pytest.approx(0.1, rel=1e-5)
    np.testing.assert_allclose(scaled / samples, scaled[0] / samples[0], rtol=1e-4)


def test_silence_and_empty_clips_stay_as_they_are():
    assert scale_to_rms(np.zeros(10, np.float32), 0.1).tolist() == [0.0] * 10
    assert scale_to_rms(np.zeros(0, np.float32), 0.1).size == 0


def test_transforms_get_the_level(make_dataset, write_clip):
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
