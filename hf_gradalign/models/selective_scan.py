"""Mamba's recurrence in plain PyTorch, in a number of steps that grows with the square root of the length."""

import math

import torch
from torch import Tensor
from torch.nn.functional import pad

try:
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn as _kernel
except ImportError:
    _kernel = None


def selective_scan(u: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    r"""Selective state space model, Gu and Dao (arXiv 2312.00752, section 3 and algorithm 2).

    .. math:: h_t = \exp(\Delta_t A) \odot h_{t-1} + \Delta_t B_t u_t, \qquad y_t = C_t \cdot h_t + D u_t .

    On CUDA mamba_ssm's kernel computes it where that is installed.

    Args:
        u: Input, shape (B, E, T).
        delta: Step sizes, shape (B, E, T), positive.
        a: State matrix, diagonal, shape (E, N), negative.
        b: Shape (B, N, T).
        c: Shape (B, N, T).
        d: Shape (E,).

    Returns:
        Shape (B, E, T).
    """
    if _kernel is not None and u.is_cuda:
        return _kernel(u, delta, a, b, c, d)
    decay = torch.exp(delta.unsqueeze(2) * a.unsqueeze(2))  # (B, E, N, T)
    drive = (delta * u).unsqueeze(2) * b.unsqueeze(1)  # (B, E, N, T)
    states = linear_recurrence(decay, drive)
    return (states * c.unsqueeze(1)).sum(2) + d[:, None] * u


def linear_recurrence(decay: Tensor, drive: Tensor) -> Tensor:
    """h_t = decay_t h_{t-1} + drive_t along the last dimension, from h_0 = 0.

    The sequence is cut into chunks of about the square root of its length. All chunks go forward together from a state
    of zero; then the states at their ends are carried from chunk to chunk. Nothing is divided, so nothing overflows.

    Args:
        decay: Shape (..., T).
        drive: Shape (..., T).

    Returns:
        Shape (..., T).
    """
    length = drive.shape[-1]
    chunk = max(math.isqrt(length), 1)
    missing = -length % chunk
    decay, drive = (pad(x, (0, missing)).unflatten(-1, (-1, chunk)) for x in (decay, drive))  # (..., chunks, chunk)

    state, product = torch.zeros_like(drive[..., 0]), torch.ones_like(decay[..., 0])
    states, products = [], []
    for t in range(chunk):
        state = decay[..., t] * state + drive[..., t]
        product = decay[..., t] * product
        states.append(state)
        products.append(product)
    local, reach = torch.stack(states, -1), torch.stack(products, -1)  # (..., chunks, chunk)

    carry, carries = torch.zeros_like(state[..., 0]), []
    for k in range(local.shape[-2]):
        carries.append(carry)
        carry = reach[..., k, -1] * carry + local[..., k, -1]
    whole = local + reach * torch.stack(carries, -1).unsqueeze(-1)
    return whole.flatten(-2)[..., :length]
