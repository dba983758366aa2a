import numpy as np
import torch

from hf_gradalign.augmentation.convolutive import add_convolutive_noise
from hf_gradalign.augmentation.notch_filter import notch_responses, reach_of
from hf_gradalign.augmentation.zero_phase_filtering import block_length


def distort(samples, notches, sample_rate=16000):
    """Each channel as an item of a batch, in the samples' precision."""
    channels = torch.from_numpy(np.atleast_2d(samples))
    filters = [notches] * len(channels)
    reach = reach_of(filters)
    responses = torch.from_numpy(notch_responses(filters, sample_rate, block_length(reach)))
    return add_convolutive_noise(channels, responses, reach).numpy().reshape(samples.shape)


def test_equals_the_direct_sum_of_filtered_powers(direct, notch, speech):
    notches = [notch | {"gain_db": gain_db} for gain_db in (0.0, -5.0, -9.0, -14.0, -20.0)]
    x = speech[0].astype(np.float64)
    np.testing.assert_allclose(distort(x, notches), direct.convolutive(x, notches, 16000), atol=1e-10)


def test_has_no_mean_and_keeps_low_levels(notch, speech):
    x = 0.01 * speech[0].astype(np.float64)
    y = distort(x, [notch])
    assert abs(y.mean()) < 1e-12
    assert np.abs(y).max() < 0.02


def test_one_power_is_linear_and_more_are_not(notch, speech):
    x = 0.1 * speech[0].astype(np.float64)
    linear, twofold = (distort(scale * x, [notch]) for scale in (1, 2))
    np.testing.assert_allclose(twofold, 2 * linear, atol=1e-12)
    bent, twofold = (distort(scale * x, [notch] * 2) for scale in (1, 2))
    assert np.abs(twofold - 2 * bent).max() > 1e-6


def test_is_limited_to_peak_1_channel_by_channel(notch, speech):
    x = speech[0].astype(np.float64)
    y = distort(np.stack([x, 1000 * x]), [notch] * 2)
    np.testing.assert_allclose(y[0], distort(x, [notch] * 2), atol=1e-12)
    assert np.abs(y[0]).max() < 1
    assert np.abs(y[1]).max() == 1


def test_a_shorter_waveform_of_a_batch_is_distorted_alone(notch, speech):
    notches = [notch, notch | {"gain_db": -5.0}]
    x = torch.from_numpy(speech[0].astype(np.float64))
    padded = torch.stack([x, torch.cat([x[:9000], torch.zeros(len(x) - 9000)])])
    mask = torch.ones_like(padded)
    mask[1, 9000:] = 0
    reach = reach_of([notches])
    responses = torch.from_numpy(notch_responses([notches] * 2, 16000, block_length(reach)))
    y = add_convolutive_noise(padded, responses, reach, mask).numpy()
    np.testing.assert_allclose(y[0], distort(x.numpy(), notches), atol=1e-12)
    np.testing.assert_allclose(y[1, :9000], distort(x[:9000].numpy(), notches), atol=1e-12)
    np.testing.assert_array_equal(y[1, 9000:], 0)
