import numpy as np
import torch

from hf_gradalign.augmentation.levels import limit_peak_


def test_scales_down_only_what_is_above_1():
    samples = np.array([[0.5, -0.25], [-4.0, 1.0], [1.0, -1.0], [0.0, 0.0]])
    expected = [[0.5, -0.25], [-1.0, 0.25], [1.0, -1.0], [0.0, 0.0]]
    np.testing.assert_array_equal(limit_peak_(torch.from_numpy(samples)), expected)
