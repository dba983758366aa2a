import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from hf_gradalign.augmentation.rawboost import filters
from hf_gradalign.augmentation.rawboost.filters import block_length, filter_powers, longest_reach, notch_responses

BANDS = st.lists(
    st.tuples(st.floats(20, 7990), st.floats(100, 1000), st.integers(5, 49).map(lambda half: 2 * half + 1)),
    min_size=1,
    max_size=6,
)


def as_notch(bands, gain_db=0.0):
    centers, widths, taps = zip(*bands, strict=True)
    return {"center_freqs": list(centers), "bandwidths": list(widths), "taps": list(taps), "gain_db": gain_db}


def design(notch, sample_rate=16000):
    """The impulse response that belongs to the response without delay."""
    reach = longest_reach([[notch]])
    n_fft = block_length(reach)
    response = notch_responses([[notch]], sample_rate, n_fft)[0, 0]
    assert response.dtype == np.float64
    impulse_response = np.roll(np.fft.irfft(response, n_fft), reach)
    inside = 2 * reach + 1
    np.testing.assert_allclose(impulse_response[inside:], 0, atol=1e-12 * np.abs(impulse_response).max())
    return impulse_response[:inside]


@settings(max_examples=50, deadline=None)
@given(bands=BANDS, gain_db=st.floats(-30, 30))
def test_a_notch_filter_is_a_cascade_of_scipy_filters(direct, bands, gain_db):
    notch = as_notch(bands, gain_db)
    expected = direct.notch_filter(notch, 16000)
    np.testing.assert_allclose(design(notch), expected, atol=1e-7 * np.abs(expected).max())


def test_a_notch_filter_stops_its_bands_and_passes_the_rest():
    filter_taps = design(as_notch([(3000, 1000, 99)]))
    _, response = signal.freqz(filter_taps, worN=[1000, 2000, 3000, 4000, 7000], fs=16000)
    stopped = np.abs(response) < 0.05
    np.testing.assert_array_equal(stopped, [False, False, True, False, False])


def test_peak_response_is_the_gain(notch):
    _, response = signal.freqz(design(notch), worN=512)
    assert 20 * np.log10(np.abs(response).max()) == pytest.approx(-7.5)


def test_a_notch_filter_is_symmetric_and_of_odd_length(notch):
    filter_taps = design(notch)
    assert len(filter_taps) == 11 + 99 + 45 + 63 + 31 - 4
    np.testing.assert_allclose(filter_taps, filter_taps[::-1], atol=1e-12)


def test_a_notch_filter_longer_than_the_frequency_grid(direct):
    notch = as_notch([(1000, 200, 801), (3000, 500, 601)])
    expected = direct.notch_filter(notch, 16000)
    assert len(expected) > 1024
    np.testing.assert_allclose(design(notch), expected, atol=1e-7)


@pytest.mark.parametrize(
    "bands",
    [
        [(4000, 0, 11)],  # nothing to stop
        [(9000, 500, 11)],  # above the Nyquist frequency
        [(0, 0, 1)],
        [(4000, 1e6, 99)] * 200,  # 200 bands that stop everything
    ],
)
def test_meaningless_stop_bands_give_a_finite_filter(bands):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        filter_taps = design(as_notch(bands))
    assert np.isfinite(filter_taps).all()
    assert np.abs(filter_taps).max() > 0


def test_empty_band_changes_nothing():
    expected = np.zeros(11)
    expected[5] = 1
    np.testing.assert_allclose(design(as_notch([(4000, 0, 11)])), expected, atol=1e-12)


def test_clips_and_filters_are_designed_together():
    notches = [
        [as_notch([(500.0 * i + 300, 100.0 * j + 200, 21 + 10 * j)] * 2, -i) for i in range(3)] for j in range(2)
    ]
    together = notch_responses(notches, 16000, 2048)
    assert together.shape == (2, 3, 1025)
    for one, clip in zip(together, notches, strict=True):
        for response, notch in zip(one, clip, strict=True):
            np.testing.assert_allclose(response, notch_responses([[notch]], 16000, 2048)[0, 0], atol=1e-12)


def test_filters_with_different_numbers_of_bands_are_refused():
    with pytest.raises(ValueError, match="inhomogeneous"):
        notch_responses([[as_notch([(500, 100, 11)] * 2), as_notch([(500, 100, 11)])]], 16000, 2048)


def symmetric_filters(reaches):
    rng = np.random.default_rng(0)
    sides = [rng.standard_normal(reach) for reach in reaches]
    return [np.concatenate([side[::-1], rng.standard_normal(1), side]) for side in sides]


def responses_of(filters, block):
    padded = [np.roll(np.pad(taps, (0, block - len(taps))), -(len(taps) // 2)) for taps in filters]
    return torch.from_numpy(np.fft.rfft(padded).real)[None]


@settings(max_examples=60, deadline=None)
@given(
    n_samples=st.sampled_from([1, 2, 3, 100, 1600, 5000, 16001]),
    reaches=st.lists(st.sampled_from([0, 1, 5, 150, 245, 700]), min_size=1, max_size=5),
    n_clips=st.integers(1, 3),
    spare=st.sampled_from([0, 40]),
)
def test_powers_are_filtered_without_delay_and_summed(direct, n_samples, reaches, n_clips, spare):
    filters = symmetric_filters(reaches)
    reach = max(reaches) + spare
    signals = np.random.default_rng(1).standard_normal((n_clips, n_samples))
    responses = responses_of(filters, block_length(reach)).expand(n_clips, -1, -1)
    summed = filter_powers(torch.from_numpy(signals), responses, reach).numpy()
    assert summed.shape == (n_clips, n_samples)
    for clip, result in zip(signals, summed, strict=True):
        expected = sum(direct.filtering(clip**power, taps) for power, taps in enumerate(filters, start=1))
        np.testing.assert_allclose(result, expected, atol=1e-8 * max(1, np.abs(expected).max()))


def test_each_clip_has_its_own_filters():
    filters = [symmetric_filters([reach])[0] for reach in (3, 50)]
    block = block_length(50)
    signals = torch.from_numpy(np.random.default_rng(1).standard_normal((2, 3000)))
    responses = torch.cat([responses_of([taps], block) for taps in filters])
    together = filter_powers(signals, responses, 50)
    for i in range(2):
        np.testing.assert_allclose(together[i], filter_powers(signals[i : i + 1], responses[i : i + 1], 50)[0])


def test_long_recordings_are_filtered_piece_by_piece(monkeypatch):
    signals = torch.from_numpy(np.random.default_rng(1).standard_normal((2, 30_000)))
    responses = responses_of(symmetric_filters([20, 30]), block_length(30)).expand(2, -1, -1)
    whole = filter_powers(signals, responses, 30)
    monkeypatch.setattr(filters, "_BLOCKS_AT_ONCE", 4)
    np.testing.assert_allclose(filter_powers(signals, responses, 30), whole, atol=1e-10)


@pytest.mark.parametrize(("reach", "length"), [(0, 2048), (245, 2048), (255, 2048), (256, 4096), (1000, 8192)])
def test_blocks_are_at_least_four_times_the_filter(reach, length):
    assert block_length(reach) == length
    assert length % 1024 == 0
    assert length >= 4 * (2 * reach + 1)
