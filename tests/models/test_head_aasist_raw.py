"""AASIST on raw waveforms, as a detector."""

import re

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_detectors import (
    LABELS,
    LENGTHS,
    PADDED,
    ROUNDING,
    SMALL_RAW,
    TINY_SINC,
    gradients,
    make_clips,
    make_config,
    make_detector,
    noise_trainer,
)
from torch.nn.functional import cross_entropy
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

from hf_gradalign.models import SpoofDetectorConfig, SpoofDetectorForAudioClassification

# Biases that a batch norm or softmax follows, as in `test_heads.py`.
WITHOUT_EFFECT = re.compile(
    r"head\.(encoder\.\d\.conv1\.bias|(\w+_graph|branches\.\d\.layer\d)\.(attended|itself)\.bias)"
)


def logits_of(model, clips, **inputs):
    with torch.no_grad():
        return model(clips, **inputs).logits


def test_a_padded_clip_gets_the_logits_that_it_gets_alone():
    model, clips = make_detector("sinc"), make_clips()
    together = logits_of(model, torch.where(PADDED, clips, 100.0), attention_mask=PADDED.long())
    alone = [logits_of(model, clip[None, :length]) for clip, length in zip(clips, LENGTHS, strict=True)]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=0)
    assert together.std(0).min() > 1e-4  # the clips differ
    whole = torch.ones_like(clips, dtype=torch.long)
    torch.testing.assert_close(
        logits_of(model, clips, attention_mask=whole), logits_of(model, clips), atol=1e-5, rtol=0
    )


def test_a_clip_needs_a_temporal_node():
    model, clips = make_detector("sinc"), make_clips()
    shortest = 27 + 31 - 1
    assert logits_of(model, clips[:, :shortest]).isfinite().all()
    with pytest.raises(
        ValueError, match="a clip is too short: the filters give 26 values, and AASIST needs at least 27"
    ):
        logits_of(model, clips[:, : shortest - 1])
    mask = torch.ones_like(clips, dtype=torch.long)
    mask[1, 40:] = 0
    with pytest.raises(ValueError, match="the filters give 10 values"):
        logits_of(model, clips, attention_mask=mask)


def test_nodes_are_the_largest_magnitudes():
    model, clips, logits = make_detector("sinc"), make_clips(), []
    for value in (0.5, -0.5, 0.7):
        hook = model.head.encoder[-1].register_forward_hook(lambda *call, value=value: torch.full_like(call[2], value))
        with hook:
            logits.append(logits_of(model, clips))
    assert torch.equal(logits[0], logits[1])
    assert not torch.allclose(logits[0], logits[2])


def test_logits_depend_on_every_parameter():
    model = SpoofDetectorForAudioClassification(make_config("sinc")).double().train()
    torch.manual_seed(0)
    logits = model(make_clips(6).double()).logits
    (logits * torch.randn_like(logits)).sum().backward()
    idle = {name for name, parameter in model.named_parameters() if parameter.grad.abs().max() < 1e-9}
    assert idle == {name for name, _ in model.named_parameters() if WITHOUT_EFFECT.fullmatch(name)}


def test_the_loss_is_weighted_and_half_precision_trains():
    model, clips = make_detector("sinc", class_weights=[0.1, 0.9]), make_clips()
    output = model(clips, labels=LABELS)
    expected = cross_entropy(output.logits, LABELS, weight=torch.tensor([0.1, 0.9]))
    torch.testing.assert_close(output.loss, expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = gradients(model.train(), clips, attention_mask=PADDED.long())
    assert all(gradient.isfinite().all() for gradient in found.values())
    assert found.keys() == dict(model.named_parameters()).keys()


def test_saved_whole_with_its_feature_extractor(tmp_path):
    model, clips = make_detector("sinc", n_samples=3200), make_clips()
    model.save_pretrained(tmp_path)
    loaded, report = AutoModelForAudioClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert torch.allclose(logits_of(loaded, clips), logits_of(model, clips), atol=ROUNDING)
    extractor = AutoFeatureExtractor.from_pretrained(tmp_path)
    long, short = extractor([clips[0].repeat(2).numpy(), clips[1, :2000].numpy()], return_tensors="pt").input_values
    assert torch.equal(long, clips[0])
    assert torch.equal(short, clips[1, :2000].repeat(2)[:3200])


def test_missing_weights_are_initialized(tmp_path):
    model = make_detector("sinc")
    model.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    kept = {name: value for name, value in load_file(path).items() if "classifier" not in name}
    save_file({name: value for name, value in kept.items() if "spectral_position" not in name}, path, {"format": "pt"})
    loaded, report = AutoModelForAudioClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert {name.split(".")[1] for name in report["missing_keys"]} == {"classifier", "spectral_position"}
    assert loaded.head.spectral_position.std() > 0.5
    assert torch.equal(loaded.head.encoder[1].conv1.weight, model.head.encoder[1].conv1.weight)


def test_unsupported_options_are_refused():
    model = make_detector("sinc")
    for freeze in (model.freeze_feature_encoder, model.freeze_backbone):
        with pytest.raises(ValueError, match="the front end sinc has no weights to freeze: its filters are fixed"):
            freeze()
    with pytest.raises(ValueError, match="SincFrontEnd has no list of transformer layers to freeze"):
        model.freeze_encoder_layers(1)
    with pytest.raises(ValueError, match="does not support"):
        model.gradient_checkpointing_enable()


def test_other_heads_and_options_are_refused():
    for head in ("mamba", "linear"):
        config = SpoofDetectorConfig(TINY_SINC, head)
        with pytest.raises(ValueError, match=f"there is no head '{head}' for the front end sinc; available: aasist"):
            SpoofDetectorForAudioClassification(config)
    for options, message in (
        ({"attention_size": 8}, "no option attention_size; it has channels, graph_sizes, pool_ratios, temperatures"),
        (
            {"pool_ratios": [0.5, 0.7, 1.5]},
            r"pool_ratios must be three numbers above 0 and up to 1, got \[0.5, 0.7, 1.5",
        ),
        ({"pool_ratios": [0.5, 0.7]}, "pool_ratios must be three numbers"),
        ({"temperatures": [2, 2, 0]}, r"temperatures must be three positive numbers, got \[2, 2, 0\]"),
    ):
        with pytest.raises(ValueError, match=message):
            SpoofDetectorForAudioClassification(SpoofDetectorConfig(TINY_SINC, "aasist", SMALL_RAW | options))


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    def trained(folder, checkpoint=None):
        torch.manual_seed(0)
        options = {"save_strategy": "steps", "save_steps": 2}
        trainer = noise_trainer(SpoofDetectorForAudioClassification(make_config("sinc")), folder, **options)
        trainer.train(resume_from_checkpoint=checkpoint)
        return trainer.model.state_dict()

    whole = trained(tmp_path / "whole")
    resumed = trained(tmp_path / "again", str(tmp_path / "whole" / "checkpoint-2"))
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())


def test_adapters_on_its_linear_layers():
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(make_detector("sinc"), peft.LoraConfig(r=2, target_modules=["attended"]))
    model(make_clips(), labels=LABELS).loss.backward()
    trained = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert trained
    assert all("lora_" in name for name in trained)
