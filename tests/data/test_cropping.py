import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_gradalign.data import Window, crop, draw_position, repeat_pad


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


def test_nothing_cannot_be_repeated():
    with pytest.raises(ValueError, match="cannot repeat a clip without samples"):
        repeat_pad(np.zeros(0, np.float32), 5)
