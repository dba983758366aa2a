import math

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor

from hf_gradalign.augmentation.bulk_seed import BulkSeed
from hf_gradalign.augmentation.zero_phase_filtering import filter_powers

# So many quantiles fit the processor's innermost cache, and leave what is in the outer ones there.
_BITS = 12
_QUANTILES = ndtri((np.arange(2**_BITS) + 0.5) / 2**_BITS)
_QUANTILES = (_QUANTILES / _QUANTILES.std()).astype(np.float32)


def add_stationary_noise(
    samples: Tensor, white: Tensor, response: Tensor, snr_db: Tensor, reach: int, mask: Tensor | None = None
) -> Tensor:
    """Stationary, signal-independent noise: add white noise through a notch filter at a signal-to-noise ratio.

    The published code scales the filtered noise to peak 1 before it scales it to the ratio; that, like the filter's
    gain, cancels. The result is not limited: its peak may be above 1.

    Source: Tak et al., "RawBoost", ICASSP 2022 (arXiv 2111.04433), the third of its three noises.

    Args:
        samples: Waveforms of shape (batch, samples).
        white: White noise of that shape, from `draw_white_noise`.
        response: Of the filters that colour the noise, of shape (batch, 1, bins), as `filter_powers` takes them.
        snr_db: Ratios of the energies of signal and noise, in dB, of shape (batch,).
        reach: How far the filters reach to either side of a sample, at most.
        mask: 1 where there are samples and 0 where a shorter waveform was padded, of the samples' shape and type; the
            samples and the white noise are 0 there, and the result is.

    Returns:
        A tensor of the same shape and type.
    """
    noise = filter_powers(white, response, reach)
    if mask is not None:
        noise = noise * mask
    signal_norm, noise_norm = (torch.linalg.vector_norm(x, dim=-1, keepdim=True) for x in (samples, noise))
    ratio = torch.exp(snr_db.to(samples.dtype) * (math.log(10) / 20))[:, None]
    # Nothing is left of a single sample of noise when the one tap there is has been skipped as delay.
    levels = torch.where(noise_norm > 0, signal_norm / noise_norm / ratio, 0.0)
    return torch.addcmul(samples, levels, noise)


def draw_white_noise(n_samples: int, seed: int) -> Tensor:
    """Draw float32 white Gaussian noise of unit variance and shape (samples,), from a private generator.

    A sample is one of 4,096 quantiles of the normal distribution, the largest 3.67: random bits and a table, which take
    half the time of exact normal deviates and are as good for noise that a filter mixes.
    """
    words = np.random.SFC64(BulkSeed(seed)).random_raw(-(-n_samples // 4))
    return torch.from_numpy(_QUANTILES.take(words.view(np.uint16)[:n_samples] >> (16 - _BITS)))
