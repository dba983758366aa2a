"""Mamba's recurrence and its gradient on a GPU, one Triton launch each.

A program handles a few channels of one clip and steps through time. It keeps the states in registers and loads the
inputs of the next step while it computes. The forward pass stores the states for the backward pass. Sums over channels
have a fixed order, so gradients are the same to the bit from run to run.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

try:
    import triton
    import triton.language as tl
except ImportError:  # `selective_scan` works without it
    triton: Any = None

_CHANNELS = 4


def _jit(function: Any) -> Any:
    return function if triton is None else triton.jit(function)


@_jit
def _softplus(x):
    return tl.where(x > 20, x, tl.log(1 + tl.exp(tl.minimum(x, 20.0))))  # as in torch, the identity above 20


@_jit
def _forward_kernel(
    u,  # (B, E, T), any strides, as delta
    delta,
    a,  # (E, N), contiguous
    b,  # (B, N, T), any strides, as c
    c,
    d,  # (E,)
    gate,  # (B, E, T), any strides
    y,  # (B, T, E), contiguous
    states,  # (B, T + 1, E, N), contiguous: before the first frame and after each
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
    gate_clip,
    gate_channel,
    gate_time,
    WIDE: tl.constexpr,
    STATES: tl.constexpr,
    WIDTH: tl.constexpr,  # STATES, rounded up to a power of two
    CHANNELS: tl.constexpr,
    SOFTPLUS: tl.constexpr,  # whether to apply it to delta
    GATED: tl.constexpr,  # whether there is a gate; otherwise u is passed and not read
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
    gate += clip * gate_clip + channel * gate_channel
    y += clip * length * channels + channel
    states += (clip * (length + 1) + 1) * channels * STATES + square
    rates = tl.load(a + square, is_both, 0.0).to(WIDE)
    skip = tl.load(d + channel, is_channel, 0.0).to(WIDE)

    h = tl.zeros((CHANNELS, WIDTH), WIDE)
    u_next, delta_next = tl.load(u, is_channel, 0.0), tl.load(delta, is_channel, 0.0)
    b_next, c_next = tl.load(b, is_state, 0.0), tl.load(c, is_state, 0.0)
    for time in range(length):
        u_now, delta_now = u_next.to(WIDE), delta_next.to(WIDE)
        if SOFTPLUS:
            delta_now = _softplus(delta_now)
        b_now, c_now = b_next.to(WIDE), c_next.to(WIDE)
        ahead = time + 1 if time + 1 < length else time
        u_next = tl.load(u + ahead * u_time, is_channel, 0.0)
        delta_next = tl.load(delta + ahead * delta_time, is_channel, 0.0)
        b_next = tl.load(b + ahead * b_time, is_state, 0.0)
        c_next = tl.load(c + ahead * c_time, is_state, 0.0)
        h = tl.exp(delta_now[:, None] * rates) * h + (delta_now * u_now)[:, None] * b_now[None, :]
        if KEEP:
            tl.store(states, h, is_both)
            states += channels * STATES
        y_now = tl.sum(h * c_now[None, :], 1) + skip * u_now
        if GATED:
            gate_now = tl.load(gate + time * gate_time, is_channel, 0.0).to(WIDE)
            y_now *= gate_now / (1 + tl.exp(-gate_now))
        tl.store(y, y_now, is_channel)
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
    gate,
    states,
    u_gradient,  # (B, T, E), contiguous, as delta_gradient and gate_gradient
    delta_gradient,
    gate_gradient,
    channel_gradients,  # (B, E, N + 1), contiguous: of a, then of d; to be summed over clips
    b_gradient,  # (blocks of channels, B, T, N), contiguous, as c_gradient: to be summed over blocks
    c_gradient,
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
    gate_clip,
    gate_channel,
    gate_time,
    WIDE: tl.constexpr,
    STATES: tl.constexpr,
    WIDTH: tl.constexpr,
    CHANNELS: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    GATED: tl.constexpr,
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
    gate += clip * gate_clip + channel * gate_channel + last * gate_time
    frame = (clip * length + last) * channels + channel
    states += (clip * (length + 1) + last) * channels * STATES + square  # before the last frame
    parts = ((block * clips + clip) * length + last) * STATES + state
    rates = tl.load(a + square, is_both, 0.0).to(WIDE)
    skip = tl.load(d + channel, is_channel, 0.0).to(WIDE)

    carry = tl.zeros((CHANNELS, WIDTH), WIDE)  # gradient of the next state, through its decay
    rates_gradient = tl.zeros((CHANNELS, WIDTH), WIDE)
    skip_gradient = tl.zeros((CHANNELS,), WIDE)
    h = tl.load(states + channels * STATES, is_both, 0.0)
    h_next = tl.load(states, is_both, 0.0)
    y_next, u_next = tl.load(y_gradient, is_channel, 0.0), tl.load(u, is_channel, 0.0)
    delta_next = tl.load(delta, is_channel, 0.0)
    b_next, c_next = tl.load(b, is_state, 0.0), tl.load(c, is_state, 0.0)
    for step in range(length):
        dy, u_now, raw = y_next.to(WIDE), u_next.to(WIDE), delta_next.to(WIDE)
        b_now, c_now, h_before = b_next.to(WIDE), c_next.to(WIDE), h_next
        delta_now = _softplus(raw) if SOFTPLUS else raw
        back = step + 1 if step + 1 < length else step
        y_next = tl.load(y_gradient - back * y_time, is_channel, 0.0)
        u_next = tl.load(u - back * u_time, is_channel, 0.0)
        delta_next = tl.load(delta - back * delta_time, is_channel, 0.0)
        b_next = tl.load(b - back * b_time, is_state, 0.0)
        c_next = tl.load(c - back * c_time, is_state, 0.0)
        h_next = tl.load(states - back * channels * STATES, is_both, 0.0)

        if GATED:
            gate_now = tl.load(gate - step * gate_time, is_channel, 0.0).to(WIDE)
            share = 1 / (1 + tl.exp(-gate_now))
            y_now = tl.sum(h * c_now[None, :], 1) + skip * u_now
            tl.store(gate_gradient + frame, dy * y_now * share * (1 + gate_now * (1 - share)), is_channel)
            dy *= gate_now * share
        h_gradient = carry + dy[:, None] * c_now[None, :]
        carry = tl.exp(delta_now[:, None] * rates) * h_gradient
        through_decay = carry * h_before
        from_drive = tl.sum(h_gradient * b_now[None, :], 1)
        tl.store(u_gradient + frame, from_drive * delta_now + skip * dy, is_channel)
        ddelta = tl.sum(through_decay * rates, 1) + from_drive * u_now
        if SOFTPLUS:
            ddelta *= tl.where(raw > 20, 1.0, 1 / (1 + tl.exp(-raw)))
        tl.store(delta_gradient + frame, ddelta, is_channel)
        tl.store(b_gradient + parts, tl.sum(h_gradient * (delta_now * u_now)[:, None], 0), is_state)
        tl.store(c_gradient + parts, tl.sum(h * dy[:, None], 0), is_state)
        rates_gradient += through_decay * delta_now[:, None]
        skip_gradient += dy * u_now
        h = h_before
        frame -= channels
        parts -= STATES
    channel_gradients += (clip * channels + channel) * (STATES + 1)
    tl.store(channel_gradients[:, None] + state[None, :], rates_gradient, is_both)
    tl.store(channel_gradients + STATES, skip_gradient, is_channel)


class SelectiveScan(torch.autograd.Function):
    """`selective_scan` with kernels, in float32, or in float64 if an argument has that type."""

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any,
        u: Tensor,
        delta: Tensor,
        a: Tensor,
        b: Tensor,
        c: Tensor,
        d: Tensor,
        gate: Tensor | None = None,
        softplus: bool = False,
    ) -> Tensor:
        a, d = a.contiguous(), d.contiguous()
        clips, channels, length = u.shape
        wide = torch.float64 if torch.float64 in {x.dtype for x in (u, delta, a, b, c, d)} else torch.float32
        keep = any(ctx.needs_input_grad)
        y = torch.empty(clips, length, channels, dtype=wide, device=u.device)
        states = torch.empty((clips, length + 1, channels, a.shape[1]) if keep else 1, dtype=wide, device=u.device)
        if keep:
            states[:, 0].zero_()
        z = u if gate is None else gate
        if y.numel():
            _forward_kernel[clips, triton.cdiv(channels, _CHANNELS)](
                *(u, delta, a, b, c, d, z, y, states, length, channels),
                *(stride for x in (u, delta, b, c, z) for stride in x.stride()),
                **_constants(a, wide, gate, softplus),
                KEEP=keep,
                num_warps=1,
            )
        ctx.save_for_backward(u, delta, a, b, c, d, gate, states)
        ctx.softplus = softplus
        return y.mT

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, y_gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102
        u, delta, a, b, c, d, gate, states = ctx.saved_tensors
        clips, channels, length = u.shape
        blocks = triton.cdiv(channels, _CHANNELS)
        n_states, new = a.shape[1], {"dtype": states.dtype, "device": u.device}
        du, ddelta, dgate = torch.empty(3, clips, length, channels, **new).unbind()
        both = torch.empty(2, blocks, clips, length, n_states, **new)
        by_channel = torch.empty(clips, channels, n_states + 1, **new)
        z = u if gate is None else gate
        if du.numel():
            _backward_kernel[clips, blocks](
                *(y_gradient, u, delta, a, b, c, d, z, states, du, ddelta, dgate, by_channel, *both.unbind()),
                *(length, channels, clips),
                *(stride for x in (y_gradient, u, delta, b, c, z) for stride in x.stride()),
                **_constants(a, states.dtype, gate, ctx.softplus),
                num_warps=1,
            )
        db, dc = both.sum(1).unbind()
        by_channel = by_channel.sum(0)
        gradients = (du.mT, ddelta.mT, by_channel[:, :-1], db.mT, dc.mT, by_channel[:, -1], dgate.mT)
        arguments = (u, delta, a, b, c, d, gate)
        return *(None if of is None else x.to(of.dtype) for x, of in zip(gradients, arguments, strict=True)), None


def _constants(a: Tensor, wide: torch.dtype, gate: Tensor | None, softplus: bool) -> dict[str, Any]:
    states = a.shape[1]
    return {
        "WIDE": tl.float64 if wide == torch.float64 else tl.float32,
        "STATES": states,
        "WIDTH": triton.next_power_of_2(states),
        "CHANNELS": _CHANNELS,
        "SOFTPLUS": softplus,
        "GATED": gate is not None,
    }
