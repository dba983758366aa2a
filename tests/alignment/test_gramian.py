import pytest
import torch

from hf_gradalign.alignment import compute_gramian


def test_is_the_matrix_of_inner_products():
    torch.manual_seed(0)
    views = [[torch.randn(3, 4), torch.randn(5), torch.randn(())] for _ in range(3)]
    flat = torch.stack([torch.cat([g.reshape(-1) for g in view]) for view in views])
    torch.testing.assert_close(compute_gramian(views), flat @ flat.T)


def test_missing_gradients_are_zero():
    a, b, c = torch.randn(4), torch.randn(2, 2), torch.randn(4)
    gramian = compute_gramian([[a, None, None], [c, b, None]])
    expected = torch.tensor([[a @ a, a @ c], [a @ c, c @ c + (b * b).sum()]])
    torch.testing.assert_close(gramian, expected)


def test_no_gradients_at_all():
    assert torch.equal(compute_gramian([[None], [None]]), torch.zeros(2, 2))


def test_layouts_may_differ():
    a = torch.randn(2, 3, 4, 5)
    b = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(compute_gramian([[a], [b]])[0, 1], (a * b).sum())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_accumulated_in_float32(dtype):
    # The sum of squares overflows float16, and in bfloat16 it stops growing at 256.
    gradient = torch.full((100_000,), 2.0, dtype=dtype)
    gramian = compute_gramian([[gradient], [-gradient]])
    assert gramian.dtype == torch.float32
    torch.testing.assert_close(gramian, torch.tensor([[4e5, -4e5], [-4e5, 4e5]]))


def test_views_must_have_the_same_parameters():
    with pytest.raises(ValueError, match=r"lengths \[1, 2\]"):
        compute_gramian([[torch.ones(1)], [torch.ones(1), torch.ones(1)]])
