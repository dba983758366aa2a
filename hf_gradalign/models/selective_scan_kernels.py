"""Mamba's recurrence and its gradient on a GPU, a launch each (Triton).

A program takes a few channels of one clip and goes through time, with the states in registers and the next step's
inputs on their way while it computes. The forward pass keeps the states for the backward one. Sums over channels are
taken in a fixed order, so gradients are the same to the bit from run to run.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

try:
    import triton
    import triton.language as tl
except ImportError:  # `selective_scan` computes without it then
    triton = None

_CHANNELS = 4


def _jit(function: Any) -> Any:
    return function if triton is None else triton.jit(function)


@_jit
def _forward_kernel(
    u,  # (B, E, T), any strides, as delta
    delta,
    a,  # (E, N), contiguous
    b,  # (B, N, T), any strides, as c
    c,
    d,  # (E,)
    y,  # (B, T, E), contiguous
    states,  # (B, T, E, N), contiguous
    length,
    channels,
    u_clip,
    u_channel,
    u_time,
    delta_clip,
    delta_channel,
    delta_time,
    b_clip,
    b_state,
    b_time,
    c_clip,
    c_state,
    c_time,
    WIDE: tl.constexpr,
    STATES: tl.constexpr,
    WIDTH: tl.constexpr,  # STATES, rounded up to a power of two
    CHANNELS: tl.constexpr,
    KEEP: tl.constexpr,  # whether to write the states
):
    clip = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    state = tl.arange(0, WIDTH)
    is_channel, is_state = channel < channels, state < STATES
    is_both = is_channel[:, None] & is_state[None, :]
    square = channel[:, None] * STATES + state[None, :]
    u += clip * u_clip + channel * u_channel
    delta += clip * delta_clip + channel * delta_channel
    b += clip * b_clip + state * b_state
    c += clip * c_clip + state * c_state
    y += clip * length * channels + channel
    states += clip * length * channels * STATES + square
    rates = tl.load(a + square, is_both, 0.0).to(WIDE)
    skip = tl.load(d + channel, is_channel, 0.0).to(WIDE)

    h = tl.zeros((CHANNELS, WIDTH), WIDE)
    u_next, delta_next = tl.load(u, is_channel, 0.0), tl.load(delta, is_channel, 0.0)
    b_next, c_next = tl.load(b, is_state, 0.0), tl.load(c, is_state, 0.0)
    for time in range(length):
        u_now, delta_now = u_next.to(WIDE), delta_next.to(WIDE)
        b_now, c_now = b_next.to(WIDE), c_next.to(WIDE)
        later = time + 1 < length
        u_next = tl.load(u + (time + 1) * u_time, is_channel & later, 0.0)
        delta_next = tl.load(delta + (time + 1) * delta_time, is_channel & later, 0.0)
        b_next = tl.load(b + (time + 1) * b_time, is_state & later, 0.0)
        c_next = tl.load(c + (time + 1) * c_time, is_state & later, 0.0)
        h = tl.exp(delta_now[:, None] * rates) * h + (delta_now * u_now)[:, None] * b_now[None, :]
        if KEEP:
            tl.store(states, h, is_both)
            states += channels * STATES
        tl.store(y, tl.sum(h * c_now[None, :], 1) + skip * u_now, is_channel)
        y += channels


@_jit
def _backward_kernel(
    y_gradient,  # (B, E, T), any strides
    u,
    delta,
    a,
    b,
    c,
    d,
    states,
    u_gradient,  # (B, T, E), contiguous, as delta_gradient
    delta_gradient,
    a_gradient,  # (B, E, N), contiguous: to be summed over clips
    b_gradient,  # (blocks of channels, B, T, N), contiguous, as c_gradient: to be summed over blocks
    c_gradient,
    d_gradient,  # (B, E), contiguous: to be summed over clips
    length,
    channels,
    clips,
    y_clip,
    y_channel,
    y_time,
    u_clip,
    u_channel,
    u_time,
    delta_clip,
    delta_channel,
    delta_time,
    b_clip,
    b_state,
    b_time,
    c_clip,
    c_state,
    c_time,
    WIDE: tl.constexpr,
    STATES: tl.constexpr,
    WIDTH: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    clip, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    channel = block * CHANNELS + tl.arange(0, CHANNELS)
    state = tl.arange(0, WIDTH)
    is_channel, is_state = channel < channels, state < STATES
    is_both = is_channel[:, None] & is_state[None, :]
    square = channel[:, None] * STATES + state[None, :]
    last = length - 1
    y_gradient += clip * y_clip + channel * y_channel + last * y_time
    u += clip * u_clip + channel * u_channel + last * u_time
    delta += clip * delta_clip + channel * delta_channel + last * delta_time
    b += clip * b_clip + state * b_state + last * b_time
    c += clip * c_clip + state * c_state + last * c_time
    frame = (clip * length + last) * channels + channel
    states += (clip * length + last) * channels * STATES + square
    parts = ((block * clips + clip) * length + last) * STATES + state
    rates = tl.load(a + square, is_both, 0.0).to(WIDE)
    skip = tl.load(d + channel, is_channel, 0.0).to(WIDE)

    carry = tl.zeros((CHANNELS, WIDTH), WIDE)  # of the state after this one, through its decay
    rates_gradient = tl.zeros((CHANNELS, WIDTH), WIDE)
    skip_gradient = tl.zeros((CHANNELS,), WIDE)
    h = tl.load(states, is_both, 0.0)
    h_next = tl.load(states - channels * STATES, is_both & (length > 1), 0.0)
    y_next, u_next = tl.load(y_gradient, is_channel, 0.0), tl.load(u, is_channel, 0.0)
    delta_next = tl.load(delta, is_channel, 0.0)
    b_next, c_next = tl.load(b, is_state, 0.0), tl.load(c, is_state, 0.0)
    for step in range(length):
        dy, u_now, delta_now = y_next.to(WIDE), u_next.to(WIDE), delta_next.to(WIDE)
        b_now, c_now, h_before = b_next.to(WIDE), c_next.to(WIDE), h_next
        back, earlier = step + 1, step + 1 < length
        y_next = tl.load(y_gradient - back * y_time, is_channel & earlier, 0.0)
        u_next = tl.load(u - back * u_time, is_channel & earlier, 0.0)
        delta_next = tl.load(delta - back * delta_time, is_channel & earlier, 0.0)
        b_next = tl.load(b - back * b_time, is_state & earlier, 0.0)
        c_next = tl.load(c - back * c_time, is_state & earlier, 0.0)
        h_next = tl.load(states - (back + 1) * channels * STATES, is_both & (back + 1 < length), 0.0)

        h_gradient = carry + dy[:, None] * c_now[None, :]
        carry = tl.exp(delta_now[:, None] * rates) * h_gradient
        through_decay = carry * h_before
        from_drive = tl.sum(h_gradient * b_now[None, :], 1)
        tl.store(u_gradient + frame, from_drive * delta_now + skip * dy, is_channel)
        tl.store(delta_gradient + frame, tl.sum(through_decay * rates, 1) + from_drive * u_now, is_channel)
        tl.store(b_gradient + parts, tl.sum(h_gradient * (delta_now * u_now)[:, None], 0), is_state)
        tl.store(c_gradient + parts, tl.sum(h * dy[:, None], 0), is_state)
        rates_gradient += through_decay * delta_now[:, None]
        skip_gradient += dy * u_now
        h = h_before
        frame -= channels
        parts -= STATES
    tl.store(a_gradient + clip * channels * STATES + square, rates_gradient, is_both)
    tl.store(d_gradient + clip * channels + channel, skip_gradient, is_channel)


class SelectiveScan(torch.autograd.Function):
    """`selective_scan` by the kernels; computes in float32, or in float64 where an argument is."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:  # noqa: D102
        a, d = a.contiguous(), d.contiguous()
        clips, channels, length = u.shape
        wide = torch.float64 if torch.float64 in {x.dtype for x in (u, delta, a, b, c, d)} else torch.float32
        keep = any(ctx.needs_input_grad)
        y = torch.empty(clips, length, channels, dtype=wide, device=u.device)
        states = torch.empty((clips, length, channels, a.shape[1]) if keep else 1, dtype=wide, device=u.device)
        if y.numel():
            _forward_kernel[clips, triton.cdiv(channels, _CHANNELS)](
                *(u, delta, a, b, c, d, y, states, length, channels),
                *(stride for x in (u, delta, b, c) for stride in x.stride()),
                **_constants(a, wide),
                KEEP=keep,
                num_warps=1,
            )
        ctx.save_for_backward(u, delta, a, b, c, d, states)
        return y.mT

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, y_gradient: Tensor) -> tuple[Tensor, ...]:  # noqa: D102
        u, delta, a, b, c, d, states = ctx.saved_tensors
        clips, channels, length = u.shape
        blocks = triton.cdiv(channels, _CHANNELS)
        n_states, new = a.shape[1], {"dtype": states.dtype, "device": u.device}
        du, ddelta = torch.empty(2, clips, length, channels, **new).unbind()
        db, dc = torch.empty(2, blocks, clips, length, n_states, **new).unbind()
        da, dd = torch.empty(clips, channels, n_states, **new), torch.empty(clips, channels, **new)
        if du.numel():
            _backward_kernel[clips, blocks](
                *(y_gradient, u, delta, a, b, c, d, states, du, ddelta, da, db, dc, dd, length, channels, clips),
                *(stride for x in (y_gradient, u, delta, b, c) for stride in x.stride()),
                **_constants(a, states.dtype),
                num_warps=1,
            )
        gradients = (du.mT, ddelta.mT, da.sum(0), db.sum(0).mT, dc.sum(0).mT, dd.sum(0))
        return tuple(x.to(of.dtype) for x, of in zip(gradients, (u, delta, a, b, c, d), strict=True))


def _constants(a: Tensor, wide: torch.dtype) -> dict[str, Any]:
    states = a.shape[1]
    return {
        "WIDE": tl.float64 if wide == torch.float64 else tl.float32,
        "STATES": states,
        "WIDTH": triton.next_power_of_2(states),
        "CHANNELS": _CHANNELS,
    }
