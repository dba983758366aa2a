import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from hf_gradalign.augmentation.notch_filter import design_notch_filter, filter_and_sum

BANDS = st.lists(
    st.tuples(st.floats(20, 7990), st.floats(100, 1000), st.integers(5, 49).map(lambda half: 2 * half + 1)),
    min_size=1,
    max_size=6,
)


def as_notch(bands, gain_db=0.0):
    centers, widths, taps = zip(*bands, strict=True)
    return {"center_freqs": list(centers), "bandwidths": list(widths), "taps": list(taps), "gain_db": gain_db}


@settings(max_examples=50, deadline=None)
@given(bands=BANDS, gain_db=st.floats(-30, 30))
def test_is_a_cascade_of_scipy_filters(direct, bands, gain_db):
    notch = as_notch(bands, gain_db)
    expected = direct.notch_filter(notch, 16000)
    np.testing.assert_allclose(design_notch_filter(notch, 16000), expected, atol=1e-7 * np.abs(expected).max())


def test_stops_the_bands_and_passes_the_rest():
    filter_taps = design_notch_filter(as_notch([(3000, 1000, 99)]), 16000)
    _, response = signal.freqz(filter_taps, worN=[1000, 2000, 3000, 4000, 7000], fs=16000)
    stopped = np.abs(response) < 0.05
    np.testing.assert_array_equal(stopped, [False, False, True, False, False])


def test_peak_response_is_the_gain(notch):
    _, response = signal.freqz(design_notch_filter(notch, 16000), worN=512)
    assert 20 * np.log10(np.abs(response).max()) == pytest.approx(-7.5)


def test_is_symmetric_and_of_odd_length(notch):
    filter_taps = design_notch_filter(notch, 16000)
    assert len(filter_taps) == 11 + 99 + 45 + 63 + 31 - 4
    np.testing.assert_allclose(filter_taps, filter_taps[::-1], atol=1e-12)


def test_longer_than_the_frequency_grid(direct):
    notch = as_notch([(1000, 200, 801), (3000, 500, 601)])
    expected = direct.notch_filter(notch, 16000)
    assert len(expected) > 1024
    np.testing.assert_allclose(design_notch_filter(notch, 16000), expected, atol=1e-7)


@pytest.mark.parametrize(
    "bands",
    [
        [(4000, 0, 11)],  # nothing to stop
        [(9000, 500, 11)],  # above the Nyquist frequency
        [(0, 0, 1)],
        [(4000, 1e6, 99)] * 200,  # everything stopped, two hundred times
    ],
)
def test_stop_bands_without_sense_give_a_finite_filter(bands):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        filter_taps = design_notch_filter(as_notch(bands), 16000)
    assert np.isfinite(filter_taps).all()
    assert np.abs(filter_taps).max() > 0


def test_a_band_of_no_width_changes_nothing():
    expected = np.zeros(11)
    expected[5] = 1
    np.testing.assert_allclose(design_notch_filter(as_notch([(4000, 0, 11)]), 16000), expected, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    n_samples=st.sampled_from([1, 2, 3, 100, 1600, 5000, 16001]),
    lengths=st.lists(st.sampled_from([1, 3, 11, 301, 491, 1401]), min_size=1, max_size=5),
    n_channels=st.integers(1, 3),
)
def test_filtering_takes_out_each_delay_and_adds(direct, n_samples, lengths, n_channels):
    rng = np.random.default_rng(0)
    filters = [rng.standard_normal(length) for length in lengths]
    signals = [rng.standard_normal((n_channels, n_samples)) for _ in lengths]
    summed = filter_and_sum(signals, filters)
    assert summed.shape == (n_channels, n_samples)
    for channel in range(n_channels):
        expected = sum(direct.filtering(x[channel], taps) for x, taps in zip(signals, filters, strict=True))
        np.testing.assert_allclose(summed[channel], expected, atol=1e-9)
