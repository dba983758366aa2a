"""Learning rates of their own for the head and for each layer."""

import shutil
from pathlib import Path

import pytest
import torch
from tiny_detectors import FAMILIES, make_classifier, make_clips, make_detector, noise_trainer
from toy import largest_difference, make_model, make_trainer, timeless, weights_of

from hf_gradalign.training import CoupledDecayAdam, GradientAlignmentTrainer

RATES = {"learning_rate": 0.01, "head_learning_rate": 0.03, "layerwise_lr_decay": 0.5}


def expected_rate(name, norm_is_last=False):
    """The rate that RATES gives a parameter of a detector with two layers."""
    if not name.startswith("backbone."):
        return 0.03
    if name.startswith("backbone.encoder.layers."):
        return (0.005, 0.01)[int(name.split(".")[3])]
    return 0.01 if norm_is_last and "encoder.layer_norm" in name else 0.0025


def train(*positional, **options):
    """Make a trainer, which seeds dropout, and train."""
    trainer = noise_trainer(*positional, **options)
    trainer.train()
    return trainer


def rates_of(trainer):
    names = {parameter: name for name, parameter in trainer.model.named_parameters()}
    groups = trainer.create_optimizer().param_groups
    found = [(names[parameter], group) for group in groups for parameter in group["params"]]
    assert len(found) == len(dict(found)) == len(names)
    return {name: (group["lr"], group["weight_decay"]) for name, group in found}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_has_its_rate(family, tmp_path):
    trainer = noise_trainer(make_detector(family), tmp_path, weight_decay=0.1, **RATES)
    decayed = trainer.get_decay_parameter_names(trainer.model)
    for name, (rate, weight_decay) in rates_of(trainer).items():
        assert rate == expected_rate(name, family == "wav2vec2-conformer"), name
        assert weight_decay == (0.1 if name in decayed else 0), name
    assert trainer.optimizer.param_groups[0]["lr"] == 0.01  # which the Trainer logs


def test_only_the_head(tmp_path):
    trainer = noise_trainer(make_classifier(), tmp_path, head_learning_rate=0.5)
    for name, (rate, _) in rates_of(trainer).items():
        assert rate == (0.01 if name.startswith("wav2vec2.") else 0.5)


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, CoupledDecayAdam])
def test_same_updates_as_with_groups_made_by_hand(optimizer, tmp_path):
    model = make_detector()
    decayed = noise_trainer(model, tmp_path / "a").get_decay_parameter_names(model)
    decay_all = optimizer is CoupledDecayAdam
    groups = [
        {"params": [p], "lr": expected_rate(name), "weight_decay": 0.1 * (decay_all or name in decayed)}
        for name, p in model.named_parameters()
    ]
    by_hand = torch.optim.Adam(groups) if decay_all else torch.optim.AdamW(groups)
    schedule = torch.optim.lr_scheduler.LambdaLR(by_hand, lambda step: 1 - step / 4)
    expected = train(model, tmp_path / "a", optimizers=(by_hand, schedule))
    chosen = {"optimizer_cls_and_kwargs": (optimizer, {"lr": 0.01, "weight_decay": 0.1})} if decay_all else {}
    found = train(make_detector(), tmp_path / "b", weight_decay=0.1, **chosen, **RATES)
    assert largest_difference(weights_of(expected), weights_of(found)) < 2e-5  # one is fused
    plain = train(make_detector(), tmp_path / "c", weight_decay=0.1, **chosen)
    assert largest_difference(weights_of(plain), weights_of(found)) > 1e-3


def test_equal_rates_change_nothing(tmp_path):
    plain = train(make_detector(), tmp_path / "a")
    split = train(make_detector(), tmp_path / "b", layerwise_lr_decay=1.0, head_learning_rate=0.01)
    assert largest_difference(weights_of(plain), weights_of(split)) == 0
    assert len(plain.optimizer.param_groups) == len(split.optimizer.param_groups) == 2


def test_resumed_to_the_bit(tmp_path):
    options = {"save_strategy": "steps", "save_steps": 2, **RATES}
    whole = train(make_detector(), tmp_path / "a", **options)
    resumed = noise_trainer(make_detector(), tmp_path / "b", **options)
    shutil.copytree(Path(whole.args.output_dir, "checkpoint-2"), Path(resumed.args.output_dir, "checkpoint-2"))
    resumed.train(resume_from_checkpoint=True)
    assert largest_difference(weights_of(whole), weights_of(resumed)) == 0
    assert timeless(whole.state.log_history) == timeless(resumed.state.log_history)


def test_a_search_over_the_rate_of_the_head(tmp_path):
    common = {"eval_strategy": "steps", "eval_steps": 2, "max_steps": 2, "save_strategy": "no"}
    common["eval_dataset"] = [{"input_values": clip, "labels": i % 2} for i, clip in enumerate(make_clips(4))]
    common["model_init"] = lambda: make_detector(class_weights=[0.1, 0.9])
    searched = noise_trainer(None, tmp_path, **common)
    trained = {}

    def objective(metrics):
        trained[searched.args.head_learning_rate] = metrics["eval_loss"]
        return metrics["eval_loss"]

    optuna = pytest.importorskip("optuna")
    sampler = optuna.samplers.RandomSampler(seed=0)
    searched.hyperparameter_search(
        lambda trial: {"head_learning_rate": trial.suggest_float("head_learning_rate", 0.01, 0.2)},
        objective,
        n_trials=2,
        backend="optuna",
        sampler=sampler,
    )
    assert len(trained) == 2
    for rate, loss in trained.items():
        alone = train(None, tmp_path / "alone", head_learning_rate=rate, **common)
        assert alone.state.log_history[-2]["eval_loss"] == loss


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head_learning_rate": 0.0}, "--head_learning_rate must be a positive number, got 0.0"),
        ({"head_learning_rate": float("inf")}, "--head_learning_rate must be a positive number, got inf"),
        ({"layerwise_lr_decay": 0.0}, "--layerwise_lr_decay must be above 0 and at most 1, got 0.0"),
        ({"layerwise_lr_decay": 1.1}, "--layerwise_lr_decay must be above 0 and at most 1, got 1.1"),
    ],
)
def test_values_out_of_range_are_refused(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        make_trainer(tmp_path, **options)


def frozen_backbone():
    model = make_detector()
    model.freeze_backbone()
    return model


def frozen_head():
    model = make_detector()
    model.head.requires_grad_(False)
    return model


def one_layer_left():
    model = make_detector()
    model.freeze_encoder_layers(1)
    return model


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (make_model, {"head_learning_rate": 0.1}, "--head_learning_rate: ToyClassifier has no encoder apart from"),
        (make_model, {"layerwise_lr_decay": 0.9}, "--layerwise_lr_decay: ToyClassifier has no encoder apart from"),
        (frozen_head, {"head_learning_rate": 0.1}, "SpoofDetectorFor.* has no trainable weights outside its encoder"),
        (frozen_backbone, {"head_learning_rate": 0.1}, "only the head is trained, because the encoder is frozen"),
        (frozen_backbone, {"layerwise_lr_decay": 0.9}, "--layerwise_lr_decay 0.9 lowers .* everything there is frozen"),
        (one_layer_left, {"layerwise_lr_decay": 0.9}, "--layerwise_lr_decay 0.9 lowers .* everything there is frozen"),
    ],
)
def test_rates_without_an_effect_are_refused(make, options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        noise_trainer(make(), tmp_path, **options)


def test_an_encoder_without_layers(tmp_path):
    model = make_detector()
    model.backbone.encoder.layers = torch.nn.ModuleList()
    with pytest.raises(ValueError, match="--layerwise_lr_decay: Wav2Vec2Model has no transformer layers; remove it"):
        noise_trainer(model, tmp_path, layerwise_lr_decay=0.9)
    assert isinstance(noise_trainer(model, tmp_path, head_learning_rate=0.9), GradientAlignmentTrainer)


def test_your_own_optimizer(tmp_path):
    model = make_detector()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="put the rates into its parameter groups"):
        noise_trainer(model, tmp_path, optimizers=(optimizer, None), head_learning_rate=0.1)
