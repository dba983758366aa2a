import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_gradalign.augmentation import zero_phase_filtering
from hf_gradalign.augmentation.zero_phase_filtering import block_length, filter_powers


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
def test_filters_each_power_takes_out_the_delay_and_adds(direct, n_samples, reaches, n_clips, spare):
    filters = symmetric_filters(reaches)
    reach = max(reaches) + spare
    signals = np.random.default_rng(1).standard_normal((n_clips, n_samples))
    responses = responses_of(filters, block_length(reach)).expand(n_clips, -1, -1)
    summed = filter_powers(torch.from_numpy(signals), responses, reach).numpy()
    assert summed.shape == (n_clips, n_samples)
    for clip, result in zip(signals, summed, strict=True):
        expected = sum(direct.filtering(clip**power, taps) for power, taps in enumerate(filters, start=1))
        np.testing.assert_allclose(result, expected, atol=1e-8 * max(1, np.abs(expected).max()))


def test_clips_have_filters_of_their_own():
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
    monkeypatch.setattr(zero_phase_filtering, "_BLOCKS_AT_ONCE", 4)
    np.testing.assert_allclose(filter_powers(signals, responses, 30), whole, atol=1e-10)


@pytest.mark.parametrize(("reach", "length"), [(0, 2048), (245, 2048), (255, 2048), (256, 4096), (1000, 8192)])
def test_blocks_are_at_least_four_times_the_filter(reach, length):
    assert block_length(reach) == length
    assert length % 1024 == 0
    assert length >= 4 * (2 * reach + 1)
