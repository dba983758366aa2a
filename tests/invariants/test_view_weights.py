"""Weights of views: alignment of the scaled gradients, and without alignment the weighted mean loss."""

import pytest
import torch
from gramians import OUR_METHODS
from toy import ToyViews, collate, largest_difference, make_model, make_trainer, weights_of
from transformers import Trainer

WEIGHTS = {"clean": 3.0, "augmented": 1.0}


class WeightedMeanTrainer(Trainer):
    """The ordinary Trainer with an explicit loss."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        return sum(WEIGHTS[view] * model(**view_inputs).loss for view, view_inputs in inputs.items()) / 4


@pytest.mark.parametrize("optimizer", ["sgd", "adamw_torch"])
def test_without_alignment_it_is_the_weighted_mean_loss(tmp_path, optimizer):
    options = {"optim": optimizer, "learning_rate": 0.01}
    ours = make_trainer(tmp_path, view_weights=WEIGHTS, **options)
    ours.train()
    ordinary = make_trainer(tmp_path, trainer_class=WeightedMeanTrainer, **options)
    ordinary.train()
    assert largest_difference(weights_of(ours), weights_of(ordinary)) < 1e-6


def test_pcgrad_is_that_of_scaled_gradients(tmp_path):
    model = make_model()
    trainer = make_trainer(tmp_path, model=model, align_gradients="pcgrad", view_weights=WEIGHTS)
    dataset, conflicts = ToyViews(240), 0
    for start in range(0, 120, 6):
        batch = collate([dataset[index] for index in range(start, start + 6)])
        first, second = (
            WEIGHTS[view]
            / 2  # the mean of the weights
            * torch.cat([g.flatten() for g in torch.autograd.grad(model(**inputs).loss, list(model.parameters()))])
            for view, inputs in batch.items()
        )
        product = first @ second
        expected = (first + second) / 2
        if product < 0:
            conflicts += 1
            expected -= product / (second @ second) * second / 2 + product / (first @ first) * first / 2
        model.zero_grad()
        trainer.training_step(model, batch)
        got = torch.cat([p.grad.flatten() for p in model.parameters()])
        torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-5)
    assert 0 < conflicts < 20


@pytest.mark.parametrize("scope", ["model", "parameter"])
@pytest.mark.parametrize("method", OUR_METHODS)
def test_only_the_ratio_of_the_weights_counts(tmp_path, method, scope):
    runs = []
    for factor in (1.0, 10.0):
        weights = {view: factor * weight for view, weight in WEIGHTS.items()}
        trainer = make_trainer(tmp_path, align_gradients=method, alignment_scope=scope, view_weights=weights)
        trainer.train()
        runs.append(weights_of(trainer))
    assert largest_difference(*runs) < 1e-6


def test_equal_weights_are_no_weights(tmp_path):
    runs = []
    for weights in (None, {"clean": 2.0, "augmented": 2.0}):
        trainer = make_trainer(tmp_path, align_gradients="gradvac", view_weights=weights)
        trainer.train()
        runs.append(weights_of(trainer))
    assert all(torch.equal(value, runs[1][name]) for name, value in runs[0].items())


def test_parameters_that_take_no_part_get_the_weighted_mean(tmp_path):
    model = make_model()
    options = {"align_gradients": "pcgrad", "alignment_parameters": ["norm"], "view_weights": WEIGHTS}
    trainer = make_trainer(tmp_path, model=model, **options)
    dataset = ToyViews(12)
    batch = collate([dataset[index] for index in range(12)])
    loss = sum(WEIGHTS[view] * model(**inputs).loss for view, inputs in batch.items()) / 4
    expected = torch.autograd.grad(loss, model.classifier.weight)[0]
    trainer.training_step(model, batch)
    torch.testing.assert_close(model.classifier.weight.grad, expected)
