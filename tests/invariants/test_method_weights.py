"""Invariant 5: the weights of a method equal the published formula and TorchJD, and are never NaN."""

import math
from unittest.mock import patch

import pytest
import torch
from gramians import gradient_batches, gradient_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_gradalign.alignment import available_methods, get_method
from hf_gradalign.alignment.methods.base import visiting_order

MANY = settings(max_examples=60, deadline=None)
NEEDS_TORCHJD = pytest.mark.skipif("mgda" not in available_methods(), reason="TorchJD is not installed")
NAMES = [*available_methods(), "crmogm(pcgrad)", pytest.param("crmogm(mgda)", marks=NEEDS_TORCHJD)]


def combined(weights, rows):
    return weights @ rows


def is_close(first, second, rows, tolerance=1e-9):
    return bool((first - second).norm() <= tolerance * max(float(rows.norm()), 1e-300))


@MANY
@given(gradient_rows())
def test_none_is_the_mean(rows):
    assert get_method("none")(rows @ rows.T).tolist() == [0.5, 0.5]


@MANY
@given(gradient_rows())
def test_pcgrad_formula(rows):
    gramian = rows @ rows.T
    a, b, c = gramian[0, 0], gramian[1, 1], gramian[0, 1]
    expected = [0.5, 0.5] if c >= 0 else [(1 - c / a) / 2, (1 - c / b) / 2]
    assert get_method("pcgrad")(gramian).tolist() == pytest.approx([float(weight) for weight in expected])


@MANY
@given(gradient_rows(max_views=4))
def test_pcgrad_projects_vectors(rows):
    """Algorithm 1 of the paper, applied to gradients."""
    adjusted = rows.clone()
    method = get_method("pcgrad", reduction="sum", seed=5)
    for i in range(len(rows)):
        for j in visiting_order(len(rows), i, 5, 0):
            product = adjusted[i] @ rows[j]
            if product < 0 and rows[j].norm() > 0:
                adjusted[i] -= product / rows[j].square().sum() * rows[j]
    assert is_close(combined(method(rows @ rows.T), rows), adjusted.sum(0), rows, 1e-7)


def torchjd_in_our_order(weighting, gramian, call=0, seed=0, positions=False):
    """TorchJD's sum divided by K, visiting the views in the same order as ours."""
    views = len(gramian)
    orders = [visiting_order(views, i, seed, call) for i in range(views)]
    if positions:  # positions among the other views instead of the views
        orders = [[j - (j > i) for j in order] for i, order in enumerate(orders)]
    with patch("torch.randperm", side_effect=[torch.tensor(order) for order in orders]):
        return weighting(gramian) / views


@settings(max_examples=12, deadline=None)  # of 16 Gramians each
@given(gradient_batches(max_views=4))
def test_pcgrad_is_torchjd(batch):
    torchjd = pytest.importorskip("torchjd.aggregation")
    gramians = batch @ batch.mT
    for rows, gramian, ours in zip(batch, gramians, get_method("pcgrad")(gramians), strict=True):
        theirs = torchjd_in_our_order(torchjd.PCGradWeighting(), gramian)
        # Theirs divides by the square of a zero gradient if rounding leaves a negative product.
        if torch.isfinite(theirs).all():
            assert is_close(combined(ours, rows), combined(theirs, rows), rows)


@MANY
@given(st.lists(gradient_rows(), min_size=1, max_size=5), st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_gradvac_formula(sequence, beta):
    """Equation 2 of the paper over a run, with the published code's rule for the target."""
    method = get_method("gradvac", beta=beta)
    target = 0.0
    for rows in sequence:
        gramian = rows @ rows.T
        norms = [math.sqrt(gramian[i, i]) for i in range(2)]
        expected = [0.5, 0.5]
        if min(norms) > 0:
            cosine = max(-1.0, min(1.0, float(gramian[0, 1]) / (norms[0] * norms[1])))
            low = min(target, 1 - 1e-6)
            if cosine < low:
                for i, j in ((0, 1), (1, 0)):
                    numerator = low * math.sqrt(1 - cosine**2) - cosine * math.sqrt(1 - low**2)
                    expected[j] += norms[i] * numerator / (norms[j] * math.sqrt(1 - low**2)) / 2
            if cosine > 0:
                target = (1 - beta) * target + beta * cosine
        expected = torch.tensor(expected, dtype=torch.float64)
        assert is_close(combined(method(gramian), rows), combined(expected, rows), rows, 1e-6)


@settings(max_examples=10, deadline=None)
@given(gradient_batches(max_views=4, degenerate=False), st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_gradvac_is_torchjd(batch, beta):
    """Over 16 updates, which also compares the targets."""
    torchjd = pytest.importorskip("torchjd.aggregation")
    ours = get_method("gradvac", update_on_conflict=True, beta=beta)
    theirs = torchjd.GradVacWeighting(beta=beta, eps=0.0)
    for call, rows in enumerate(batch):
        gramian = rows @ rows.T
        expected = torchjd_in_our_order(theirs, gramian, call, positions=True)
        assert is_close(combined(ours(gramian), rows), combined(expected, rows), rows, 1e-7)


def cagrad_update(rows, c, dtype=torch.float64):
    gramian = (rows @ rows.T).to(dtype)
    return combined(get_method("cagrad", c=c, rescale=False)(gramian).double(), rows)


@MANY
@given(
    gradient_rows(max_views=4), st.sampled_from([0.0, 0.2, 0.5, 0.9]), st.sampled_from([torch.float32, torch.float64])
)
def test_cagrad_stays_in_its_ball_and_helps_the_worst_view(rows, c, dtype):
    mean = rows.mean(0)
    update = cagrad_update(rows, c, dtype)
    slack = 2e-3 if dtype == torch.float32 else 1e-6
    assert (update - mean).norm() <= c * mean.norm() * (1 + slack) + slack * rows.norm()
    assert (rows @ update).min() >= (rows @ mean).min() - slack * rows.norm() ** 2


@MANY
@given(gradient_rows(max_views=4), st.sampled_from([0.0, 0.2, 0.5, 0.9]))
def test_cagrad_is_the_best_of_its_ball(rows, c):
    mean = rows.mean(0)
    update = cagrad_update(rows, c)
    if is_close(update, mean, rows):
        return  # a weighted mean of the gradients is zero, so the update is their plain mean by definition
    rows = rows[rows.norm(dim=1) > 0]  # a zero gradient cannot improve
    worst = (rows @ update).min()
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        direction = torch.randn(rows.shape[1], generator=generator, dtype=rows.dtype)
        other = mean + c * mean.norm() * direction / direction.norm()
        assert (rows @ other).min() <= worst + 1e-6 * rows.norm(dim=1).min() * mean.norm()


def test_cagrad_leaves_a_vanished_gradient_out():
    rows = torch.tensor([[1.0, 0.0], [0.0, 0.0], [-0.5, 2.0]], dtype=torch.float64)
    both = cagrad_update(rows[[0, 2]], 0.3) - rows[[0, 2]].mean(0)
    three = cagrad_update(rows, 0.3 * 3 / 2) - rows.mean(0)
    torch.testing.assert_close(three, both)  # the mean of three is 2/3 as long, and the ball is as large


def test_cagrad_of_too_many_views():
    assert torch.isfinite(get_method("cagrad")(torch.eye(12))).all()
    with pytest.raises(ValueError, match="CAGrad supports at most 12 views, got 13; PCGrad supports any number"):
        get_method("cagrad")(torch.eye(13))


def test_cagrad_of_nearly_opposed_gradients_in_float32():
    rows = torch.tensor([[1.0, 0.0, 0.0], [-1.0, 1e-5, 0.0]], dtype=torch.float64)
    update = cagrad_update(rows, 0.5, torch.float32)
    assert (update - rows.mean(0)).norm() <= 0.5 * rows.mean(0).norm() * 1.01 + 1e-4


def check_cagrad(batch, c):
    """TorchJD does not divide by 1 + c^2 as the published code does, and solves a cone program, mostly to 1e-4."""
    torchjd, _ = pytest.importorskip("torchjd.aggregation"), pytest.importorskip("cvxpy")
    gramians = batch @ batch.mT
    unscaled, ours = (get_method("cagrad", c=c, rescale=rescale)(gramians) for rescale in (False, True))
    torch.testing.assert_close(ours, unscaled / (1 + c**2))
    for rows, gramian, weights in zip(batch, gramians, unscaled, strict=True):
        update = combined(weights, rows)
        theirs = combined(torchjd.CAGradWeighting(c=c, norm_eps=1e-9)(gramian), rows)
        # If some gradients are a thousand times longer, their solver may stop early; then ours must be better.
        same = is_close(update, theirs, rows, 2e-3)
        assert same or (rows @ update).min() > (rows @ theirs).min()
        assert (update - rows.mean(0)).norm() <= c * rows.mean(0).norm() * (1 + 1e-6)


@settings(max_examples=8, deadline=None)
@given(gradient_batches(max_views=4, degenerate=False), st.sampled_from([0.2, 0.5, 0.9]))
def test_cagrad_is_torchjd(batch, c):
    check_cagrad(batch, c)


@pytest.mark.long
@pytest.mark.slow
@settings(max_examples=125, deadline=None)
@given(gradient_batches(max_views=4, degenerate=False), st.sampled_from([0.2, 0.5, 0.9]))
def test_cagrad_is_torchjd_thousands_of_times(batch, c):
    check_cagrad(batch, c)


@settings(max_examples=10, deadline=None)  # of 8 Gramians each
@given(st.data(), st.sampled_from([torch.float32, torch.float64]), st.integers(-24, 24))
@pytest.mark.parametrize("name", NAMES)
def test_finite_gradients_give_no_nan(name, data, dtype, exponent):
    batch = data.draw(gradient_batches(min_views=fewest_views(name), max_views=4, size=2 if name == "fairgrad" else 8))
    rows = (batch * 10.0**exponent).to(dtype)
    method = get_method(name)
    for _ in range(3 if method.state_dict() else 1):
        weights = method(rows @ rows.mT)
        assert weights.dtype == dtype
        assert torch.isfinite(weights).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nonfinite_gramian_gives_the_mean_and_leaves_the_state(name, bad):
    views = fewest_views(name)
    method, untouched = get_method(name), get_method(name)
    lengths = torch.arange(1.0, views + 1)
    similar = torch.full((views, views), 0.4).fill_diagonal_(1.0) * lengths[:, None] * lengths
    for other in (method, untouched):
        other(similar)
    broken = torch.ones(views, views)
    broken[0, 0] = bad
    assert method(broken).tolist() == pytest.approx([1 / views] * views)
    conflicting = torch.full((views, views), -0.2).fill_diagonal_(1.0) * lengths[:, None] * lengths
    assert torch.equal(method(conflicting), untouched(conflicting))


def fewest_views(name):
    return 3 if name == "krum" else 2
