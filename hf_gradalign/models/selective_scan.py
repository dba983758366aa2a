"""Mamba's recurrence in plain PyTorch, with a number of steps that grows with the square root of the length.

On a GPU, the mixer uses kernels instead (`mamba_kernels`).
"""

import functools
import math

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.functional import pad, threshold
from transformers.utils import logging

from .mamba_kernels import FusedMixer

try:
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn as _kernel
except ImportError:
    _kernel = None

logger = logging.get_logger(__name__)

# Products of decays become so small that a CPU is a hundred times slower on them.
_TINY = 1e-30


def selective_scan(
    u: Tensor,
    delta: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    d: Tensor,
    gate: Tensor | None = None,
    softplus: bool = False,
) -> Tensor:
    r"""Compute the selective state space model of Gu and Dao (arXiv 2312.00752, section 3 and algorithm 2).

    .. math:: h_t = \exp(\Delta_t A) \odot h_{t-1} + \Delta_t B_t u_t, \qquad y_t = C_t \cdot h_t + D u_t .

    On CUDA it uses the kernel of mamba_ssm if that is installed.

    Args:
        u: Input, shape (B, E, T).
        delta: Step sizes, shape (B, E, T), positive after `softplus`.
        a: State matrix, diagonal, shape (E, N), negative.
        b: Shape (B, N, T).
        c: Shape (B, N, T).
        d: Shape (E,).
        gate: Shape (B, E, T); y is multiplied by its SiLU.
        softplus: Whether to apply softplus to delta.

    Returns:
        Shape (B, E, T).
    """
    if _kernel is not None and u.is_cuda:
        return _kernel(u, delta, a, b, c, d, z=gate, delta_softplus=softplus)
    # Time comes first, so that each step works on contiguous memory.
    u, delta, b, c = (x.permute(2, 0, 1).contiguous() for x in (u, delta, b, c))
    if softplus:  # on contiguous memory: for other strides, torch.compile fails on its gradient
        delta = functional.softplus(delta)
    decay = torch.exp(delta.unsqueeze(3) * a)  # (T, B, E, N)
    drive = (delta * u).unsqueeze(3) * b.unsqueeze(2)  # (T, B, E, N)
    states = linear_recurrence(decay, drive)
    y = (states @ c.unsqueeze(3)).squeeze(3) + d * u  # (T, B, E)
    y = y.permute(1, 2, 0)
    return y if gate is None else y * functional.silu(gate)


@torch.compiler.assume_constant_result  # otherwise torch.compile looks through the cache, and traces the test
def fused_mixer_runs(device: torch.device) -> bool:
    """Return whether Triton can build and run the kernels on a device, tested once on one frame.

    They are not used where mamba_ssm is installed.
    """
    return _kernel is None and _passes_test(device)


@functools.cache
def _passes_test(device: torch.device) -> bool:
    try:
        one, two, three = (torch.ones(1, n, device=device) for n in (1, 2, 3))
        with torch.no_grad():
            FusedMixer.apply(one, two.T, one[None], one[0], three.T, one, one[0], one, one[0], one, 1, False)
    except Exception as error:
        # There are many reasons: Triton is not installed, there is no C compiler, the GPU is too old.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        logger.warning(f"The Mamba head runs on {device} in plain PyTorch, which is slower: {reason}")
        return False
    return True


def linear_recurrence(decay: Tensor, drive: Tensor) -> Tensor:
    """Compute h_t = decay_t h_{t-1} + drive_t along the first dimension, starting from h_0 = 0.

    The sequence is split into chunks of about the square root of its length. All chunks run in parallel from a state of
    zero. Then the states at their ends are carried from chunk to chunk. There is no division, so nothing overflows.

    Args:
        decay: Shape (T, ...), 0 to 1.
        drive: Shape (T, ...).

    Returns:
        Shape (T, ...).
    """
    length = drive.shape[0]
    chunk = max(math.isqrt(length), 1)
    missing = (0,) * (2 * drive.ndim - 1) + (-length % chunk,)
    decay, drive = (pad(x, missing).unflatten(0, (-1, chunk)) for x in (decay, drive))  # (chunks, chunk, ...)

    state, reach = drive[:, 0], decay[:, 0]
    states, reaches = [state], [reach]
    for rate, push in zip(decay.unbind(1)[1:], drive.unbind(1)[1:], strict=True):
        state = torch.addcmul(push, rate, state)
        reach = threshold(rate * reach, _TINY, 0.0)
        states.append(state)
        reaches.append(reach)

    carry, carries = torch.zeros_like(state[0]), []
    for last_reach, last_state in zip(reach.unbind(0), state.unbind(0), strict=True):
        carries.append(carry)
        carry = torch.addcmul(last_state, last_reach, carry)
    before = torch.stack(carries)  # (chunks, ...)
    whole = [torch.addcmul(state, reach, before) for state, reach in zip(states, reaches, strict=True)]
    return torch.stack(whole, 1).flatten(0, 1)[:length]
