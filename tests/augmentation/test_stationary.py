import numpy as np
import pytest
import torch
from scipy import signal

from hf_gradalign.augmentation.notch_filter import notch_responses, reach_of
from hf_gradalign.augmentation.stationary import add_stationary_noise, draw_white_noise
from hf_gradalign.augmentation.zero_phase_filtering import block_length


def add_noise(samples, notch, snr_db, seed=4, sample_rate=16000):
    """Each channel as an item of a batch, in the samples' precision, all with the same noise."""
    channels = torch.from_numpy(np.atleast_2d(samples))
    filters = [[notch]] * len(channels)
    reach = reach_of(filters)
    response = torch.from_numpy(notch_responses(filters, sample_rate, block_length(reach)))
    white = draw_white_noise(channels.shape[-1], seed).to(channels.dtype).expand(len(channels), -1)
    ratios = torch.full((len(channels),), snr_db)
    return add_stationary_noise(channels, white, response, ratios, reach).numpy().reshape(samples.shape)


def test_equals_the_direct_computation(direct, notch, speech):
    x = speech[2].astype(np.float64)
    np.testing.assert_allclose(add_noise(x, notch, 13.0), direct.stationary(x, notch, 13.0, 4, 16000), atol=1e-10)


@pytest.mark.parametrize("snr_db", [-5.0, 10.0, 40.0])
def test_reaches_the_signal_to_noise_ratio_in_each_channel(notch, speech, snr_db):
    x = np.stack([speech[0], 0.01 * speech[0]]).astype(np.float64)
    noise = add_noise(x, notch, snr_db) - x
    reached = 10 * np.log10(np.sum(x**2, axis=-1) / np.sum(noise**2, axis=-1))
    np.testing.assert_allclose(reached, snr_db, atol=1e-6)


def test_noise_does_not_follow_the_signal_and_lacks_the_stopped_band(speech):
    notch = {"center_freqs": [3000.0], "bandwidths": [1000.0], "taps": [99], "gain_db": 0.0}
    x = speech[0].astype(np.float64)
    noise = add_noise(x, notch, 10.0) - x
    assert abs(np.corrcoef(x, noise)[0, 1]) < 0.03
    frequencies, power = signal.welch(noise, fs=16000, nperseg=256)
    stopped = power[np.abs(frequencies - 3000) < 200].mean()
    passed = power[np.abs(frequencies - 6000) < 200].mean()
    assert stopped < 0.01 * passed


def test_gain_of_the_filter_cancels(notch, speech):
    x = speech[0].astype(np.float64)
    one, other = (add_noise(x, notch | {"gain_db": gain_db}, 10.0) for gain_db in (0.0, 12.0))
    np.testing.assert_allclose(one, other, atol=1e-12)


def test_noise_that_vanishes_leaves_the_signal():
    # A filter of one tap: its delay is one sample, so that of one sample of noise nothing is left.
    notch = {"center_freqs": [3000.0], "bandwidths": [1000.0], "taps": [1], "gain_db": 0.0}
    x = np.array([0.25])
    np.testing.assert_array_equal(add_noise(x, notch, 10.0), x)


def test_white_noise_is_white_and_fixed_by_its_seed():
    white = draw_white_noise(200_000, 7)
    assert white.dtype == torch.float32
    assert torch.equal(white, draw_white_noise(200_000, 7))
    assert not torch.equal(white, draw_white_noise(200_000, 8))
    assert abs(white.mean()) < 0.01
    assert white.std() == pytest.approx(1, abs=0.01)
    _, power = signal.welch(white.numpy(), nperseg=256)
    assert power[1:-1].std() < 0.1 * power.mean()
