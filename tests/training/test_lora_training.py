"""Trainings with LoRA adapters: what is aligned, averaged, saved and resumed."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_detectors import make_clips, make_detector, noise_trainer
from toy import largest_difference, timeless, weights_of

from hf_gradalign.models import load_audio_classifier
from hf_gradalign.models.lora import add_lora
from hf_gradalign.scoring import SpoofScorer
from hf_gradalign.training import average_checkpoints, load_whole_state

CLIPS = [clip.numpy() for clip in 0.1 * make_clips(2)]


def trainer_of(folder, model=None, **options):
    """A trainer of a detector with batch norms in its head, which saves each step."""
    model = model or make_detector(head="aasist", n_samples=3200)
    extractor = model.make_feature_extractor()
    options = {"save_strategy": "steps", "save_steps": 1, **options}
    return noise_trainer(add_lora(model, extractor, 2), folder, processing_class=extractor, **options)


def test_the_gradients_of_the_adapters_are_aligned(tmp_path):
    """PCGrad by hand on what is trained, and on nothing else."""
    model = make_detector(n_samples=3200)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for layer in model.backbone.encoder.layers:
        layer.attention.dropout = 0.0
    rate = 0.5
    trainer = trainer_of(
        tmp_path, model, optim="sgd", learning_rate=rate, lr_scheduler_type="constant", max_steps=1, max_grad_norm=0.0,
        per_device_train_batch_size=8, save_strategy="no"
    )  # fmt: skip
    for name, parameter in trainer.model.named_parameters():
        if ".lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    names = [name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad]
    parameters = dict(trainer.model.named_parameters())
    rows = trainer.train_dataset
    for row in rows:
        row["clean"]["labels"], row["augmented"]["labels"] = 0, 1  # so that the views conflict
    found = {}
    trainer.model.train()
    for view in ("clean", "augmented"):
        clips = torch.stack([row[view]["input_values"] for row in rows])
        labels = torch.tensor([row[view]["labels"] for row in rows])
        loss = trainer.model(clips, labels=labels).loss
        found[view] = torch.autograd.grad(loss, [parameters[name] for name in names])
    first, second = (torch.cat([g.flatten() for g in found[view]]) for view in found)
    product = first @ second
    assert product < 0, "the views do not conflict, and this says nothing"
    update = (1 - product / first.square().sum()) * first + (1 - product / second.square().sum()) * second
    expected = torch.cat([parameters[name].detach().flatten() for name in names]) - rate * update / 2
    before = {name: value.detach().clone() for name, value in parameters.items()}
    trainer.train()
    after = torch.cat([parameters[name].detach().flatten() for name in names])
    torch.testing.assert_close(after, expected, atol=2e-6, rtol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in parameters.items() if name not in names)


def test_resumed_to_the_bit(tmp_path):
    whole = trainer_of(tmp_path / "a", layerwise_lr_decay=0.5, head_learning_rate=0.02, save_steps=2)
    whole.train()
    resumed = trainer_of(tmp_path / "b", layerwise_lr_decay=0.5, head_learning_rate=0.02, save_steps=2)
    shutil.copytree(Path(whole.args.output_dir, "checkpoint-2"), Path(resumed.args.output_dir, "checkpoint-2"))
    resumed.train(resume_from_checkpoint=True)
    assert largest_difference(weights_of(whole), weights_of(resumed)) == 0
    assert timeless(whole.state.log_history) == timeless(resumed.state.log_history)
    statistics = [name for name in weights_of(whole) if "running_mean" in name and "modules_to_save" in name]
    assert statistics


@pytest.mark.parametrize("merges", [True, False])
def test_checkpoints_and_outputs_score_alike(tmp_path, merges):
    base = make_detector(head="aasist", n_samples=3200)
    base.save_pretrained(tmp_path / "base")
    model, _ = load_audio_classifier(str(tmp_path / "base"))
    trainer = trainer_of(tmp_path / "run", model, merge_adapters=merges, max_steps=2)
    trainer.train()
    trainer.save_model()
    expected = SpoofScorer(trainer.model, trainer.processing_class).score(CLIPS)
    run = tmp_path / "run"
    assert (run / "model.safetensors").exists() == (run / "adapter").exists() == merges
    assert (run / "adapter_model.safetensors").exists() != merges
    for folder in (run, run / "checkpoint-2", *([run / "adapter"] if merges else [])):
        np.testing.assert_allclose(SpoofScorer(folder).score(CLIPS), expected, atol=1e-5)


def test_the_average_of_adapters(tmp_path):
    trainer = trainer_of(tmp_path, max_steps=2)
    trainer.train()
    files = [tmp_path / f"checkpoint-{step}" / "adapter_model.safetensors" for step in (1, 2)]
    average = average_checkpoints(files)
    assert load_whole_state(trainer.model, average) == ([], [])
    first, second = map(load_file, files)
    for name, value in weights_of(trainer).items():
        if "lora_" in name or ("modules_to_save" in name and value.is_floating_point()):
            key = name.replace(".modules_to_save.default", "").replace(".default", "")
            torch.testing.assert_close(value, (first[key] + second[key]) / 2)
    some = dict(list(average.items())[1:])
    missing, unexpected = load_whole_state(trainer.model, some | {"else": torch.zeros(1)})
    assert missing == [next(iter(average))]
    assert unexpected == ["else"]


def test_no_adapters_to_save_alone(tmp_path):
    with pytest.raises(ValueError, match="--no_merge_adapters is for models with adapters"):
        noise_trainer(make_detector(), tmp_path, merge_adapters=False)


def test_gradient_checkpointing_gives_the_same_weights(tmp_path):
    plain = trainer_of(tmp_path / "a", make_detector(n_samples=3200), save_strategy="no")
    plain.train()
    options = {"gradient_checkpointing": True, "save_strategy": "no"}
    checkpointed = trainer_of(tmp_path / "b", make_detector(n_samples=3200), **options)
    checkpointed.train()
    assert largest_difference(weights_of(plain), weights_of(checkpointed)) < 1e-5


@pytest.mark.parametrize("adapts", [True, False])
def test_checkpointing_that_would_drop_gradients(adapts, tmp_path):
    options = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}}
    model = make_detector(n_samples=3200)
    model.freeze_feature_encoder()
    assert noise_trainer(model, tmp_path, **options)
    if adapts:
        model = add_lora(model, model.make_feature_extractor(), 2)
    else:
        model.freeze_encoder_layers(1)
    with pytest.raises(ValueError, match="use_reentrant would drop all gradients of the encoder"):
        noise_trainer(model, tmp_path, **options)


def test_only_one_process_saves(tmp_path, monkeypatch):
    trainer = trainer_of(tmp_path)
    monkeypatch.setattr(type(trainer.args), "should_save", property(lambda args: False))
    trainer.save_model(str(tmp_path / "other"))  # which the process that saves may not have made yet
    assert not (tmp_path / "other").exists()


def test_the_folder_of_the_adapters(tmp_path):
    trainer = trainer_of(tmp_path / "run")
    trainer.save_model()
    names = {path.name for path in (tmp_path / "run" / "adapter").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "config.json", "preprocessor_config.json"} <= names
    assert "README.md" not in names  # PEFT's, which is a form to fill in
