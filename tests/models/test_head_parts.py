"""Padding in heads, compared with each clip alone."""

import pytest
import torch

from hf_gradalign.models.head_parts import hide, mask_of_lengths, masked_max, masked_mean, silence

LENGTHS = [5, 1, 3]
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 0, 0, 0, 0], [1, 1, 1, 0, 0]]).bool()


@pytest.fixture
def frames():
    """Three clips of 5, 1 and 3 frames of width 4, with padding far from zero."""
    x = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))
    return torch.where(MASK[:, :, None], x, 1e4)


def alone(x, function):
    return torch.stack([function(clip[:length]) for clip, length in zip(x, LENGTHS, strict=True)])


def test_mask_of_lengths():
    assert torch.equal(mask_of_lengths(torch.tensor(LENGTHS), 5), MASK)
    assert not mask_of_lengths(torch.tensor([0]), 5).any()


def test_mean_and_maximum_ignore_padding(frames):
    assert torch.allclose(masked_mean(frames, MASK), alone(frames, lambda clip: clip.mean(0)), atol=1e-6)
    assert torch.equal(masked_max(frames, MASK), alone(frames, lambda clip: clip.amax(0)))
    assert torch.equal(masked_max(-frames, MASK), alone(-frames, lambda clip: clip.amax(0)))


def test_softmax_of_hidden_scores_ignores_padding(frames):
    weights = hide(frames, MASK).softmax(1)
    for clip, row, length in zip(frames, weights, LENGTHS, strict=True):
        assert torch.allclose(row[:length], clip[:length].softmax(0))
        assert (row[length:] == 0).all()


def test_silence_keeps_the_frames_and_clears_the_padding(frames):
    quiet = silence(frames, MASK)
    assert torch.equal(quiet[MASK], frames[MASK])
    assert (quiet[~MASK] == 0).all()


@pytest.mark.parametrize("function", [silence, hide, masked_mean, masked_max])
def test_any_dimension_may_hold_the_frames(frames, function):
    maps = torch.stack([frames, -frames], 1)  # (B, 2, T, W)
    expected = torch.stack([function(frames, MASK), function(-frames, MASK)], 1)
    assert torch.allclose(function(maps, MASK, dim=2), expected, atol=1e-6)
    last = function(maps.mT, MASK, dim=3)
    assert torch.allclose(last.mT if last.ndim == 4 else last, expected, atol=1e-6)


@pytest.mark.parametrize("function", [silence, hide, masked_mean, masked_max])
def test_no_mask_equals_a_full_mask(frames, function):
    assert torch.allclose(function(frames, None), function(frames, torch.ones_like(MASK)))


@pytest.mark.parametrize("function", [silence, hide, masked_mean, masked_max])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_keeps_the_type(frames, function, dtype):
    assert function(frames.to(dtype), MASK).dtype == dtype


def test_padding_takes_no_gradient(frames):
    for function in (masked_mean, masked_max):
        x = frames.clone().requires_grad_()
        function(x, MASK).sum().backward()
        assert (x.grad[~MASK] == 0).all()
        assert torch.allclose(x.grad.sum((0, 1)), torch.tensor(3.0))
