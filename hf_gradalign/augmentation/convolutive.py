from torch import Tensor

from hf_gradalign.augmentation.levels import limit_peak_
from hf_gradalign.augmentation.zero_phase_filtering import filter_powers


def add_convolutive_noise(samples: Tensor, responses: Tensor, reach: int, mask: Tensor | None = None) -> Tensor:
    """Linear and non-linear convolutive noise: the sum of the signal's powers, each through its own notch filter.

    y = sum_i filter_i(x^i), i = 1, 2, ...; minus its mean; scaled down to peak 1 if above.

    Source: Tak et al., "RawBoost", ICASSP 2022 (arXiv 2111.04433), the first of its three noises.

    Args:
        samples: Waveforms of shape (batch, samples).
        responses: Of one notch filter a power, the first for x itself, of shape (batch, powers, bins), as
            `filter_powers` takes them.
        reach: How far the filters reach to either side of a sample, at most.
        mask: 1 where there are samples and 0 where a shorter waveform was padded, of the samples' shape and type; the
            samples are 0 there, and the result is.

    Returns:
        A tensor of the same shape and type, within [-1, 1].
    """
    distorted = filter_powers(samples, responses, reach)
    if mask is None:
        distorted -= distorted.mean(dim=-1, keepdim=True)
    else:
        distorted = distorted * mask
        distorted = distorted - distorted.sum(dim=-1, keepdim=True) / mask.sum(dim=-1, keepdim=True) * mask
    return limit_peak_(distorted)
