"""Mamba's recurrence compared with a plain loop, and its mixer with that of transformers."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck
from transformers import MambaConfig
from transformers.models.mamba.modeling_mamba import MambaMixer as ReferenceMixer

from hf_gradalign.models import selective_scan as module
from hf_gradalign.models.head_mamba import MambaMixer
from hf_gradalign.models.selective_scan import selective_scan


def linear_recurrence(decay, drive):
    """With time last."""
    return module.linear_recurrence(decay.movedim(-1, 0), drive.movedim(-1, 0)).movedim(0, -1)


def loop(decay, drive):
    state, states = torch.zeros_like(drive[..., 0]), []
    for t in range(drive.shape[-1]):
        state = decay[..., t] * state + drive[..., t]
        states.append(state)
    return torch.stack(states, -1)


def sequences(length, seed=0, shape=(2, 3)):
    generator = torch.Generator().manual_seed(seed)
    decay = torch.rand(*shape, length, dtype=torch.float64, generator=generator)
    return decay, torch.randn(*shape, length, dtype=torch.float64, generator=generator)


@given(length=st.integers(1, 300), seed=st.integers(0, 2**16))
def test_is_the_loop_at_any_length(length, seed):
    decay, drive = sequences(length, seed)
    assert torch.allclose(linear_recurrence(decay, drive), loop(decay, drive), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 15, 16, 17, 208, 300])
def test_decay_of_one_is_a_cumulative_sum(length):
    _, drive = sequences(length)
    assert torch.allclose(linear_recurrence(torch.ones_like(drive), drive), drive.cumsum(-1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("tiny", [0.0, 1e-30, 1e-300])
def test_tiny_decays_leave_what_drives(tiny):
    _, drive = sequences(200)
    drive = drive.requires_grad_()
    decay = torch.full_like(drive, tiny).requires_grad_()
    states = linear_recurrence(decay, drive)
    assert torch.equal(states, drive)
    states.sum().backward()
    assert torch.equal(drive.grad, torch.ones_like(drive))
    shifted = torch.cat([torch.zeros_like(drive[..., :1]), drive[..., :-1]], -1)
    assert torch.allclose(decay.grad, shifted)


def test_a_decay_of_zero_forgets_all_before_it():
    decay, drive = sequences(50)
    decay[..., 23] = 0
    states = linear_recurrence(decay, drive)
    assert torch.equal(states[..., 23], drive[..., 23])
    drive[..., :23] += 7
    assert torch.equal(linear_recurrence(decay, drive)[..., 23:], states[..., 23:])


@pytest.mark.parametrize("length", [1, 2, 7, 9, 12])
def test_gradients(length):
    decay, drive = sequences(length, shape=(2,))
    assert gradcheck(linear_recurrence, (decay.requires_grad_(), drive.requires_grad_()))


def test_gradients_where_the_state_is_forgotten_or_kept():
    decay, drive = sequences(7, shape=(1,))
    decay[0, :4] = torch.tensor([1e-30, 0.0, 1.0, 1.0])
    assert gradcheck(linear_recurrence, (decay.requires_grad_(), drive.requires_grad_()))


def test_selective_scan_is_its_formula():
    generator = torch.Generator().manual_seed(0)
    u, b, c = (torch.randn(2, n, 11, dtype=torch.float64, generator=generator) for n in (3, 4, 4))
    delta = torch.rand(2, 3, 11, dtype=torch.float64, generator=generator)
    a = -torch.rand(3, 4, dtype=torch.float64, generator=generator)
    d = torch.randn(3, dtype=torch.float64, generator=generator)
    expected = torch.empty_like(u)
    for i in range(2):
        for e in range(3):
            h = torch.zeros(4, dtype=torch.float64)
            for t in range(11):
                h = torch.exp(delta[i, e, t] * a[e]) * h + delta[i, e, t] * b[i, :, t] * u[i, e, t]
                expected[i, e, t] = c[i, :, t] @ h + d[e] * u[i, e, t]
    assert torch.allclose(selective_scan(u, delta, a, b, c, d), expected)


@pytest.mark.parametrize(("size", "length"), [(32, 1), (32, 3), (24, 40), (16, 64)])
def test_mixer_matches_transformers(size, length):
    """Including the names of weights: the state dict of transformers can be loaded."""
    config = MambaConfig(hidden_size=size, state_size=16, conv_kernel=4, expand=2, num_hidden_layers=1)
    assert config.time_step_rank == math.ceil(size / 16)
    torch.manual_seed(0)
    reference = ReferenceMixer(config, layer_idx=0).eval()
    for parameter in reference.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    mixer = MambaMixer(size, state_size=16, kernel_size=4, expansion=2).eval()
    mixer.load_state_dict(reference.state_dict())
    x = torch.randn(3, length, size)
    ours, theirs = mixer(x), reference(x)
    assert torch.allclose(ours, theirs, atol=1e-5)
    weight = torch.randn_like(ours)
    for output in (ours, theirs):
        (output * weight).sum().backward()
    expected = dict(reference.named_parameters())
    for name, parameter in mixer.named_parameters():
        assert torch.allclose(parameter.grad, expected[name].grad, rtol=1e-3, atol=1e-4), name


def test_a_new_mixer_starts_as_published():
    mixer = MambaMixer(32, state_size=8, kernel_size=4, expansion=2)
    assert torch.allclose(mixer.A_log.exp(), torch.arange(1.0, 9).expand(64, -1))
    steps = torch.nn.functional.softplus(mixer.dt_proj.bias)
    assert 0.001 <= steps.min() < 0.01 < steps.max() <= 0.1
    assert torch.equal(mixer.D, torch.ones(64))
