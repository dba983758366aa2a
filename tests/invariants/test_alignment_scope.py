"""Alignment by module, by parameter and of some parameters, compared with autograd and flat vectors by group."""

import shutil

import pytest
import torch
from gramians import OUR_METHODS
from toy import ToyViews, collate, make_model, make_trainer, weights_of

MODULES = {"hidden": ["hidden"], "norm": ["norm"], "classifier": ["classifier"]}
SCOPES = [
    ({"alignment_scope": "model"}, {"model": ["hidden", "norm", "classifier"]}),
    ({"alignment_scope": "module"}, MODULES),
    (
        {"alignment_scope": "parameter"},
        {f"{module}.{kind}": [f"{module}.{kind}"] for module in MODULES for kind in ("weight", "bias")},
    ),
    (
        {"alignment_scope": "module", "alignment_modules": ["norm", "classifier.weight"]},
        {"norm": ["norm"], "classifier.weight": ["classifier.weight"], "other": ["hidden", "classifier.bias"]},
    ),
    ({"alignment_parameters": ["classifier", "norm.*bias"]}, {"model": ["classifier", "norm.bias"]}),
    (
        {"alignment_scope": "module", "alignment_parameters": ["weight"]},
        {module: [f"{module}.weight"] for module in MODULES},
    ),
]


def make_batch(seed):
    dataset = ToyViews(240)
    generator = torch.Generator().manual_seed(seed)
    return collate([dataset[int(index)] for index in torch.randperm(240, generator=generator)[:6]])


def flat_gradients(model, batch, names):
    """The gradients of the named parameters, one vector per view."""
    named = dict(model.named_parameters())
    return [
        torch.cat([g.flatten() for g in torch.autograd.grad(model(**inputs).loss, [named[name] for name in names])])
        for inputs in batch.values()
    ]


def project(gradient, other):
    """PCGrad's projection, on the vectors themselves."""
    product = gradient @ other
    return gradient - product / (other @ other) * other if product < 0 else gradient


@pytest.mark.parametrize(("options", "groups"), SCOPES)
def test_each_group_by_itself(tmp_path, options, groups):
    model = make_model()
    trainer = make_trainer(tmp_path, model=model, align_gradients="pcgrad", **options)
    named = dict(model.named_parameters())
    inside = {
        group: [name for name in named if any(name == p or name.startswith(f"{p}.") for p in prefixes)]
        for group, prefixes in groups.items()
    }
    aligned = [name for names in inside.values() for name in names]
    rest = [name for name in named if name not in aligned]
    conflicts = set()
    for seed in range(8):
        batch = make_batch(seed)
        expected = {}
        for group, names in inside.items():
            first, second = flat_gradients(model, batch, names)
            conflicts.add(bool(first @ second < 0))
            expected[group] = (project(first, second) + project(second, first)) / 2
        if rest:
            expected["rest"] = sum(flat_gradients(model, batch, rest)) / 2
        model.zero_grad()
        trainer.training_step(model, batch)
        for group, vector in expected.items():
            got = torch.cat([named[name].grad.flatten() for name in inside.get(group, rest)])
            torch.testing.assert_close(got, vector, atol=1e-6, rtol=1e-5)
        assert sorted(trainer.parameter_groups.groups) == sorted(inside)
    assert conflicts == {True, False}


@pytest.mark.parametrize("method", OUR_METHODS)
def test_a_pattern_that_names_all_is_none(tmp_path, method):
    runs = []
    for patterns in (None, ["."]):
        trainer = make_trainer(tmp_path, align_gradients=method, alignment_parameters=patterns)
        trainer.train()
        runs.append(weights_of(trainer))
    assert all(torch.equal(value, runs[1][name]) for name, value in runs[0].items())


@pytest.mark.parametrize("method", OUR_METHODS)
def test_what_takes_no_part_gets_the_mean(tmp_path, method):
    """In the first step it moves as without alignment; later the other parameters differ."""
    options = {"max_steps": 1, "learning_rate": 1.0}
    aligned = make_trainer(tmp_path, align_gradients=method, alignment_parameters=["^norm.bias$"], **options)
    aligned.train()
    plain = make_trainer(tmp_path, **options)
    plain.train()
    for name, value in weights_of(plain).items():
        if name != "norm.bias":
            torch.testing.assert_close(weights_of(aligned)[name], value, atol=1e-6, rtol=0)


@pytest.mark.parametrize("scope", ["module", "parameter"])
@pytest.mark.parametrize("stop", [2, 5])
def test_each_groups_targets_survive_a_resume(tmp_path, scope, stop):
    options = {"align_gradients": "gradvac", "alignment_scope": scope, "save_strategy": "steps", "save_steps": 1}
    whole = make_trainer(tmp_path / "whole", model=make_model(dropout=0.2), **options)
    whole.train()
    targets = torch.tensor(whole.alignment_method.state_dict()["targets"])
    assert len(targets) == len(whole.parameter_groups.groups) > 1
    assert len(targets[:, 0, 1].unique()) > 1
    shutil.copytree(tmp_path / "whole" / f"checkpoint-{stop}", tmp_path / "resumed" / f"checkpoint-{stop}")
    resumed = make_trainer(tmp_path / "resumed", model=make_model(dropout=0.2), **options)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.alignment_method.state_dict() == whole.alignment_method.state_dict()
    assert all(torch.equal(value, weights_of(resumed)[name]) for name, value in weights_of(whole).items())
