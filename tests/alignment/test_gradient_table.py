"""Triton kernels compared with float64: on a GPU if there is one, otherwise in Triton's interpreter."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.profiler import ProfilerActivity, profile

from hf_gradalign.alignment import ParameterGroups, ViewGradients, compute_products, get_method
from hf_gradalign.alignment import view_gradients as passes

gradient_table = pytest.importorskip("hf_gradalign.alignment.gradient_table", reason="Triton is not installed")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CHUNK = gradient_table.CHUNK
SIZES = st.sampled_from([0, 1, 2, 5, 4095, 4096, 4097, CHUNK - 1, CHUNK, CHUNK + 1, 40_001])
# The interpreter truncates bfloat16, and a GPU rounds it.
DTYPES = {
    torch.float32: 1e-6,
    torch.float64: 1e-6,
    torch.bfloat16: 2**-8 if DEVICE == "cuda" else 2**-7,
    torch.float16: 2**-10,
}


def draw_gradients(sizes, views, dtype, seed, missing=0.2):
    """K lists of gradients, some of them of two dimensions, some transposed, some missing."""
    generator = torch.Generator().manual_seed(seed)
    columns = []
    for position, size in enumerate(sizes):
        shape = (size // 3, 3) if size % 3 == 0 and size else (size,)
        column = [torch.randn(shape, generator=generator, dtype=torch.float64).to(DEVICE, dtype) for _ in range(views)]
        if position % 2 and len(shape) == 2:
            column = [gradient.T for gradient in column]
        gone = torch.rand(views, generator=generator) < missing
        columns.append([None if away else gradient for gradient, away in zip(column, gone, strict=True)])
    return [list(view) for view in zip(*columns, strict=True)]


def in_float64(gradients):
    return [[None if g is None else g.double().cpu() for g in view] for view in gradients]


def expected_sums(gradients, weights, index):
    """The weighted sums in float64."""
    sums = []
    for position, column in enumerate(zip(*in_float64(gradients), strict=True)):
        row = weights[index[position]].double().cpu()
        terms = [w * g for w, g in zip(row, column, strict=True) if g is not None]
        sums.append(sum(terms) if terms else None)
    return sums


@given(
    sizes=st.lists(SIZES, min_size=1, max_size=5),
    views=st.integers(1, 4),
    dtype=st.sampled_from(list(DTYPES)),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=12, deadline=None)
def test_products_and_sums_match_float64(sizes, views, dtype, seed):
    gradients = draw_gradients(sizes, views, dtype, seed)
    exact = compute_products(in_float64(gradients)).double()
    norms = exact.diagonal(dim1=1, dim2=2).sqrt()
    products = torch.full((len(sizes), views, views), torch.nan, device=DEVICE)
    table = gradient_table.GradientTable(gradients)
    products[[p for p in range(len(sizes)) if p not in table.covered]] = 0  # empty, or missing in every view
    table.products_(products)
    off = (products.cpu().double() - exact).abs() / (norms[:, :, None] * norms[:, None, :]).clamp(min=1e-30)
    assert off.max() <= 1e-6
    assert torch.equal(products, products.mT)

    weights = torch.randn(2, views, generator=torch.Generator().manual_seed(seed)).to(DEVICE)
    index = [position % 2 for position in range(len(sizes))]
    expected = expected_sums(gradients, weights, index)
    targets = [next((g for g in column if g is not None), None) for column in zip(*gradients, strict=True)]
    table.combine_(weights, index)
    for target, sum_ in zip(targets, expected, strict=True):
        if target is not None and target.numel():
            scale = sum_.abs().max().clamp(min=1)
            assert (target.double().cpu() - sum_).abs().max() <= DTYPES[dtype] * scale


@given(
    sizes=st.lists(st.sampled_from([0, 3, 5, 6]), min_size=1, max_size=4),
    views=st.integers(1, 3),
    change=st.sampled_from(["none", "missing in all views", "missing in one", "dtype", "transposed"]),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_checking_all_gradients_matches_checking_each(sizes, views, change, seed):
    gradients = [[torch.zeros(size, device=DEVICE) for size in sizes] for _ in range(views)]
    view, position = seed % views, seed % len(sizes)
    if change == "missing in all views":
        for each in gradients:
            each[position] = None
    elif change == "missing in one":
        gradients[view][position] = None
    elif change == "dtype":
        gradients[view][position] = gradients[view][position].half()
    elif change == "transposed":
        gradients[view][position] = torch.zeros(2, 3, device=DEVICE).T
    by_kind = {}
    for position, column in enumerate(zip(*gradients, strict=True)):
        if (kind := gradient_table._kind_of(column)) is not None:
            by_kind.setdefault(kind, []).append(position)
    assert gradient_table._group_by_kind(gradients) == by_kind


def test_results_are_bit_identical():
    first, second = torch.zeros(2, 4, 3, 3, device=DEVICE).unbind()
    for products in (first, second):
        gradient_table.GradientTable(draw_gradients([40_001, 7, 4096, 300], 3, torch.float32, 0, missing=0)).products_(
            products
        )
    assert torch.equal(first, second)


@pytest.mark.parametrize("value", [torch.inf, torch.nan])
def test_non_finite_values_are_kept(value):
    gradients = draw_gradients([5000, 10], 2, torch.float32, 0, missing=0)
    gradients[1][0][4500] = value
    table, products = gradient_table.GradientTable(gradients), torch.zeros(2, 2, 2, device=DEVICE)
    table.products_(products)
    assert torch.isfinite(products[0, 0, 0])
    assert not torch.isfinite(products[0, 0, 1])
    assert not torch.isfinite(products[0, 1, 1])
    assert torch.isfinite(products[1]).all()
    table.combine_(torch.full((1, 2), 0.5, device=DEVICE))
    assert not torch.isfinite(gradients[0][0][4500])
    assert torch.isfinite(gradients[0][0][:4500]).all()


def test_missing_gradients_do_not_spread_non_finite_values():
    there = torch.tensor([1.0, torch.inf], device=DEVICE)
    table = gradient_table.GradientTable([[None], [there]])
    products = torch.zeros(1, 2, 2, device=DEVICE)
    table.products_(products)
    assert products[0, 0].tolist() == [0, 0]
    table.combine_(torch.tensor([[7.0, 2.0]], device=DEVICE))
    assert there.tolist() == [2.0, torch.inf]


@pytest.fixture
def by_kernels(monkeypatch):
    """Uses the kernels for all gradients, on any device."""
    monkeypatch.setattr(passes, "_make_table", lambda local, device: gradient_table.GradientTable(local))


LAYOUTS = {
    "alike": lambda: [torch.randn(6, 4, device=DEVICE) for _ in range(2)],
    "transposed alike": lambda: [torch.randn(6, 4, device=DEVICE).T for _ in range(2)],
    "one transposed": lambda: [torch.randn(6, 4, device=DEVICE), torch.randn(4, 6, device=DEVICE).T],
    "every other element": lambda: [torch.randn(12, 4, device=DEVICE)[::2] for _ in range(2)],
    "expanded": lambda: [torch.randn(6, 1, device=DEVICE).expand(6, 4) for _ in range(2)],
    "off by an element": lambda: [torch.randn(25, device=DEVICE)[1:].view(6, 4) for _ in range(2)],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_memory_layout(layout, by_kernels):
    column = LAYOUTS[layout]()
    exact = torch.stack([g.double().flatten() for g in column])
    products = compute_products([[g, torch.ones(3, device=DEVICE)] for g in column])
    torch.testing.assert_close(products[0], (exact @ exact.T).float(), rtol=1e-6, atol=1e-6)
    covered = gradient_table.GradientTable([[g] for g in column]).covered
    assert bool(covered) == (layout in ("alike", "transposed alike", "off by an element"))


def test_kernels_and_buckets_give_the_same_update(by_kernels, monkeypatch):
    shapes, names = [(40, 500), (7,), (100, 200)], ["a.w", "a.b", "b.w"]

    def update():
        parameters = [torch.nn.Parameter(torch.zeros(shape, device=DEVICE)) for shape in shapes]
        gradients = ViewGradients(parameters)
        generator = torch.Generator().manual_seed(3)
        for view in ("clean", "augmented"):
            with gradients.accumulate(view):
                for parameter in parameters:
                    parameter.grad = torch.randn(parameter.shape, generator=generator).to(DEVICE)
        groups = ParameterGroups(names, "module")
        products = gradients.products()
        gradients.combine(get_method("gradvac")(groups.gramians(products)), groups.index)
        return products, [parameter.grad for parameter in parameters]

    products, combined = update()
    monkeypatch.setattr(passes, "_make_table", lambda local, device: None)
    expected_products, expected = update()
    torch.testing.assert_close(products, expected_products, rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(combined, expected, rtol=1e-6, atol=1e-6)


def model_sized(device, parameters=425):
    """Two views' gradients of as many parameters as XLS-R 300M has, in `ViewGradients`."""
    sizes = [10_007 if p % 3 else 257 for p in range(parameters)]
    gradients = ViewGradients([torch.nn.Parameter(torch.zeros(size, device=device)) for size in sizes])
    for view in ("clean", "augmented"):
        with gradients.accumulate(view):
            for parameter in gradients._parameters:
                parameter.grad = torch.randn_like(parameter)
    return gradients


@pytest.mark.gpu
def test_few_launches_touch_the_gradients():
    compute_products([[torch.ones(3, device="cuda")]] * 2)
    gradients, weights = model_sized("cuda"), torch.full((1, 2), 0.5, device="cuda")
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        gradients.products()
        gradients.combine(weights, [0] * 425)
        torch.cuda.synchronize()
    launched = [e.name for e in profiled.events() if e.device_type == torch.autograd.DeviceType.CUDA]
    assert len([name for name in launched if name.startswith(("products_kernel", "combine_kernel"))]) == 2
    assert len(launched) <= 12, launched  # includes copying the tables and filling zeros


@pytest.mark.gpu
def test_the_host_does_not_wait():
    compute_products([[torch.ones(3, device="cuda")]] * 2)
    gradients, weights = model_sized("cuda"), torch.full((1, 2), 0.5, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        gradients.products()
        gradients.combine(weights, [0] * 425)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
def test_no_memory_beyond_the_gradients():
    gradients, weights = model_sized("cuda"), torch.full((1, 2), 0.5, device="cuda")
    compute_products([[torch.ones(3, device="cuda")]] * 2)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    gradients.products()
    gradients.combine(weights, [0] * 425)
    torch.cuda.synchronize()
    assert torch.cuda.max_memory_allocated() - before < 2**20
