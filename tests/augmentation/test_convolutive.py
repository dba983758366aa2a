import numpy as np

from hf_gradalign.augmentation.convolutive import add_convolutive_noise


def test_equals_the_direct_sum_of_filtered_powers(direct, notch, speech):
    notches = [notch | {"gain_db": gain_db} for gain_db in (0.0, -5.0, -9.0, -14.0, -20.0)]
    x = speech[0].astype(np.float64)
    np.testing.assert_allclose(
        add_convolutive_noise(x, notches, 16000), direct.convolutive(x, notches, 16000), atol=1e-10
    )


def test_has_no_mean_and_keeps_low_levels(notch, speech):
    x = 0.01 * speech[0].astype(np.float64)
    y = add_convolutive_noise(x, [notch], 16000)
    assert abs(y.mean()) < 1e-12
    assert np.abs(y).max() < 0.02


def test_one_power_is_linear_and_more_are_not(notch, speech):
    x = 0.1 * speech[0].astype(np.float64)
    linear, twofold = (add_convolutive_noise(scale * x, [notch], 16000) for scale in (1, 2))
    np.testing.assert_allclose(twofold, 2 * linear, atol=1e-12)
    bent, twofold = (add_convolutive_noise(scale * x, [notch] * 2, 16000) for scale in (1, 2))
    assert np.abs(twofold - 2 * bent).max() > 1e-6


def test_is_limited_to_peak_1_channel_by_channel(notch, speech):
    x = speech[0].astype(np.float64)
    y = add_convolutive_noise(np.stack([x, 1000 * x]), [notch] * 2, 16000)
    np.testing.assert_array_equal(y[0], add_convolutive_noise(x, [notch] * 2, 16000))
    assert np.abs(y[0]).max() < 1
    assert np.abs(y[1]).max() == 1
