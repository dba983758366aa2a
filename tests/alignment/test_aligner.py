import pytest
import torch
from gramians import OUR_METHODS, gradient_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import ToyViews, collate, make_trainer

from hf_gradalign.alignment import Aligner, ParameterGroups, ViewGradients, get_method


def make_aligner(method="none", weights=None):
    return Aligner(get_method(method), ParameterGroups(["weight"]), weights)


def view_scale(views, weights):
    return make_aligner(weights=weights).view_scale(views, torch.device("cpu"))


@pytest.mark.parametrize("weights", [None, {}, {"clean": 1.0}, {"clean": 3.0, "augmented": 3.0}])
def test_equal_view_weights_need_no_scale(weights):
    assert view_scale(["clean", "augmented"], weights) is None


def test_scale_has_mean_one():
    scale = view_scale(["clean", "codec", "noise"], {"codec": 0.5, "clean": 3.0})
    assert scale.tolist() == pytest.approx([2.0, 1 / 3, 2 / 3])


def test_weight_for_an_unknown_view(tmp_path):
    with pytest.raises(ValueError, match="--view_weights names codec, but the views are clean, augmented"):
        view_scale(["clean", "augmented"], {"clean": 2.0, "codec": 0.5})
    with pytest.raises(ValueError, match="--view_weights names codec"):
        make_trainer(tmp_path, view_weights={"codec": 0.5}).train()


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf"), True, "2"])
def test_weights_must_be_positive(weight):
    with pytest.raises(ValueError, match="the weight of 'codec' must be a positive number, got"):
        make_aligner(weights={"clean": 1.0, "codec": weight})


@settings(max_examples=30, deadline=None)
@given(gradient_rows(max_views=4), st.lists(st.sampled_from([0.25, 1.0, 3.0]), min_size=4, max_size=4))
@pytest.mark.parametrize("name", OUR_METHODS)
def test_method_gets_scaled_gradients(name, rows, factors):
    scale = torch.tensor(factors[: len(rows)], dtype=rows.dtype)
    scaled = rows * scale[:, None]
    weights = make_aligner(name).weigh((rows @ rows.T)[None], scale)
    expected = get_method(name)((scaled @ scaled.T)[None])
    torch.testing.assert_close(weights @ rows, expected @ scaled, atol=1e-6 * float(rows.norm()), rtol=1e-6)


@pytest.mark.parametrize("scope", ["model", "module", "parameter"])
def test_statistics_of_an_update(tmp_path, scope):
    trainer = make_trainer(tmp_path, align_gradients="pcgrad", alignment_scope=scope)
    assert trainer.last_update is None
    dataset = ToyViews()
    batch = collate([dataset[index] for index in range(12)])
    loss = trainer.training_step(trainer.model, batch)
    update = trainer.last_update
    groups, parameters = len(trainer.parameter_groups.groups), len(list(trainer.model.parameters()))
    assert update.views == ["clean", "augmented"]
    assert update.products.shape == (parameters, 2, 2)
    assert update.gramians.shape == (groups, 2, 2)
    assert update.weights.shape == (groups, 2)
    torch.testing.assert_close(update.gramians.sum(0), update.products.sum(0))
    torch.testing.assert_close(update.weights, get_method("pcgrad")(update.gramians))
    assert update.loss_scale is None  # only with fp16
    for view, inputs in batch.items():
        torch.testing.assert_close(update.losses[view], trainer.model(**inputs).loss.detach())
    torch.testing.assert_close(loss, sum(update.losses.values()) / 2)


def test_loss_is_the_weighted_mean_over_views(tmp_path):
    trainer = make_trainer(tmp_path, view_weights={"clean": 3.0})
    dataset = ToyViews()
    loss = trainer.training_step(trainer.model, collate([dataset[index] for index in range(12)]))
    losses = trainer.last_update.losses
    torch.testing.assert_close(loss, (3 * losses["clean"] + losses["augmented"]) / 4)


@pytest.mark.parametrize("weights", [None, {"clean": 3.0}])
def test_a_plain_loop(weights):
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2)).double()
    names = [name for name, _ in model.named_parameters()]
    groups = ParameterGroups(names, patterns=["weight"])
    gradients = ViewGradients(model.parameters())
    generator = torch.Generator().manual_seed(0)
    by_view = {}
    for view in ("clean", "augmented"):
        by_view[view] = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in model.parameters()]
        with gradients.accumulate(view):
            for parameter, gradient in zip(model.parameters(), by_view[view], strict=True):
                parameter.grad = gradient.clone()
    update = Aligner(get_method("pcgrad"), groups, weights).align(gradients)
    scale = [1.0, 1.0] if weights is None else [1.5, 0.5]
    clean, augmented = ([s * g for g in view] for s, view in zip(scale, by_view.values(), strict=True))
    flat = [
        torch.cat([g.flatten() for g, n in zip(view, names, strict=True) if "weight" in n])
        for view in (clean, augmented)
    ]
    product = flat[0] @ flat[1]
    shares = [(1 - min(product, 0) / (vector @ vector)) / 2 for vector in flat]
    for name, parameter, a, b in zip(names, model.parameters(), clean, augmented, strict=True):
        expected = shares[0] * a + shares[1] * b if "weight" in name else (a + b) / 2
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-5, atol=1e-6)
    assert gradients.views == []
    statistics = update.statistics()
    assert statistics["conflict_rate"] == float(product < 0)
    assert "loss_clean" not in statistics
    assert statistics["weight_clean"] == update.weights[0, 0]


def test_groups_of_other_parameters_are_refused():
    parameters = [torch.nn.Parameter(torch.ones(2)) for _ in range(3)]
    gradients = ViewGradients(parameters[:2])
    for view in ("clean", "augmented"):
        with gradients.accumulate(view):
            sum(p.sum() for p in parameters[:2]).backward()
    aligner = Aligner(get_method("pcgrad"), ParameterGroups(["a.w", "a.b", "frozen"], "module"))
    with pytest.raises(ValueError, match="gradients of 2 parameters, but the groups have 3"):
        aligner.align(gradients)
