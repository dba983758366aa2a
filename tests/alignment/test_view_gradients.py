import pytest
import torch
from torch import nn

from hf_gradalign.alignment import ViewGradients, compute_gramian


def make_parameters():
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(3)), nn.Parameter(torch.randn(2, 2)), nn.Parameter(torch.randn(4))]


def backward(parameters, factors):
    """Set each gradient to factor * parameter, or to None."""
    sum((f * p.square() / 2).sum() for p, f in zip(parameters, factors, strict=True) if f is not None).backward()


def test_views_accumulate_separately_and_combine():
    parameters = make_parameters()
    gradients = ViewGradients(parameters)
    for factors in ((1.0, 1.0, 1.0), (2.0, 2.0, 2.0)):
        for view, sign in (("clean", 1), ("augmented", -1)):
            with gradients.accumulate(view):
                backward(parameters, [sign * f for f in factors])
            assert all(p.grad is None for p in parameters)
    assert gradients.views == ["clean", "augmented"]
    square = 9 * sum(p.detach().square().sum() for p in parameters)
    torch.testing.assert_close(gradients.gramian(), square * torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))
    gradients.combine(torch.tensor([0.75, 0.25]))
    for parameter in parameters:
        torch.testing.assert_close(parameter.grad, 3 * 0.5 * parameter.detach())
    assert gradients.views == []


def test_parameters_without_a_gradient():
    parameters = make_parameters()
    gradients = ViewGradients(parameters)
    with gradients.accumulate("clean"):
        backward(parameters, [1.0, None, None])
    with gradients.accumulate("augmented"):
        backward(parameters, [1.0, 2.0, None])
    gradients.combine(torch.tensor([0.5, 0.25]))
    torch.testing.assert_close(parameters[0].grad, 0.75 * parameters[0].detach())
    torch.testing.assert_close(parameters[1].grad, 0.5 * parameters[1].detach())
    assert parameters[2].grad is None


def test_gradients_from_elsewhere_are_reported():
    parameters = make_parameters()
    gradients = ViewGradients(parameters)
    backward(parameters, [5.0, 5.0, 5.0])
    with pytest.warns(UserWarning, match="from before the first view are discarded"), gradients.accumulate("clean"):
        backward(parameters, [1.0, 1.0, 1.0])
    with gradients.accumulate("augmented"):
        backward(parameters, [1.0, 1.0, 1.0])
    gradients.combine(torch.tensor([0.5, 0.5]))
    for parameter in parameters:
        torch.testing.assert_close(parameter.grad, parameter.detach())


@pytest.mark.parametrize("moment", ["between views", "before combine"])
def test_gradients_outside_of_views_are_refused(moment):
    parameters = make_parameters()
    gradients = ViewGradients(parameters)
    with gradients.accumulate("clean"):
        backward(parameters, [1.0, 1.0, 1.0])
    backward(parameters, [None, 5.0, None])  # a penalty
    with pytest.raises(RuntimeError, match=r"would be lost: .* of a penalty, within accumulate\(view\)"):
        gradients.combine(torch.ones(1)) if moment == "before combine" else gradients.accumulate("b").__enter__()


def test_nested_views_are_refused():
    parameters, ones = make_parameters(), torch.ones(1)
    gradients = ViewGradients(parameters)
    with gradients.accumulate("clean"):
        for use in (gradients.accumulate("augmented").__enter__, gradients.products, lambda: gradients.combine(ones)):
            with pytest.raises(RuntimeError, match=r"pass of the view 'clean' has not ended: leave its accumulate"):
                use()
        backward(parameters, [1.0, 1.0, 1.0])
    assert gradients.gramian() > 0


def test_tied_weights_count_once():
    first, tied = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
    tied.weight = first.weight
    with pytest.raises(ValueError, match=r"a parameter of shape \(3, 3\) is given twice"):
        ViewGradients([*first.parameters(), *tied.parameters()])
    ViewGradients(nn.Sequential(first, tied).parameters())


def test_names_are_not_parameters():
    with pytest.raises(ValueError, match=r"expected parameters, as from model.parameters\(\), got tuple"):
        ViewGradients(nn.Linear(3, 3).named_parameters())


def test_gradients_in_the_same_memory_are_refused():
    parameters = make_parameters()
    memory = [torch.zeros_like(parameter) for parameter in parameters]

    def write(gradients, view, factor):
        with gradients.accumulate(view):
            for parameter, gradient in zip(parameters[1:], memory[1:], strict=True):  # the first has no gradient
                parameter.grad = gradient.fill_(factor)

    gradients = ViewGradients(parameters)
    write(gradients, "clean", 1)
    write(gradients, "augmented", 3)
    with pytest.raises(RuntimeError, match=r"same memory.*shared_storage=True"):
        gradients.products()
    gradients = ViewGradients(parameters, shared_storage=True)
    write(gradients, "clean", 1)
    write(gradients, "augmented", 3)
    gradients.combine(torch.tensor([0.5, 0.5]))
    assert parameters[1].grad.unique().tolist() == [2]


def test_a_complex_number_counts_as_two_real_ones():
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(5, dtype=torch.complex64))
    factors = torch.randn(2, 5, dtype=torch.complex64)
    gradients = ViewGradients([weight])
    for view, factor in zip("ab", factors, strict=True):
        with gradients.accumulate(view):
            (weight.conj() * factor).real.sum().backward()  # whose gradient is conjugated lazily
    real = torch.view_as_real(factors).flatten(1)
    torch.testing.assert_close(gradients.gramian(), real @ real.T)
    gradients.combine(torch.tensor([0.75, 0.5]))
    torch.testing.assert_close(weight.grad, 0.75 * factors[0] + 0.5 * factors[1])


def backward_and_fail(parameters):
    backward(parameters, [1.0, 1.0, 1.0])
    raise KeyError


def test_a_failed_pass_is_not_counted_twice():
    parameters = make_parameters()
    gradients = ViewGradients(parameters)
    with pytest.raises(KeyError), gradients.accumulate("clean"):
        backward_and_fail(parameters)
    assert all(p.grad is None for p in parameters)
    with pytest.raises(RuntimeError, match=r"a pass of the view 'clean' failed.* call clear\(\)"):
        gradients.products()
    with pytest.raises(RuntimeError, match="failed"), gradients.accumulate("clean"):
        pass
    gradients.clear()
    for view in ("clean", "augmented"):
        with gradients.accumulate(view):
            backward(parameters, [1.0, 1.0, 1.0])
    square = sum(p.detach().square().sum() for p in parameters)
    torch.testing.assert_close(gradients.gramian(), square * torch.ones(2, 2))


def test_without_views_there_are_no_products():
    with pytest.raises(ValueError, match="no view has a gradient"):
        ViewGradients(make_parameters()).gramian()


def test_nothing_is_copied():
    parameters = make_parameters()
    gradients = ViewGradients(parameters)
    with gradients.accumulate("clean"):
        backward(parameters, [1.0, 1.0, 1.0])
        first = [p.grad.data_ptr() for p in parameters]
    with gradients.accumulate("augmented"):
        backward(parameters, [1.0, 1.0, 1.0])
    gradients.combine(torch.tensor([0.5, 0.5]))
    assert [p.grad.data_ptr() for p in parameters] == first


def test_frozen_parameters_may_thaw():
    parameters = make_parameters()
    parameters[1].requires_grad_(False)
    gradients = ViewGradients(parameters)
    with gradients.accumulate("clean"):
        backward(parameters, [1.0, 1.0, 1.0])
    gradients.combine(torch.tensor([1.0]))
    assert parameters[1].grad is None
    parameters[0].grad = parameters[2].grad = None
    parameters[1].requires_grad_(True)
    with gradients.accumulate("clean"):
        backward(parameters, [1.0, 1.0, 1.0])
    assert parameters[1].grad is None
    gradients.combine(torch.tensor([1.0]))
    torch.testing.assert_close(parameters[1].grad, parameters[1].detach())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_its_type(dtype):
    parameter = nn.Parameter(torch.ones(4, dtype=dtype))
    gradients = ViewGradients([parameter])
    for view in "ab":
        with gradients.accumulate(view):
            parameter.sum().backward()
    gradients.combine(torch.tensor([0.5, 0.25]))
    assert parameter.grad.dtype == dtype
    assert parameter.grad.tolist() == [0.75] * 4


def test_one_weight_per_view():
    gradients = ViewGradients(make_parameters())
    with gradients.accumulate("clean"):
        pass
    with pytest.raises(ValueError, match=r"1 views \['clean'\] need as many weights, got \(2,\)"):
        gradients.combine(torch.ones(2))


def test_gramian_is_the_matrix_of_inner_products():
    torch.manual_seed(0)
    views = [[torch.randn(3, 4), torch.randn(5), torch.randn(())] for _ in range(3)]
    flat = torch.stack([torch.cat([g.reshape(-1) for g in view]) for view in views])
    torch.testing.assert_close(compute_gramian(views), flat @ flat.T)


def test_missing_gradients_count_as_zero():
    a, b, c = torch.randn(4), torch.randn(2, 2), torch.randn(4)
    gramian = compute_gramian([[a, None, None], [c, b, None]])
    expected = torch.tensor([[a @ a, a @ c], [a @ c, c @ c + (b * b).sum()]])
    torch.testing.assert_close(gramian, expected)


def test_gramian_without_gradients():
    assert torch.equal(compute_gramian([[None], [None]]), torch.zeros(2, 2))


def test_memory_layouts_may_differ():
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


def test_sparse_gradients_are_refused():
    embedding = nn.Embedding(4, 3, sparse=True)
    gradients = ViewGradients(embedding.parameters())
    for view in "ab":
        with gradients.accumulate(view):
            embedding(torch.tensor([1, 2])).sum().backward()
    with pytest.raises(ValueError, match=r"sparse gradients cannot be aligned; create the embedding with sparse=False"):
        gradients.gramian()


def test_views_must_have_the_same_parameters():
    with pytest.raises(ValueError, match=r"lengths \[1, 2\]"):
        compute_gramian([[torch.ones(1)], [torch.ones(1), torch.ones(1)]])
