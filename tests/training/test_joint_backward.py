import shutil

import pytest
import torch
from gramians import OUR_METHODS
from torch.nn.functional import cross_entropy
from toy import (
    ToyViews,
    collate,
    largest_difference,
    make_arguments,
    make_model,
    make_trainer,
    read_run,
    run_processes,
    weights_of,
)
from transformers import Wav2Vec2ForSequenceClassification

from hf_gradalign.models import small_wav2vec2_config

TINY = {"conv_dim": (8, 8), "conv_stride": (10, 8), "conv_kernel": (10, 8), "hidden_size": 16, "num_hidden_layers": 2}
TINY |= {"num_attention_heads": 2, "intermediate_size": 16, "num_conv_pos_embedding_groups": 2}
TINY |= {"classifier_proj_size": 8, "hidden_dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0}
TINY |= {"feat_proj_dropout": 0.0, "final_dropout": 0.0}
WHOLE_MODEL = {"joint_backward": True, "alignment_parameters": ["."]}
HEAD = {"joint_backward": True, "alignment_parameters": ["^classifier"]}
LOGGED = ("loss", "loss_clean", "loss_augmented", "conflict_rate", "cosine_clean_augmented", "weight_clean")


def train(tmp_path, class_weights=None, **options):
    trainer = make_trainer(tmp_path, model=make_model(class_weights), **options)
    trainer.train()
    return trainer


def assert_same(trainer, other):
    assert largest_difference(weights_of(trainer), weights_of(other)) < 1e-6
    for row, other_row in zip(trainer.state.log_history[:-1], other.state.log_history[:-1], strict=True):
        for name in LOGGED:
            assert row[name] == pytest.approx(other_row[name], abs=1e-5), name


@pytest.mark.parametrize("method", OUR_METHODS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"class_weights": (0.1, 0.9)},
        {"label_smoothing_factor": 0.2},
        {"class_weights": (0.1, 0.9), "label_smoothing_factor": 0.2},
        {"view_weights": {"augmented": 3.0}},
    ],
)
def test_with_the_whole_model_for_a_head_it_is_the_ordinary_step(tmp_path, method, options):
    ordinary = train(tmp_path, align_gradients=method, **options)
    joint = train(tmp_path, align_gradients=method, **options, **WHOLE_MODEL)
    assert_same(ordinary, joint)
    if method != "none" and not options:
        assert largest_difference(weights_of(joint), weights_of(train(tmp_path))) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(("head", "class_weights"), [(WHOLE_MODEL, (0.1, 0.9)), (HEAD, None)])
def test_two_processes(tmp_path, head, class_weights):
    options = {**head, "align_gradients": "gradvac", "max_grad_norm": 0.3}
    whole = train(tmp_path / "whole", class_weights, **options)
    specification = {
        **options,
        "class_weights": class_weights,
        "per_device_train_batch_size": 6,
        "ddp_backend": "gloo",
    }
    run_processes(2, {tmp_path / "parts": specification})
    weights, history = read_run(tmp_path / "parts")
    assert largest_difference(weights_of(whole), weights) < 1e-6
    for row, other in zip(whole.state.log_history[:-1], history[:-1], strict=True):
        for name in LOGGED:
            assert row[name] == pytest.approx(other[name], abs=1e-4), name


def make_speech_trainer(tmp_path, **options):
    torch.manual_seed(0)
    model = Wav2Vec2ForSequenceClassification(small_wav2vec2_config(**TINY)).train()
    return make_trainer(tmp_path, model=model, align_gradients="pcgrad", joint_backward=True, **options)


def speech_batch():
    """Noisy copies with other labels: the gradients conflict."""
    torch.manual_seed(1)
    clean, labels = torch.randn(4, 2000), torch.tensor([0, 1, 1, 0])
    return {
        "clean": {"input_values": clean, "labels": labels},
        "augmented": {"input_values": clean + 0.5 * torch.randn(4, 2000), "labels": labels.roll(1)},
    }


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_gradient_is_that_of_the_weighted_sum(tmp_path, checkpointing):
    trainer, batch = make_speech_trainer(tmp_path), speech_batch()
    model = trainer.model
    if checkpointing:
        model.gradient_checkpointing_enable()
    trainer.training_step(model, batch)
    got = {name: p.grad for name, p in model.named_parameters()}

    reference = make_speech_trainer(tmp_path).model
    named = dict(reference.named_parameters())
    head = [p for name, p in named.items() if name.startswith(("projector", "classifier"))]
    losses = [cross_entropy(reference(v["input_values"]).logits, v["labels"]) for v in batch.values()]
    first, second = (
        torch.cat([g.flatten() for g in torch.autograd.grad(loss, head, retain_graph=True)]) for loss in losses
    )
    a, b, c = first @ first, second @ second, first @ second
    assert c < 0
    ((1 - c / a) / 2 * losses[0] + (1 - c / b) / 2 * losses[1]).backward()
    assert sum(p.grad is not None for p in named.values()) > len(head)
    for name, parameter in named.items():
        if parameter.grad is None:
            assert got[name] is None
        else:
            torch.testing.assert_close(got[name], parameter.grad, atol=1e-6, rtol=1e-4)

    update = trainer.last_update
    torch.testing.assert_close(update.gramians[0], torch.stack([a, c, c, b]).view(2, 2), atol=1e-6, rtol=1e-4)
    is_head = torch.tensor([name.startswith(("projector", "classifier")) for name in named])
    assert update.products[is_head].flatten(1).any(1).all()
    assert not update.products[~is_head].any()
    assert float(update.losses["clean"]) == pytest.approx(float(losses[0].detach()), abs=1e-5)


def test_one_pass_through_the_trunk(tmp_path):
    trainer, batch = make_speech_trainer(tmp_path), speech_batch()
    calls = []
    layer = trainer.model.wav2vec2.encoder.layers[0]
    layer.register_forward_hook(lambda module, args, output: calls.append("forward"))
    layer.register_full_backward_hook(lambda module, gradient, output: calls.append("backward"))
    trainer.training_step(trainer.model, batch)
    assert calls == ["forward", "backward"]


def test_loss_scaling_leaves_the_weights(tmp_path):
    plain, scaled = make_speech_trainer(tmp_path), make_speech_trainer(tmp_path)
    scaled.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for trainer in (plain, scaled):
        trainer.training_step(trainer.model, speech_batch())
    torch.testing.assert_close(scaled.last_update.gramians, 1024**2 * plain.last_update.gramians)
    torch.testing.assert_close(scaled.last_update.weights, plain.last_update.weights)
    assert scaled.last_update.loss_scale == 1024
    weight, scaled_weight = (trainer.model.classifier.weight.grad for trainer in (plain, scaled))
    torch.testing.assert_close(scaled_weight, 1024 * weight)


def test_a_users_loss_is_called_as_by_the_trainer(tmp_path):
    def loss(outputs, labels, num_items_in_batch):
        assert num_items_in_batch is None
        return cross_entropy(2 * outputs.logits, labels)

    options = {"align_gradients": "pcgrad", "compute_loss_func": loss}
    assert_same(train(tmp_path, **options), train(tmp_path, **options, **WHOLE_MODEL))


def test_ordinary_batches_and_evaluation_are_left_alone(tmp_path):
    items = [item["clean"] for item in ToyViews(24)]
    runs = [
        train(tmp_path, dataset=items, eval_dataset=items, eval_strategy="steps", eval_steps=4, **options)
        for options in ({}, HEAD)
    ]
    assert largest_difference(*map(weights_of, runs)) == 0
    assert runs[0].evaluate()["eval_loss"] == runs[1].evaluate()["eval_loss"]
    views = train(tmp_path, eval_dataset=items, eval_strategy="steps", eval_steps=4, **HEAD)
    inputs = collate(items)
    expected = float(views.model(**inputs).loss.detach())
    assert views.evaluate()["eval_loss"] == pytest.approx(expected, abs=1e-5)


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    options = {**HEAD, "align_gradients": "gradvac", "save_strategy": "steps", "save_steps": 1, "logging_steps": 1}
    whole = train(tmp_path / "whole", **options)
    shutil.copytree(tmp_path / "whole" / "checkpoint-3", tmp_path / "resumed" / "checkpoint-3")
    resumed = make_trainer(tmp_path / "resumed", **options)
    resumed.train(resume_from_checkpoint=True)
    assert largest_difference(weights_of(whole), weights_of(resumed)) == 0
    assert resumed.alignment_method.state_dict() == whole.alignment_method.state_dict()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gradient_accumulation_steps": 2}, "one batch only.*leave --gradient_accumulation_steps at 1"),
        ({"alignment_scope": "module"}, "weighs each view as a whole; leave --alignment_scope model"),
    ],
)
def test_arguments_that_do_not_go_together(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        make_arguments(tmp_path, joint_backward=True, **options)


def test_a_model_without_a_head(tmp_path):
    with pytest.raises(ValueError, match=r"ToyClassifier does not say which .* are the head.*--alignment_parameters"):
        make_trainer(tmp_path, joint_backward=True)
    trunk = Wav2Vec2ForSequenceClassification(small_wav2vec2_config(**TINY)).wav2vec2
    with pytest.raises(ValueError, match="Wav2Vec2Model does not say"):
        make_trainer(tmp_path, model=trunk, joint_backward=True)


def test_a_frozen_head(tmp_path):
    model = make_model()
    model.classifier.requires_grad_(False)
    with pytest.raises(ValueError, match="all of the head is frozen"):
        make_trainer(tmp_path, model=model, **HEAD).train()


def views_of(**changes):
    """Two views of four items, the augmented one changed; None takes an input away."""
    clean = {"x": torch.randn(4, 6), "labels": torch.tensor([0, 1, 0, 1])}
    augmented = {name: value for name, value in {**clean, **changes}.items() if value is not None}
    return {"clean": clean, "augmented": augmented}


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (views_of(x=torch.randn(4, 7)), r"'x' cannot be joined \(shapes \[\(4, 6\), \(4, 7\)\]\).*equal shapes"),
        (views_of(x=None), "'x' cannot be joined"),
        (views_of(mask=torch.ones(4)), "cannot be joined"),
        (views_of(labels=None), "cannot be joined"),
        ({"clean": {"x": torch.randn(4, 6)}}, "from logits and labels, and there are no labels"),
        ({"clean": {"x": torch.randn(4, 6), "labels": torch.rand(4)}}, "cross-entropy of integer labels"),
    ],
)
def test_views_that_cannot_be_joined(tmp_path, batch, message):
    trainer = make_trainer(tmp_path, **HEAD)
    with pytest.raises(ValueError, match=message):
        trainer.training_step(trainer.model, batch)
