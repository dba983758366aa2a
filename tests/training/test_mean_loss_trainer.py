"""Losses of one's own, and micro-batches without labels: the same update, however the batch is divided."""

import pytest
import torch
from torch.nn.functional import cross_entropy
from toy import ToyClassifier, ToyViews, largest_difference, make_model, make_trainer, weights_of

from hf_gradalign.training import GradientAlignmentTrainer, WeightedCrossEntropy


class OwnLossTrainer(GradientAlignmentTrainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        loss = self.loss_of(outputs.logits, labels, num_items_in_batch)
        return (loss, outputs) if return_outputs else loss

    def loss_of(self, logits, labels, items):
        return cross_entropy(logits, labels)


class OwnSumTrainer(OwnLossTrainer):
    def loss_of(self, logits, labels, items):
        return cross_entropy(logits, labels, reduction="sum") / items


class PenaltyTrainer(GradientAlignmentTrainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        loss = super().compute_loss(model, inputs, num_items_in_batch=num_items_in_batch)
        return loss + 0.1 * sum(parameter.square().sum() for parameter in model.parameters())


def train(folder, **options):
    trainer = make_trainer(folder, align_gradients="pcgrad", **options)
    trainer.train()
    return weights_of(trainer), trainer.state.log_history[0]["loss"]


@pytest.mark.parametrize("trainer_class", [OwnLossTrainer, OwnSumTrainer, PenaltyTrainer])
def test_a_subclass_computes_the_loss(tmp_path, trainer_class):
    options = {"trainer_class": trainer_class, "max_steps": 1, "logging_steps": 1}
    whole, loss = train(tmp_path, per_device_train_batch_size=48, **options)
    divided, same_loss = train(tmp_path, per_device_train_batch_size=7, gradient_accumulation_steps=7, **options)
    assert largest_difference(whole, divided) < 1e-6
    assert loss == pytest.approx(same_loss, abs=1e-5)
    other, _ = train(tmp_path, max_steps=1, logging_steps=1, per_device_train_batch_size=48)
    assert (largest_difference(whole, other) < 1e-6) == (trainer_class is not PenaltyTrainer)


@pytest.mark.parametrize("form", ["mean", "sum over items"])
def test_either_form_of_a_loss_function(tmp_path, form):
    def loss(outputs, labels, num_items_in_batch=None):
        if form == "mean":
            return cross_entropy(outputs.logits, labels)
        return cross_entropy(outputs.logits, labels, reduction="sum") / num_items_in_batch

    options = {"max_steps": 2, "per_device_train_batch_size": 7, "gradient_accumulation_steps": 4}
    own, _ = train(tmp_path, compute_loss_func=loss, logging_steps=1, **options)
    models, _ = train(tmp_path, logging_steps=1, **options)
    assert largest_difference(own, models) < 1e-6
    evaluation_set = [item["clean"] for item in map(ToyViews().__getitem__, range(6))]
    losses = [make_trainer(tmp_path, compute_loss_func=each).evaluate(evaluation_set) for each in (loss, None)]
    assert losses[0]["eval_loss"] == pytest.approx(losses[1]["eval_loss"])


def test_class_weights_of_a_passed_loss_count_like_the_models(tmp_path):
    weights = [0.1, 0.9]
    options = {"max_steps": 2, "per_device_train_batch_size": 5, "gradient_accumulation_steps": 4, "logging_steps": 1}
    given, loss = train(tmp_path, compute_loss_func=WeightedCrossEntropy(torch.tensor(weights)), **options)
    of_the_model, same_loss = train(tmp_path, model=make_model(weights), **options)
    assert largest_difference(given, of_the_model) == 0
    assert loss == same_loss


def test_a_micro_batch_without_labels_does_not_count(tmp_path):
    dataset = ToyViews(12)
    dataset.labels[torch.arange(12) % 3 > 0] = -100
    options = {"dataset": dataset, "max_steps": 2, "logging_steps": 1}
    whole, loss = train(tmp_path, per_device_train_batch_size=12, **options)
    divided, same_loss = train(tmp_path, per_device_train_batch_size=1, gradient_accumulation_steps=12, **options)
    assert largest_difference(whole, divided) < 1e-6
    assert loss == pytest.approx(same_loss, abs=1e-5)
    dataset.labels[:] = -100
    with pytest.raises(FloatingPointError, match="the loss of views clean and augmented is nan"):
        train(tmp_path, **options)


def test_a_loss_of_one_element(tmp_path):
    class OneElement(ToyClassifier):
        def forward(self, x, labels=None, **kwargs):
            outputs = super().forward(x, labels)
            outputs.loss = outputs.loss[None]
            return outputs

    torch.manual_seed(0)
    weights, _ = train(tmp_path, model=OneElement())
    assert largest_difference(weights, train(tmp_path, model=make_model())[0]) == 0
