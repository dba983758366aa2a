"""Resampling parts of a waveform gives the same bits as resampling all of it."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hf_gradalign.audio import AudioDecodingError, resample_clip
from hf_gradalign.audio.resampling import (
    resample_blocks,
    resample_span,
    resampled_length,
    source_span,
)
from hf_gradalign.audio.sound import check_rate

RATES = st.sampled_from([1000, 8000, 11_025, 12_345, 16_000, 22_050, 24_000, 44_100, 48_000, 96_000])


def draw(n_samples):
    return np.random.default_rng(n_samples).standard_normal(n_samples).astype(np.float32)


@example(rate=24_000, n_samples=150_000, ends=(0.3, 0.9))  # long enough to begin within the waveform
@given(rate=RATES, n_samples=st.integers(1, 200_000), ends=st.tuples(st.floats(0, 1), st.floats(0, 1)))
@settings(deadline=None, max_examples=12)
def test_a_part(rate, n_samples, ends):
    samples = draw(n_samples)
    whole = resample_clip(samples, rate, 16_000)
    assert resampled_length(n_samples, rate, 16_000) == len(whole)
    start, stop = sorted(int(end * len(whole)) for end in ends)
    if start == stop or rate == 16_000:
        return
    first, last = source_span(start, stop, n_samples, rate, 16_000)
    part = resample_span(samples[first:last], first, start, stop, rate, 16_000)
    np.testing.assert_array_equal(part, whole[start:stop])


@given(rate=RATES, cuts=st.lists(st.integers(1, 900_000), min_size=1, max_size=5))
@settings(deadline=None, max_examples=20)
def test_block_by_block(rate, cuts):
    samples = draw(sum(cuts))
    blocks = np.split(samples, np.cumsum(cuts)[:-1])
    joined = np.concatenate(list(resample_blocks(blocks, rate, 16_000)))
    np.testing.assert_array_equal(joined, resample_clip(samples, rate, 16_000))


@pytest.mark.parametrize(
    ("n_samples", "rate"), [(13_421_780, 12_800), pytest.param(12_582_914, 12_000, marks=pytest.mark.slow)]
)
def test_lengths_that_torchaudio_rounds(n_samples, rate):
    samples = np.ones(n_samples, np.float32)
    whole = resample_clip(samples, rate, 16_000)
    assert resampled_length(n_samples, rate, 16_000) == len(whole)
    joined = np.concatenate(list(resample_blocks(np.array_split(samples, 20), rate, 16_000)))
    np.testing.assert_array_equal(joined, whole)


@pytest.mark.parametrize("rate", [0, 1, 999, 6_000_001, 4_000_000_000])
def test_rates_of_damaged_headers(rate):
    with pytest.raises(AudioDecodingError, match=f"its sampling rate of {rate} Hz is not used for speech"):
        check_rate(rate)
