"""FrequencyMask and PacketLoss."""

import random

import numpy as np
import pytest

from hf_gradalign.augmentation import FrequencyMask, PacketLoss

RATE = 16_000
NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, 32_000).astype(np.float32)


def frozen(transform, **parameters):
    transform.parameters = {"should_apply": True, **parameters}
    transform.freeze_parameters()
    return transform


def test_takes_out_the_band_and_leaves_the_rest():
    masked = frozen(FrequencyMask(), low_hz=2000.0, high_hz=3000.0)(NOISE, RATE)
    hertz = np.fft.rfftfreq(len(NOISE), 1 / RATE)
    before, after = np.fft.rfft(NOISE), np.fft.rfft(masked)
    power = np.abs(after) ** 2 / np.mean(np.abs(before) ** 2)
    assert power[(hertz > 2100) & (hertz < 2900)].mean() < 1e-3
    outside = (hertz < 1900) | (hertz > 3100)
    np.testing.assert_allclose(after[outside], before[outside], atol=0.05 * np.abs(before).max())


def test_empty_band_changes_nothing():
    masked = frozen(FrequencyMask(), low_hz=2000.0, high_hz=2000.0)(NOISE, RATE)
    np.testing.assert_allclose(masked, NOISE, atol=1e-6)


def test_bands_are_drawn_inside():
    transform = FrequencyMask(max_width=3000)
    random.seed(0)
    lows, widths = [], []
    for _ in range(400):
        transform.randomize_parameters(NOISE, RATE)
        lows.append(transform.parameters["low_hz"])
        widths.append(transform.parameters["high_hz"] - lows[-1])
        assert transform.parameters["high_hz"] <= 8000
    assert 0 <= min(widths) < 100
    assert 2900 < max(widths) <= 3000
    assert min(lows) < 100
    transform.randomize_parameters(NOISE, 4000)
    assert transform.parameters["high_hz"] <= 2000


def test_lost_packets_are_silent_and_the_others_are_whole():
    heard = frozen(PacketLoss(), percent=30.0, seed=1)(NOISE, RATE)
    packets, before = heard.reshape(-1, 320), NOISE.reshape(-1, 320)
    lost = ~packets.any(axis=1)
    assert 0.2 < lost.mean() < 0.4
    np.testing.assert_array_equal(packets[~lost], before[~lost])


def test_the_share_is_drawn():
    transform, shares = PacketLoss(max_percent=20), []
    random.seed(0)
    for _ in range(300):
        transform.randomize_parameters(NOISE, RATE)
        shares.append(transform.parameters["percent"])
    assert 0 <= min(shares) < 1
    assert 19 < max(shares) <= 20


@pytest.mark.parametrize(
    ("transform", "arguments", "message"),
    [
        (FrequencyMask, {"max_width": -1}, "max_width must be a finite number >= 0"),
        (FrequencyMask, {"min_width": 2000}, "min_width must be <= max_width"),
        (PacketLoss, {"max_percent": 101}, r"max_percent must be a finite number in \[0, 100\]"),
        (PacketLoss, {"p": 2}, "p must be"),
    ],
)
def test_impossible_arguments_are_refused(transform, arguments, message):
    with pytest.raises(ValueError, match=message):
        transform(**arguments)
