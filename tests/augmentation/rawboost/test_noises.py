"""RawBoost's noises, each against a direct computation."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import signal

from hf_gradalign.augmentation.rawboost.filters import block_length, longest_reach, notch_responses
from hf_gradalign.augmentation.rawboost.noises import (
    add_convolutive_noise,
    add_impulsive_noise,
    add_stationary_noise,
    draw_impulses,
    draw_white_noise,
    fast_rng,
    impulse_factors,
    limit_peak_,
)


def add_convolutive(samples, notches, sample_rate=16000):
    """Each channel as an item of a batch, in the samples' precision."""
    channels = torch.from_numpy(np.atleast_2d(samples))
    filters = [notches] * len(channels)
    reach = longest_reach(filters)
    responses = torch.from_numpy(notch_responses(filters, sample_rate, block_length(reach)))
    return add_convolutive_noise(channels, responses, reach).numpy().reshape(samples.shape)


def test_convolutive_equals_the_direct_sum_of_filtered_powers(direct, notch, speech):
    notches = [notch | {"gain_db": gain_db} for gain_db in (0.0, -5.0, -9.0, -14.0, -20.0)]
    x = speech[0].astype(np.float64)
    np.testing.assert_allclose(add_convolutive(x, notches), direct.convolutive(x, notches, 16000), atol=1e-10)


def test_convolutive_has_no_mean_and_keeps_low_levels(notch, speech):
    x = 0.01 * speech[0].astype(np.float64)
    y = add_convolutive(x, [notch])
    assert abs(y.mean()) < 1e-12
    assert np.abs(y).max() < 0.02


def test_one_power_is_linear_and_more_are_not(notch, speech):
    x = 0.1 * speech[0].astype(np.float64)
    linear, twofold = (add_convolutive(scale * x, [notch]) for scale in (1, 2))
    np.testing.assert_allclose(twofold, 2 * linear, atol=1e-12)
    bent, twofold = (add_convolutive(scale * x, [notch] * 2) for scale in (1, 2))
    assert np.abs(twofold - 2 * bent).max() > 1e-6


def test_convolutive_is_limited_to_peak_1_per_channel(notch, speech):
    x = speech[0].astype(np.float64)
    y = add_convolutive(np.stack([x, 1000 * x]), [notch] * 2)
    np.testing.assert_allclose(y[0], add_convolutive(x, [notch] * 2), atol=1e-12)
    assert np.abs(y[0]).max() < 1
    assert np.abs(y[1]).max() == 1


def test_convolutive_of_a_padded_waveform_equals_that_of_it_alone(notch, speech):
    notches = [notch, notch | {"gain_db": -5.0}]
    x = torch.from_numpy(speech[0].astype(np.float64))
    padded = torch.stack([x, torch.cat([x[:9000], torch.zeros(len(x) - 9000)])])
    mask = torch.ones_like(padded)
    mask[1, 9000:] = 0
    reach = longest_reach([notches])
    responses = torch.from_numpy(notch_responses([notches] * 2, 16000, block_length(reach)))
    y = add_convolutive_noise(padded, responses, reach, mask).numpy()
    np.testing.assert_allclose(y[0], add_convolutive(x.numpy(), notches), atol=1e-12)
    np.testing.assert_allclose(y[1, :9000], add_convolutive(x[:9000].numpy(), notches), atol=1e-12)
    np.testing.assert_array_equal(y[1, 9000:], 0)


def add_impulsive(samples, percent, gain, seed):
    factors = impulse_factors(samples.shape[-1], percent, seed, gain)
    return add_impulsive_noise(torch.from_numpy(samples), factors.double()).numpy()


@given(n_samples=st.integers(1, 3000), percent=st.floats(0, 100), seed=st.integers(0, 2**53 - 1))
def test_impulse_positions_are_distinct_and_in_range(n_samples, percent, seed):
    positions, factors = draw_impulses(n_samples, percent, seed)
    assert len(positions) == len(factors) == int(n_samples * percent / 100)
    assert len(set(positions.tolist())) == len(positions)
    assert set(positions.tolist()) <= set(range(n_samples))
    assert np.all(np.abs(factors) <= 1)


def test_impulse_positions_are_uniform():
    counts = np.zeros(50)
    for seed in range(2000):
        counts[draw_impulses(50, 10, seed)[0]] += 1
    # Each of 50 positions is hit 200 times on average with a standard deviation of 13.4.
    assert np.all(np.abs(counts - 200) < 5 * 13.4)


def test_impulse_factors_are_products_of_two_uniform_draws():
    _, factors = draw_impulses(400_000, 100, seed=3)
    assert factors.mean() == pytest.approx(0, abs=0.003)
    assert factors.var() == pytest.approx(1 / 9, rel=0.01)
    # P(|u1 u2| < 1/2) = (1 + ln 2) / 2, against 1/2 for a single draw.
    assert np.mean(np.abs(factors) < 0.5) == pytest.approx((1 + np.log(2)) / 2, abs=0.005)


@pytest.mark.parametrize("gain", [0.0, 0.5, 2.0])
def test_impulsive_equals_the_direct_loop(direct, speech, gain):
    x = speech[1].astype(np.float64)
    np.testing.assert_allclose(
        add_impulsive(x, percent=10, gain=gain, seed=5),
        direct.impulsive(x, 10, gain, 5),
        atol=1e-6,  # factors are float32
    )


def test_impulsive_changes_the_given_share_in_proportion_to_the_signal():
    x = np.tile([0.2, -0.1, 0.0, 0.05], 25_000)
    y = add_impulsive(x, percent=8, gain=2, seed=1)
    changed = y != x
    assert changed[x == 0].sum() == 0
    assert changed[x != 0].mean() == pytest.approx(0.08, abs=0.004)
    assert np.all(np.abs(y - x) <= 2 * np.abs(x) * (1 + 1e-12))
    assert np.abs(y - x).max() > 1.5 * 0.2


def test_impulsive_is_limited_to_peak_1_per_channel():
    x = np.random.default_rng(0).uniform(-0.3, 0.3, 10_000)
    y = add_impulsive(np.stack([x, 3 * x]), percent=10, gain=2, seed=2)
    np.testing.assert_array_equal(y[0], add_impulsive(x, percent=10, gain=2, seed=2))
    assert np.abs(y[0]).max() < 1
    assert np.abs(y[1]).max() == 1


def test_impulsive_does_not_modify_its_input():
    x = np.full(1000, 0.5)
    add_impulsive(x, percent=50, gain=2, seed=2)
    np.testing.assert_array_equal(x, 0.5)


def add_stationary(samples, notch, snr_db, seed=4, sample_rate=16000):
    """Each channel as an item of a batch, in the samples' precision, all with the same noise."""
    channels = torch.from_numpy(np.atleast_2d(samples))
    filters = [[notch]] * len(channels)
    reach = longest_reach(filters)
    response = torch.from_numpy(notch_responses(filters, sample_rate, block_length(reach)))
    white = draw_white_noise(channels.shape[-1], seed).to(channels.dtype).expand(len(channels), -1)
    ratios = torch.full((len(channels),), snr_db)
    return add_stationary_noise(channels, white, response, ratios, reach).numpy().reshape(samples.shape)


def test_stationary_equals_the_direct_computation(direct, notch, speech):
    x = speech[2].astype(np.float64)
    np.testing.assert_allclose(add_stationary(x, notch, 13.0), direct.stationary(x, notch, 13.0, 4, 16000), atol=1e-10)


@pytest.mark.parametrize("snr_db", [-5.0, 10.0, 40.0])
def test_stationary_reaches_the_signal_to_noise_ratio_per_channel(notch, speech, snr_db):
    x = np.stack([speech[0], 0.01 * speech[0]]).astype(np.float64)
    noise = add_stationary(x, notch, snr_db) - x
    reached = 10 * np.log10(np.sum(x**2, axis=-1) / np.sum(noise**2, axis=-1))
    np.testing.assert_allclose(reached, snr_db, atol=1e-6)


def test_stationary_is_uncorrelated_and_lacks_the_stopped_band(speech):
    notch = {"center_freqs": [3000.0], "bandwidths": [1000.0], "taps": [99], "gain_db": 0.0}
    x = speech[0].astype(np.float64)
    noise = add_stationary(x, notch, 10.0) - x
    assert abs(np.corrcoef(x, noise)[0, 1]) < 0.03
    frequencies, power = signal.welch(noise, fs=16000, nperseg=256)
    stopped = power[np.abs(frequencies - 3000) < 200].mean()
    passed = power[np.abs(frequencies - 6000) < 200].mean()
    assert stopped < 0.01 * passed


def test_stationary_does_not_depend_on_the_filters_gain(notch, speech):
    x = speech[0].astype(np.float64)
    one, other = (add_stationary(x, notch | {"gain_db": gain_db}, 10.0) for gain_db in (0.0, 12.0))
    np.testing.assert_allclose(one, other, atol=1e-12)


def test_stationary_without_noise_left_returns_the_signal():
    # A filter of one tap: its delay is one sample, so that of one sample of noise nothing is left.
    notch = {"center_freqs": [3000.0], "bandwidths": [1000.0], "taps": [1], "gain_db": 0.0}
    x = np.array([0.25])
    np.testing.assert_array_equal(add_stationary(x, notch, 10.0), x)


def test_white_noise_is_white_and_fixed_by_its_seed():
    white = draw_white_noise(200_000, 7)
    assert white.dtype == torch.float32
    assert torch.equal(white, draw_white_noise(200_000, 7))
    assert not torch.equal(white, draw_white_noise(200_000, 8))
    assert abs(white.mean()) < 0.01
    assert white.std() == pytest.approx(1, abs=0.01)
    _, power = signal.welch(white.numpy(), nperseg=256)
    assert power[1:-1].std() < 0.1 * power.mean()


def test_limit_peak_scales_only_peaks_above_1():
    samples = np.array([[0.5, -0.25], [-4.0, 1.0], [1.0, -1.0], [0.0, 0.0]])
    expected = [[0.5, -0.25], [-1.0, 0.25], [1.0, -1.0], [0.0, 0.0]]
    np.testing.assert_array_equal(limit_peak_(torch.from_numpy(samples)), expected)


@pytest.mark.parametrize("shape", [(200,), (1, 200)])
@pytest.mark.parametrize("peak", [0.3, -0.9, 1.5, -7.0])
def test_limit_peak_of_one_waveform_equals_that_in_a_batch(shape, peak):
    waveform = torch.linspace(-0.2, 0.25, 200)
    waveform[77] = peak
    together = limit_peak_(torch.stack([waveform, torch.ones(200)]))
    assert torch.equal(limit_peak_(waveform.clone().reshape(shape)).flatten(), together[0])
    assert together.abs().max() <= 1


def words(seed, count):
    return fast_rng(seed).bit_generator.random_raw(count)


def test_the_seed_is_in_every_word_of_the_state():
    class Words(np.random.bit_generator.ISeedSequence):
        def generate_state(self, n_words, dtype=np.uint64):
            return np.full(n_words, 2**53 - 1, dtype)

    expected = np.random.SFC64(Words()).random_raw(8)
    np.testing.assert_array_equal(words(2**53 - 1, 8), expected)


def test_neighboring_seeds_differ_in_half_of_the_bits_from_the_first_words_on():
    seeds = [*range(64), *(2**k for k in range(6, 53))]
    first = np.array([words(seed, 4) for seed in seeds])
    assert len(np.unique(first)) == first.size
    different = np.unpackbits((first[1:] ^ first[:-1]).view(np.uint8)).mean()
    assert abs(different - 0.5) < 0.01
    streams = np.array([words(seed, 1000).view(np.uint16)[:4000] for seed in range(50)], dtype=np.float64)
    correlations = np.corrcoef(streams)[~np.eye(50, dtype=bool)]
    assert np.abs(correlations).max() < 0.1
