import numpy as np
import pytest
import torch

from hf_gradalign.augmentation.levels import limit_peak_


def test_scales_down_only_what_is_above_1():
    samples = np.array([[0.5, -0.25], [-4.0, 1.0], [1.0, -1.0], [0.0, 0.0]])
    expected = [[0.5, -0.25], [-1.0, 0.25], [1.0, -1.0], [0.0, 0.0]]
    np.testing.assert_array_equal(limit_peak_(torch.from_numpy(samples)), expected)


@pytest.mark.parametrize("shape", [(200,), (1, 200)])
@pytest.mark.parametrize("peak", [0.3, -0.9, 1.5, -7.0])
def test_one_waveform_comes_out_as_in_a_batch(shape, peak):
    waveform = torch.linspace(-0.2, 0.25, 200)
    waveform[77] = peak
    together = limit_peak_(torch.stack([waveform, torch.ones(200)]))
    assert torch.equal(limit_peak_(waveform.clone().reshape(shape)).flatten(), together[0])
    assert together.abs().max() <= 1
