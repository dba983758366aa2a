"""Filtering by real frequency responses, block by block."""

import torch
from torch import Tensor

# A transform of four times the filter wastes a quarter of the work on overlap and still fits the processor's cache.
MIN_BLOCK = 2048
# So many blocks are transformed together: memory for long recordings stays bounded.
_BLOCKS_AT_ONCE = 512


def block_length(reach: int) -> int:
    """The length of transform to filter with: a power of two, of which the filter takes a quarter at most.

    Args:
        reach: How far the longest filter reaches to either side of a sample.
    """
    return max(MIN_BLOCK, 1 << (4 * (2 * reach + 1) - 1).bit_length())


def filter_powers(samples: Tensor, responses: Tensor, reach: int) -> Tensor:
    """Filter each power of a waveform with its own filter, and add the results.

    output[n] = sum_k (filter_k * samples**k)[n + 1], k = 1, 2, ...: as in the published code the filters' delay is
    taken out, and one sample more. Before and after the waveform there is silence.

    The sum is formed in the frequency domain, block by block (overlap-save), so that one inverse transform serves all.

    Args:
        samples: Waveforms of shape (batch, samples).
        responses: Real responses of shape (batch, powers, block // 2 + 1), where block is `block_length(reach)`.
        reach: How far the filters reach to either side of a sample, at most.

    Returns:
        A tensor of shape (batch, samples), in the samples' type.
    """
    n_samples = samples.shape[-1]
    block = 2 * (responses.shape[-1] - 1)
    reach = max(reach, 1)
    hop = block - 2 * reach
    n_blocks = -(-n_samples // hop)
    before, after = (samples.new_zeros(len(samples), n) for n in (reach - 1, n_blocks * hop + reach + 1 - n_samples))
    padded = torch.cat([before, samples, after], dim=-1)  # sooner done than by `functional.pad`
    blocks = padded.unfold(-1, block, hop)
    weights = responses.to(samples.dtype).repeat_interleave(2, dim=-1)[:, :, None]  # of real and imaginary parts
    outputs = [_filter_blocks(some, weights)[..., reach : reach + hop] for some in blocks.split(_BLOCKS_AT_ONCE, dim=1)]
    filtered = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)
    return filtered.flatten(1)[:, :n_samples]


def _filter_blocks(blocks: Tensor, weights: Tensor) -> Tensor:
    """Sum the filtered powers of blocks of shape (batch, blocks, block); weights (batch, powers, 1, 2 * bins)."""
    blocks = blocks.contiguous()
    total = torch.view_as_real(torch.fft.rfft(blocks)).flatten(-2) * weights[:, 0]
    powers = blocks
    for power in range(1, weights.shape[1]):  # one after the other, so that all of it stays in the processor's cache
        powers = powers * blocks if power == 1 else powers.mul_(blocks)
        total.addcmul_(torch.view_as_real(torch.fft.rfft(powers)).flatten(-2), weights[:, power])
    return torch.fft.irfft(torch.view_as_complex(total.unflatten(-1, (-1, 2))), blocks.shape[-1])
