"""Losses with margins give the same update however a batch is divided, as the weighted cross-entropy does."""

import pytest
import torch
from tiny_detectors import make_detector, noise_trainer
from toy import largest_difference, weights_of

from hf_gradalign.experiment import CountermeasureMetrics
from hf_gradalign.models.losses import LOSSES, detection_loss

MARGIN_LOSSES = [name for name in LOSSES if name != "cross_entropy"]


def detector(loss, class_weights):
    model = make_detector(loss=loss, class_weights=class_weights)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for layer in model.backbone.encoder.layers:
        layer.attention.dropout = 0.0
    return model


def trained(folder, loss, class_weights, from_init=False, **options):
    options |= {"optim": "sgd", "learning_rate": 0.05, "save_strategy": "no", "max_steps": 3, "data_seed": 3}
    model = None if from_init else detector(loss, class_weights)
    if from_init:
        options["model_init"] = lambda: detector(loss, class_weights)
    trainer = noise_trainer(model, folder, **options)
    # Micro-batches have different numbers of each class, and so different weights.
    for index, row in enumerate(trainer.train_dataset):
        row["clean"]["labels"], row["augmented"]["labels"] = int(index < 3), int(index > 3)
    trainer.train()
    return weights_of(trainer)


@pytest.mark.parametrize("class_weights", [pytest.param(None, marks=pytest.mark.slow), [0.1, 0.9]])
@pytest.mark.parametrize("loss", MARGIN_LOSSES)
def test_accumulation_changes_nothing(loss, class_weights, tmp_path):
    whole = trained(tmp_path, loss, class_weights, per_device_train_batch_size=8)
    divided = trained(tmp_path, loss, class_weights, per_device_train_batch_size=2, gradient_accumulation_steps=4)
    assert largest_difference(whole, divided) < 2e-6
    start = detector(loss, class_weights).state_dict()
    assert largest_difference(whole, start) > 1e-3
    if class_weights is not None:
        assert largest_difference(whole, trained(tmp_path, loss, None, per_device_train_batch_size=8)) > 1e-4


@pytest.mark.parametrize("loss", LOSSES)
def test_the_loss_of_an_evaluation_is_that_of_all_clips(loss, tmp_path):
    weights = [0.1, 0.9]
    model = detector(loss, weights)
    rows = [row["clean"] for row in noise_trainer(model, tmp_path).train_dataset]
    clips, labels = torch.stack([row["input_values"] for row in rows]), torch.tensor([row["labels"] for row in rows])
    expected = model(clips, labels=labels).loss.item()
    given = CountermeasureMetrics(weights, loss, model.config.loss_options)
    for metrics in (given, CountermeasureMetrics(), None):
        options = {"eval_dataset": rows, "per_device_eval_batch_size": 3, "compute_metrics": metrics}
        assert noise_trainer(model, tmp_path, **options).evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-5)
    equal = noise_trainer(model, tmp_path, eval_dataset=rows, compute_metrics=CountermeasureMetrics([1.0, 1.0]))
    assert equal.evaluate()["eval_loss"] != pytest.approx(expected, rel=1e-2)  # what is given counts


@pytest.mark.parametrize("loss", MARGIN_LOSSES)
def test_label_smoothing_is_refused(loss, tmp_path):
    with pytest.raises(ValueError, match=f"--label_smoothing_factor is for the cross-entropy, but .* loss is {loss}"):
        noise_trainer(detector(loss, None), tmp_path, label_smoothing_factor=0.1)


@pytest.mark.parametrize("loss", MARGIN_LOSSES)
def test_a_model_from_model_init_trains_alike(loss, tmp_path):
    given = trained(tmp_path, loss, [0.1, 0.9], per_device_train_batch_size=4)
    made = trained(tmp_path, loss, [0.1, 0.9], per_device_train_batch_size=4, from_init=True)
    assert largest_difference(given, made) == 0


@pytest.mark.parametrize("class_weights", [None, [0.1, 0.9]])
@pytest.mark.parametrize("loss", MARGIN_LOSSES)
def test_it_is_the_loss_that_is_trained(loss, class_weights, tmp_path):
    model, expected = detector(loss, class_weights), {}
    trainer = noise_trainer(model, tmp_path, per_device_train_batch_size=8, max_steps=1, save_strategy="no")
    weights = None if class_weights is None else torch.tensor(class_weights)
    for view in ("clean", "augmented"):
        clips = torch.stack([row[view]["input_values"] for row in trainer.train_dataset])
        labels = torch.tensor([row[view]["labels"] for row in trainer.train_dataset])
        found = detection_loss(model(clips).logits, labels, loss, model.config.loss_options, weights)
        expected[f"loss_{view}"] = pytest.approx(found.item(), rel=1e-5)
    trainer.train()
    logged = trainer.state.log_history[0]
    assert {name: logged[name] for name in expected} == expected
