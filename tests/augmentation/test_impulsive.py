import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_gradalign.augmentation.impulsive import add_impulsive_noise, draw_impulses, impulse_factors


def disturb(samples, percent, gain, seed):
    factors = impulse_factors(samples.shape[-1], percent, seed, gain)
    return add_impulsive_noise(torch.from_numpy(samples), factors.double()).numpy()


@given(n_samples=st.integers(1, 3000), percent=st.floats(0, 100), seed=st.integers(0, 2**53 - 1))
def test_positions_are_distinct_inside_and_as_many_as_asked_for(n_samples, percent, seed):
    positions, factors = draw_impulses(n_samples, percent, seed)
    assert len(positions) == len(factors) == int(n_samples * percent / 100)
    assert len(set(positions.tolist())) == len(positions)
    assert set(positions.tolist()) <= set(range(n_samples))
    assert np.all(np.abs(factors) <= 1)


def test_positions_are_spread_evenly():
    counts = np.zeros(50)
    for seed in range(2000):
        counts[draw_impulses(50, 10, seed)[0]] += 1
    # Each of 50 positions is hit 200 times on average with a standard deviation of 13.4.
    assert np.all(np.abs(counts - 200) < 5 * 13.4)


def test_factors_are_products_of_two_uniform_draws():
    _, factors = draw_impulses(400_000, 100, seed=3)
    assert factors.mean() == pytest.approx(0, abs=0.003)
    assert factors.var() == pytest.approx(1 / 9, rel=0.01)
    # P(|u1 u2| < 1/2) = (1 + ln 2) / 2, against 1/2 for a single draw.
    assert np.mean(np.abs(factors) < 0.5) == pytest.approx((1 + np.log(2)) / 2, abs=0.005)


@pytest.mark.parametrize("gain", [0.0, 0.5, 2.0])
def test_equals_the_direct_loop(direct, speech, gain):
    x = speech[1].astype(np.float64)
    np.testing.assert_allclose(
        disturb(x, percent=10, gain=gain, seed=5),
        direct.impulsive(x, 10, gain, 5),
        atol=1e-6,  # factors are float32
    )


def test_changes_the_asked_share_in_proportion_to_the_signal():
    x = np.tile([0.2, -0.1, 0.0, 0.05], 25_000)
    y = disturb(x, percent=8, gain=2, seed=1)
    changed = y != x
    assert changed[x == 0].sum() == 0
    assert changed[x != 0].mean() == pytest.approx(0.08, abs=0.004)
    assert np.all(np.abs(y - x) <= 2 * np.abs(x) * (1 + 1e-12))
    assert np.abs(y - x).max() > 1.5 * 0.2


def test_is_limited_to_peak_1_channel_by_channel():
    x = np.random.default_rng(0).uniform(-0.3, 0.3, 10_000)
    y = disturb(np.stack([x, 3 * x]), percent=10, gain=2, seed=2)
    np.testing.assert_array_equal(y[0], disturb(x, percent=10, gain=2, seed=2))
    assert np.abs(y[0]).max() < 1
    assert np.abs(y[1]).max() == 1


def test_leaves_its_input_alone():
    x = np.full(1000, 0.5)
    disturb(x, percent=50, gain=2, seed=2)
    np.testing.assert_array_equal(x, 0.5)
