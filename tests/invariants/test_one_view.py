"""Invariant 3: with one view, or with ordinary batches, the trainer equals the ordinary Trainer to the bit."""

import pytest
import torch
from toy import ToyViews, make_model, make_trainer, weights_of
from transformers import Trainer


class OrdinaryItems(ToyViews):
    def __getitem__(self, index):
        return super().__getitem__(index)["clean"]


def assert_same_bits(first, second):
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def ordinary_weights(tmp_path, **options):
    model = make_model()
    model.accepts_loss_kwargs = False  # otherwise the base class accumulates a sum
    trainer = make_trainer(tmp_path, OrdinaryItems(), model, trainer_class=Trainer, **options)
    trainer.train()
    return weights_of(trainer)


@pytest.mark.parametrize("accumulation", [1, pytest.param(2, marks=pytest.mark.slow), 4])
@pytest.mark.parametrize("method", ["none", "pcgrad", "gradvac", "cagrad"])
def test_one_view(tmp_path, method, accumulation):
    options = {"optim": "adamw_torch", "learning_rate": 0.01, "gradient_accumulation_steps": accumulation}
    options["per_device_train_batch_size"] = 12 // accumulation
    trainer = make_trainer(tmp_path, ToyViews(views=("clean",)), align_gradients=method, **options)
    trainer.train()
    assert_same_bits(weights_of(trainer), ordinary_weights(tmp_path, **options))


def test_ordinary_batches(tmp_path):
    trainer = make_trainer(tmp_path, OrdinaryItems(), align_gradients="pcgrad")
    trainer.train()
    assert_same_bits(weights_of(trainer), ordinary_weights(tmp_path))
