"""A whole Mamba mixer on a GPU as one function, so that launching its kernels does not take longer than running them.

Two steps have Triton kernels: the causal convolution with its activation, and the selective scan with its gate. The
rest are matrix products. All tensors are rows of frames, (B T, width), as the linear layers leave them. A program of
the scan handles a few channels of one clip and steps through time. It keeps the states in registers and loads the
inputs of the next step while it computes. The forward pass stores the states for the backward pass. Sums over clips,
frames and channels have a fixed order, so gradients are the same to the bit from run to run.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

try:
    import triton
    import triton.language as tl
except ImportError:  # the mixer works without it
    triton: Any = None

_CHANNELS = 4
_ROWS, _COLUMNS = 16, 32


def _jit(function: Any) -> Any:
    return function if triton is None else triton.jit(function)


@_jit
def _softplus(x):
    return tl.where(x > 20, x, tl.log(1 + tl.exp(tl.minimum(x, 20.0))))  # as in torch, the identity above 20


@_jit
def _convolve(
    x, weight, bias, time, channel, length, is_channel, X_ROW: tl.constexpr, TAPS: tl.constexpr, WIDE: tl.constexpr
):
    """The convolution at frames `time` (R, 1) of a clip that starts at `x`, before the activation, (R, C)."""
    total = tl.zeros_like(time + channel).to(WIDE) + tl.load(bias + channel, is_channel, 0.0).to(WIDE)
    for tap in tl.static_range(TAPS):
        before = time + (tap - TAPS + 1)
        known = is_channel & (before >= 0) & (before < length)
        frames = tl.load(x + before * X_ROW + channel, known, 0.0).to(WIDE)
        total += tl.load(weight + channel * TAPS + tap, is_channel, 0.0).to(WIDE) * frames
    return total


@_jit
def _convolution_kernel(
    x,  # (B T, X_ROW): its first `channels` columns
    weight,  # (E, TAPS)
    bias,  # (E,)
    u,  # (B T, E): the result
    length,
    channels,
    X_ROW: tl.constexpr,
    TAPS: tl.constexpr,
    WIDE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    clip = tl.program_id(0).to(tl.int64)
    time = (tl.program_id(1) * ROWS + tl.arange(0, ROWS))[:, None]
    channel = (tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS))[None, :]
    is_channel = channel < channels
    total = _convolve(x + clip * length * X_ROW, weight, bias, time, channel, length, is_channel, X_ROW, TAPS, WIDE)
    u += clip * length * channels
    tl.store(u + time * channels + channel, total / (1 + tl.exp(-total)), is_channel & (time < length))


@_jit
def _convolution_backward_kernel(
    u_gradient,  # (B T, E)
    x,
    weight,
    bias,
    x_gradient,  # (B T, X_ROW): its first `channels` columns
    parts,  # (programs of a channel, E TAPS + E): sums of a program for the weight and the bias
    length,
    channels,
    X_ROW: tl.constexpr,
    TAPS: tl.constexpr,
    WIDE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    clip = tl.program_id(0).to(tl.int64)
    time = (tl.program_id(1) * ROWS + tl.arange(0, ROWS))[:, None]
    channel = (tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS))[None, :]
    is_channel = channel < channels
    x += clip * length * X_ROW
    u_gradient += clip * length * channels
    parts += (clip * tl.num_programs(1) + tl.program_id(1)) * channels * (TAPS + 1)

    dx = tl.zeros_like(time + channel).to(WIDE)
    for ahead in tl.static_range(TAPS):  # a frame affects itself and the next TAPS - 1
        total = _convolve(x, weight, bias, time + ahead, channel, length, is_channel, X_ROW, TAPS, WIDE)
        share = 1 / (1 + tl.exp(-total))
        known = is_channel & (time + ahead < length)
        du = tl.load(u_gradient + (time + ahead) * channels + channel, known, 0.0).to(WIDE)
        gradient = tl.where(known, du * share * (1 + total * (1 - share)), 0.0)  # before the activation
        dx += gradient * tl.load(weight + channel * TAPS + (TAPS - 1 - ahead), is_channel, 0.0).to(WIDE)
        if ahead == 0:
            for tap in tl.static_range(TAPS):
                before = time + (tap - TAPS + 1)
                inside = is_channel & (before >= 0) & (before < length)
                frames = tl.load(x + before * X_ROW + channel, inside, 0.0).to(WIDE)
                tl.store(parts + channel * TAPS + tap, tl.sum(gradient * frames, 0)[None, :], is_channel)
            tl.store(parts + channels * TAPS + channel, tl.sum(gradient, 0)[None, :], is_channel)
    tl.store(x_gradient + clip * length * X_ROW + time * X_ROW + channel, dx, is_channel & (time < length))


@_jit
def _scan_kernel(
    u,  # (B T, E)
    delta,  # (B T, E), before its bias and softplus
    delta_bias,  # (E,)
    a_log,  # (E, N): log(-A)
    projected,  # (B T, RANK + 2 N): B and C are the last 2 N columns
    d,  # (E,)
    gate,  # (B T, 2 E): the last E columns
    y,  # (B T, E): the result
    states,  # (B, T + 1, E, N): before the first frame and after each
    length,
    channels,
    RANK: tl.constexpr,
    STATES: tl.constexpr,
    WIDTH: tl.constexpr,  # STATES, rounded up to a power of two
    CHANNELS: tl.constexpr,
    WIDE: tl.constexpr,
    KEEP: tl.constexpr,  # whether to write the states
):
    clip = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    state = tl.arange(0, WIDTH)
    is_channel, is_state = channel < channels, state < STATES
    is_both = is_channel[:, None] & is_state[None, :]
    square = channel[:, None] * STATES + state[None, :]
    frame = clip * length
    u += frame * channels + channel
    delta += frame * channels + channel
    y += frame * channels + channel
    gate += frame * 2 * channels + channels + channel
    b = projected + frame * (RANK + 2 * STATES) + RANK + state
    c = b + STATES
    states += clip * (length + 1) * channels * STATES + square
    rates = -tl.exp(tl.load(a_log + square, is_both, 0.0).to(WIDE))
    skip = tl.load(d + channel, is_channel, 0.0).to(WIDE)
    offset = tl.load(delta_bias + channel, is_channel, 0.0).to(WIDE)

    h = tl.zeros((CHANNELS, WIDTH), WIDE)
    if KEEP:
        tl.store(states, h, is_both)
    u_next, delta_next, gate_next = (
        tl.load(u, is_channel, 0.0),
        tl.load(delta, is_channel, 0.0),
        tl.load(gate, is_channel, 0.0),
    )
    b_next, c_next = tl.load(b, is_state, 0.0), tl.load(c, is_state, 0.0)
    for time in range(length):
        u_now, delta_now = u_next.to(WIDE), _softplus(delta_next.to(WIDE) + offset)
        gate_now, b_now, c_now = gate_next.to(WIDE), b_next.to(WIDE), c_next.to(WIDE)
        ahead = time + 1 if time + 1 < length else time
        u_next = tl.load(u + ahead * channels, is_channel, 0.0)
        delta_next = tl.load(delta + ahead * channels, is_channel, 0.0)
        gate_next = tl.load(gate + ahead * 2 * channels, is_channel, 0.0)
        b_next = tl.load(b + ahead * (RANK + 2 * STATES), is_state, 0.0)
        c_next = tl.load(c + ahead * (RANK + 2 * STATES), is_state, 0.0)
        h = tl.exp(delta_now[:, None] * rates) * h + (delta_now * u_now)[:, None] * b_now[None, :]
        if KEEP:
            states += channels * STATES
            tl.store(states, h, is_both)
        y_now = tl.sum(h * c_now[None, :], 1) + skip * u_now
        tl.store(y, y_now * gate_now / (1 + tl.exp(-gate_now)), is_channel)
        y += channels


@_jit
def _scan_backward_kernel(
    y_gradient,  # (B T, E)
    u,
    delta,
    delta_bias,
    a_log,
    projected,
    d,
    gate,
    states,
    u_gradient,  # (B T, E)
    delta_gradient,  # (B T, E)
    gate_gradient,  # (B T, 2 E): the last E columns
    by_block,  # (blocks of channels, B T, 2 N): gradients of B and C
    by_clip,  # (B, E N + 2 E): gradients of the logarithm of -A, of D and of the bias of delta
    length,
    channels,
    clips,
    RANK: tl.constexpr,
    STATES: tl.constexpr,
    WIDTH: tl.constexpr,
    CHANNELS: tl.constexpr,
    WIDE: tl.constexpr,
):
    clip, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    channel = block * CHANNELS + tl.arange(0, CHANNELS)
    state = tl.arange(0, WIDTH)
    is_channel, is_state = channel < channels, state < STATES
    is_both = is_channel[:, None] & is_state[None, :]
    square = channel[:, None] * STATES + state[None, :]
    last = length - 1
    frame = clip * length + last
    place = frame * channels + channel
    y_gradient += place
    u += place
    delta += place
    gate += frame * 2 * channels + channels + channel
    gate_gradient += frame * 2 * channels + channels + channel
    b = projected + frame * (RANK + 2 * STATES) + RANK + state
    c = b + STATES
    states += (clip * (length + 1) + last) * channels * STATES + square  # before the last frame
    part = by_block + ((block * clips + clip) * length + last) * 2 * STATES + state
    rates = -tl.exp(tl.load(a_log + square, is_both, 0.0).to(WIDE))
    skip = tl.load(d + channel, is_channel, 0.0).to(WIDE)
    offset = tl.load(delta_bias + channel, is_channel, 0.0).to(WIDE)

    carry = tl.zeros((CHANNELS, WIDTH), WIDE)  # gradient of the next state, through its decay
    rates_gradient = tl.zeros((CHANNELS, WIDTH), WIDE)
    skip_gradient = tl.zeros((CHANNELS,), WIDE)
    offset_gradient = tl.zeros((CHANNELS,), WIDE)
    h = tl.load(states + channels * STATES, is_both, 0.0)
    h_next = tl.load(states, is_both, 0.0)
    y_next, u_next = tl.load(y_gradient, is_channel, 0.0), tl.load(u, is_channel, 0.0)
    delta_next, gate_next = tl.load(delta, is_channel, 0.0), tl.load(gate, is_channel, 0.0)
    b_next, c_next = tl.load(b, is_state, 0.0), tl.load(c, is_state, 0.0)
    for step in range(length):
        dy, u_now, gate_now = y_next.to(WIDE), u_next.to(WIDE), gate_next.to(WIDE)
        raw = delta_next.to(WIDE) + offset
        b_now, c_now, h_before = b_next.to(WIDE), c_next.to(WIDE), h_next
        delta_now = _softplus(raw)
        back = step + 1 if step + 1 < length else step
        y_next = tl.load(y_gradient - back * channels, is_channel, 0.0)
        u_next = tl.load(u - back * channels, is_channel, 0.0)
        delta_next = tl.load(delta - back * channels, is_channel, 0.0)
        gate_next = tl.load(gate - back * 2 * channels, is_channel, 0.0)
        b_next = tl.load(b - back * (RANK + 2 * STATES), is_state, 0.0)
        c_next = tl.load(c - back * (RANK + 2 * STATES), is_state, 0.0)
        h_next = tl.load(states - back * channels * STATES, is_both, 0.0)

        share = 1 / (1 + tl.exp(-gate_now))
        y_now = tl.sum(h * c_now[None, :], 1) + skip * u_now
        tl.store(gate_gradient - step * 2 * channels, dy * y_now * share * (1 + gate_now * (1 - share)), is_channel)
        dy *= gate_now * share
        h_gradient = carry + dy[:, None] * c_now[None, :]
        carry = tl.exp(delta_now[:, None] * rates) * h_gradient
        through_decay = carry * h_before
        from_drive = tl.sum(h_gradient * b_now[None, :], 1)
        tl.store(u_gradient + place, from_drive * delta_now + skip * dy, is_channel)
        ddelta = tl.sum(through_decay * rates, 1) + from_drive * u_now
        ddelta *= tl.where(raw > 20, 1.0, 1 / (1 + tl.exp(-raw)))
        tl.store(delta_gradient + place, ddelta, is_channel)
        tl.store(part, tl.sum(h_gradient * (delta_now * u_now)[:, None], 0), is_state)
        tl.store(part + STATES, tl.sum(h * dy[:, None], 0), is_state)
        rates_gradient += through_decay * delta_now[:, None]
        skip_gradient += dy * u_now
        offset_gradient += ddelta
        h = h_before
        place -= channels
        part -= 2 * STATES
    by_clip += clip * channels * (STATES + 2)
    tl.store(by_clip + square, rates_gradient * rates, is_both)
    tl.store(by_clip + channels * STATES + channel, skip_gradient, is_channel)
    tl.store(by_clip + channels * (STATES + 1) + channel, offset_gradient, is_channel)


class FusedMixer(torch.autograd.Function):
    """Computes the same as `MambaMixer.forward`, on frames in rows.

    Arguments after the frames (B T, E0) are the weights of the mixer's modules, the number of clips B, and whether a
    backward pass follows: the function cannot see from autograd that gradients are off, and the states are N times as
    large as the frames. Frames and the weights of linear layers must have the same type. Convolution and scan compute
    in float32, or in float64 for frames of that type.
    """

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any,
        frames: Tensor,
        in_weight: Tensor,
        conv_weight: Tensor,
        conv_bias: Tensor,
        x_weight: Tensor,
        dt_weight: Tensor,
        dt_bias: Tensor,
        a_log: Tensor,
        d: Tensor,
        out_weight: Tensor,
        clips: int,
        keep: bool,
    ) -> Tensor:
        (channels, rank), n_states, length = dt_weight.shape, a_log.shape[1], len(frames) // clips
        wide = torch.float64 if frames.dtype == torch.float64 else torch.float32
        plan = _plan(clips, length, channels, n_states, rank, conv_weight.shape[-1], wide)
        # Triton launches on the current device, not on that of the tensors. In the backward pass, autograd sets it.
        with torch.cuda.device_of(frames):
            both = frames @ in_weight.T  # (B T, 2 E): the input of the convolution, and the gate
            u, y = both.new_empty(2, len(frames), channels).unbind()
            _convolution_kernel[plan.tiles](both, conv_weight, conv_bias, u, length, channels, **plan.convolution)
            projected = u @ x_weight.T  # (B T, rank + 2 N)
            delta = projected[:, :rank] @ dt_weight.T
            states = both.new_empty((clips, length + 1, channels, n_states) if keep else 1, dtype=wide)
            _scan_kernel[clips, plan.blocks](
                u, delta, dt_bias, a_log, projected, d, both, y, states, length, channels, **plan.scan, KEEP=keep
            )
        ctx.save_for_backward(
            *(frames, in_weight, conv_weight, conv_bias, x_weight, dt_weight, dt_bias, a_log, d, out_weight),
            *(both, u, projected, delta, y, states),
        )
        ctx.plan = plan
        return y @ out_weight.T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102
        (frames, in_weight, conv_weight, conv_bias, x_weight, dt_weight, dt_bias, a_log, d, out_weight, *kept) = (
            ctx.saved_tensors
        )
        both, u, projected, delta, y, states = kept
        plan, clips, length = ctx.plan, len(states), states.shape[1] - 1
        (channels, rank), n_states, taps = dt_weight.shape, a_log.shape[1], conv_weight.shape[-1]
        dy = gradient @ out_weight
        du, ddelta = u.new_empty(2, *u.shape).unbind()
        dboth = torch.empty_like(both)
        by_block = states.new_empty(plan.blocks, len(frames), 2 * n_states)
        by_clip = states.new_empty(clips, channels * (n_states + 2))
        _scan_backward_kernel[clips, plan.blocks](
            *(dy, u, delta, dt_bias, a_log, projected, d, both, states),
            *(du, ddelta, dboth, by_block, by_clip, length, channels, clips),
            **plan.scan,
        )
        da_log, dd, ddt_bias = by_clip.sum(0).split([channels * n_states, channels, channels])
        dprojected = torch.cat([ddelta @ dt_weight, by_block.sum(0).to(u.dtype)], 1)
        du.addmm_(dprojected, x_weight)
        parts = states.new_empty(plan.tiles[0] * plan.tiles[1], channels * (taps + 1))
        _convolution_backward_kernel[plan.tiles](
            du, both, conv_weight, conv_bias, dboth, parts, length, channels, **plan.convolution
        )
        dconv_weight, dconv_bias = parts.sum(0).split([channels * taps, channels])
        return (
            dboth @ in_weight,
            dboth.T @ frames,
            dconv_weight.view(conv_weight.shape),
            dconv_bias,
            dprojected.T @ u,
            ddelta.T @ projected[:, :rank],
            ddt_bias,
            da_log.view(a_log.shape),
            dd,
            gradient.T @ y,
            None,
            None,
        )


@dataclass(frozen=True)
class _Plan:
    """How the kernels are launched for frames of one size: grids and constants."""

    blocks: int
    tiles: tuple[int, int, int]
    convolution: dict[str, Any]
    scan: dict[str, Any]


@functools.lru_cache(maxsize=64)
def _plan(clips: int, length: int, channels: int, n_states: int, rank: int, taps: int, wide: torch.dtype) -> _Plan:
    """Cached, because triton.cdiv alone takes the host as long as a launch."""
    kind = tl.float64 if wide == torch.float64 else tl.float32
    width = triton.next_power_of_2(n_states)
    return _Plan(
        blocks=triton.cdiv(channels, _CHANNELS),
        tiles=(clips, triton.cdiv(length, _ROWS), triton.cdiv(channels, _COLUMNS)),
        convolution={"X_ROW": 2 * channels, "TAPS": taps, "WIDE": kind, "ROWS": _ROWS, "COLUMNS": _COLUMNS},
        scan={"RANK": rank, "STATES": n_states, "WIDTH": width, "CHANNELS": _CHANNELS, "WIDE": kind, "num_warps": 1},
    )
