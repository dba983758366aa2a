"""The fused mixer compared with the plain one: on a GPU if there is one, otherwise in Triton's interpreter."""

import contextlib
import copy

import pytest
import torch
from torch import nn

from hf_gradalign.models import mamba_kernels, selective_scan
from hf_gradalign.models.head_mamba import MambaHead, MambaMixer

pytest.importorskip("triton")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHAPES = [  # clips, frames, width, states, taps
    (2, 4, 3, 3, 4),
    (1, 1, 4, 3, 2),
    (1, 18, 2, 16, 4),
    (1, 3, 4, 1, 1),
    (1, 3, 18, 2, 3),
]


def two_mixers(shape, dtype):
    """The same mixer twice, and frames for each; some steps are beyond 20, where softplus is the identity."""
    clips, length, size, states, taps = shape
    torch.manual_seed(0)
    mixer = MambaMixer(size, states, taps, expansion=2)
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
        mixer.dt_proj.bias[::3] += 22
        mixer.A_log.clamp_(-3, 1)
    mixer.to(DEVICE, dtype)
    x = torch.randn(clips, length, size).to(DEVICE, dtype)
    return [(copy.deepcopy(mixer), x.clone().requires_grad_()) for _ in range(2)]


def plain(mixer, x):
    """What the mixer computes in plain PyTorch, on any device."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MambaMixer, "_can_be_fused", lambda self, x: False)
        return mixer(x)


@pytest.mark.parametrize(
    ("dtype", "bound", "shape"),
    [
        *((torch.float64, 1e-11, shape) for shape in SHAPES),
        (torch.float32, 1e-4, SHAPES[0]),
        *(pytest.param(torch.float32, 1e-4, shape, marks=pytest.mark.slow) for shape in SHAPES[1:]),
    ],
)
def test_kernels_match_plain_pytorch(shape, dtype, bound):
    (fused, x), (reference, same) = two_mixers(shape, dtype)
    y, expected = fused._fused(x), plain(reference, same)
    torch.testing.assert_close(y, expected, rtol=bound, atol=bound)
    weights = torch.linspace(-1, 1, y.numel(), dtype=dtype, device=DEVICE).view(y.shape)
    (y * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(x.grad, same.grad, rtol=bound, atol=bound)
    for (name, one), other in zip(fused.named_parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(
            one.grad, other.grad, rtol=bound, atol=bound, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients_no_states_are_kept(mode, monkeypatch):
    (fused, x), (reference, same) = two_mixers(SHAPES[0], torch.float64)
    kept, scan = [], mamba_kernels._scan_kernel

    class Watched:
        def __getitem__(self, grid):
            return lambda *arguments, **constants: (
                kept.append((arguments[8].numel(), constants["KEEP"])),
                scan[grid](*arguments, **constants),
            )

    monkeypatch.setattr(mamba_kernels, "_scan_kernel", Watched())
    with mode():
        torch.testing.assert_close(fused._fused(x), plain(reference, same))
    fused._fused(x)
    clips, length, size, states, _ = SHAPES[0]
    assert kept == [(1, False), (clips * (length + 1) * 2 * size * states, True)]


@pytest.mark.parametrize("name", ["_convolution_kernel", "_scan_kernel"])
def test_kernels_run_on_the_device_of_the_frames(name, monkeypatch):
    """Triton would take the current device, which is another one for a model on the second GPU."""
    (fused, x), _ = two_mixers(SHAPES[0], torch.float32)
    kernel, current, launched = getattr(mamba_kernels, name), [], []

    @contextlib.contextmanager
    def device_of(tensor):
        current.append(tensor.device)
        yield
        current.clear()

    class Watched:
        def __getitem__(self, grid):
            launched.extend(current)
            return kernel[grid]

    monkeypatch.setattr(torch.cuda, "device_of", device_of)
    monkeypatch.setattr(mamba_kernels, name, Watched())
    fused._fused(x)
    assert launched == [x.device]


def test_under_autocast_products_are_in_half_precision():
    (fused, x), (reference, same) = two_mixers(SHAPES[0], torch.float32)
    with torch.autocast(DEVICE, torch.bfloat16):
        y, expected = fused._fused(x), plain(reference, same)
    assert y.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), expected.float(), rtol=0.1, atol=0.1)
    y.sum().backward()
    expected.sum().backward()
    assert fused.in_proj.weight.grad.dtype == x.grad.dtype == torch.float32
    torch.testing.assert_close(x.grad, same.grad, rtol=0.2, atol=0.2)


def test_compiled_code_takes_the_answer_and_not_the_test_of_the_device():
    def ask(x):
        return x + 1 if selective_scan.fused_mixer_runs(x.device) else x

    x = torch.zeros(2, device=DEVICE)
    assert torch.equal(torch.compile(ask, backend="eager", fullgraph=True)(x), ask(x))
    torch.compiler.reset()


@pytest.mark.gpu
def test_a_compiled_head_runs_the_kernels_between_its_graphs():
    torch.manual_seed(0)
    head, frames = MambaHead(64, 5, 2).to(DEVICE).eval(), torch.randn(2, 20, 64, device=DEVICE, requires_grad=True)
    expected = head(frames)
    (gradient,) = torch.autograd.grad(expected.sum(), frames)
    y = torch.compile(head)(frames)
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.autograd.grad(y.sum(), frames)[0], gradient, rtol=1e-3, atol=1e-5)
    torch.compiler.reset()


class LowRank(nn.Linear):
    """A layer that does more than its weight says, as an adapter does."""


@pytest.mark.gpu
def test_modules_that_were_changed_are_called():
    mixer, x = MambaMixer(16, 4, 4, 2).to(DEVICE), torch.randn(1, 5, 16, device=DEVICE)
    assert mixer._can_be_fused(x)
    handle = mixer.x_proj.register_forward_hook(lambda module, inputs, output: 2 * output)
    assert not mixer._can_be_fused(x)
    handle.remove()
    assert mixer._can_be_fused(x)
    mixer.out_proj = LowRank(32, 16, bias=False).to(DEVICE)
    assert not mixer._can_be_fused(x)


@pytest.mark.gpu
def test_a_gpu_takes_the_kernels(monkeypatch):
    torch.manual_seed(0)
    head, frames = MambaHead(1024, 25, 2).to(DEVICE).eval(), torch.randn(5, 208, 1024, device=DEVICE)
    with torch.no_grad():
        expected = plain_head(head.double(), frames.double())
        monkeypatch.setattr(selective_scan, "linear_recurrence", None)  # plain PyTorch would need it
        torch.testing.assert_close(head.float()(frames).double(), expected, rtol=1e-4, atol=1e-5)


def plain_head(head, frames):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MambaMixer, "_can_be_fused", lambda self, x: False)
        return head(frames)
