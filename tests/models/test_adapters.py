"""The output of a PEFT run can be loaded: merged, or as adapters with their base model."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_detectors import TINY, make_detector
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForSequenceClassification,
    Wav2Vec2Model,
    pipeline,
)

from hf_gradalign.models import load_audio_classifier
from hf_gradalign.scoring import SpoofScorer
from hf_gradalign.training import GradientAlignmentArguments, GradientAlignmentTrainer
from hf_gradalign.training.adapters import copy_with_merged_adapters

peft = pytest.importorskip("peft")
CLIP = np.random.default_rng(0).normal(0, 0.1, 3200).astype(np.float32)


def with_adapters(model, heads):
    torch.manual_seed(0)
    lora = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], modules_to_save=heads)
    return peft.get_peft_model(model, lora)


def train(model, extractor, folder, resume=None, steps=2):
    generator = torch.Generator().manual_seed(0)
    clips = torch.randn(8, 3200, generator=generator)
    rows = [
        {view: {"input_values": clip, "labels": i % 2} for view in ("clean", "augmented")}
        for i, clip in enumerate(clips)
    ]
    options = {"per_device_train_batch_size": 4, "save_steps": 1, "report_to": [], "disable_tqdm": True}
    options |= {"learning_rate": 0.05, "align_gradients": "pcgrad", "use_cpu": True}
    options |= {"lr_scheduler_type": "constant"}
    args = GradientAlignmentArguments(str(folder), max_steps=steps, **options)
    trainer = GradientAlignmentTrainer(model=model, args=args, train_dataset=rows, processing_class=extractor)
    trainer.train(resume_from_checkpoint=resume)
    trainer.save_model()
    return trainer


def stock_classifier(folder, labels=("spoof", "bonafide")):
    torch.manual_seed(0)
    config = AutoConfig.for_model("wav2vec2", **TINY, classifier_proj_size=8)
    config.id2label, config.label2id = dict(enumerate(labels)), {name: i for i, name in enumerate(labels)}
    Wav2Vec2ForSequenceClassification(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor().save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("kind", ["stock", "ours"])
def test_a_run_is_saved_merged(kind, tmp_path):
    if kind == "stock":
        base, extractor = load_audio_classifier(stock_classifier(tmp_path / "base"))
        model = with_adapters(base, ["classifier", "projector"])
    else:  # a base without a name
        base = make_detector(n_samples=3200)
        model, extractor = with_adapters(base, ["head"]), base.make_feature_extractor()
    start = SpoofScorer(model, extractor).score([CLIP])
    trainer = train(model, extractor, tmp_path / "run")
    expected = SpoofScorer(trainer.model, extractor).score([CLIP])
    assert abs(expected - start) > 1e-4
    run = str(tmp_path / "run")
    np.testing.assert_allclose(SpoofScorer(run).score([CLIP]), expected, atol=1e-5)
    loaded, _ = load_audio_classifier(run)
    np.testing.assert_allclose(SpoofScorer(loaded, extractor).score([CLIP]), expected, atol=1e-5)
    plain = AutoModelForAudioClassification.from_pretrained(run)
    np.testing.assert_allclose(
        SpoofScorer(plain, AutoFeatureExtractor.from_pretrained(run)).score([CLIP]), expected, atol=1e-5
    )
    (best, *_) = pipeline("audio-classification", run)({"array": CLIP, "sampling_rate": 16_000})
    assert best["label"] == ("bonafide" if expected > 0 else "spoof")
    assert {"adapter_config.json", "adapter_model.safetensors"} <= {
        p.name for p in (tmp_path / "run/adapter").iterdir()
    }
    assert not (tmp_path / "run" / "adapter_config.json").exists()  # otherwise transformers would add them again
    assert any("lora_" in name for name, _ in trainer.model.named_parameters())  # the trainer's model is not changed


def test_a_run_is_resumed(tmp_path):
    def fresh():
        base = make_detector(n_samples=3200)
        return with_adapters(base, ["head"]), base.make_feature_extractor()

    train(*fresh(), tmp_path / "whole")
    train(*fresh(), tmp_path / "parts", steps=1)
    train(*fresh(), tmp_path / "parts", resume=str(tmp_path / "parts" / "checkpoint-1"))
    scores = [SpoofScorer(tmp_path / name).score([CLIP]) for name in ("whole", "parts")]
    np.testing.assert_array_equal(*scores)


def test_adapters_whose_base_is_found(tmp_path, monkeypatch):
    (tmp_path / "elsewhere" / "in").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "elsewhere" / "in")
    base = stock_classifier(tmp_path / "base", labels=("fake", "real"))
    model, extractor = load_audio_classifier(base)
    model = with_adapters(model, ["classifier"])
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(tmp_path / "adapter")
    expected = SpoofScorer(model, extractor).score([CLIP])
    np.testing.assert_allclose(SpoofScorer(tmp_path / "adapter").score([CLIP]), expected, atol=1e-5)
    loaded, its_extractor = load_audio_classifier(str(tmp_path / "adapter"))
    np.testing.assert_allclose(SpoofScorer(loaded, its_extractor).score([CLIP]), expected, atol=1e-5)

    settings = tmp_path / "adapter" / "adapter_config.json"
    content = json.loads(settings.read_text())
    settings.write_text(json.dumps(content | {"base_model_name_or_path": "../base"}))  # from the adapters' folder
    np.testing.assert_allclose(SpoofScorer(tmp_path / "adapter").score([CLIP]), expected, atol=1e-5)
    stock_classifier(tmp_path / "elsewhere" / "base")  # and from the working folder
    with pytest.raises(OSError, match=r"/base, which can be .*/base or .*/elsewhere/base: write its absolute path"):
        SpoofScorer(tmp_path / "adapter")
    settings.write_text(json.dumps(content | {"base_model_name_or_path": str(tmp_path / "gone")}))
    with pytest.raises(OSError, match=r"PEFT adapters for the model .*gone, which does not exist"):
        SpoofScorer(tmp_path / "adapter")
    settings.write_text("{")
    with pytest.raises(OSError, match=r"adapter_config.json is truncated or not JSON"):
        SpoofScorer(tmp_path / "adapter")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda key: key.replace("wav2vec2.", "hubert."), "they lack 8 weights, and it has no place for 8 of theirs"),
        (lambda key: None if "layers.1." in key else key, "they lack 4 weights, and it has no place for 0 of theirs"),
        (lambda key: key.replace("layers.1.", "layers.7."), "they lack 4 weights, and it has no place for 4 of theirs"),
    ],
    ids=["another encoder", "half of the layers", "more layers"],
)
def test_adapters_of_another_base(change, message, tmp_path):
    """PEFT takes what fits, and leaves the rest of the base as it is."""
    model, _ = load_audio_classifier(stock_classifier(tmp_path / "base"))
    with_adapters(model, ["classifier"]).save_pretrained(tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    changed = {change(key): value for key, value in load_file(path).items() if change(key)}
    save_file(changed, path)
    with pytest.raises(ValueError, match=f"the adapters do not fit their base model: {message}"):
        SpoofScorer(tmp_path / "adapter")


def test_adapters_with_biases(tmp_path):
    """PEFT saves those of the head twice, under a name that it does not read."""
    model, extractor = load_audio_classifier(stock_classifier(tmp_path / "base"))
    lora = peft.LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["classifier"], bias="all")
    model = peft.get_peft_model(model, lora)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(tmp_path / "adapter")
    expected = SpoofScorer(model, extractor).score([CLIP])
    np.testing.assert_allclose(SpoofScorer(tmp_path / "adapter").score([CLIP]), expected, atol=1e-5)


def test_a_head_saved_with_the_adapters(tmp_path):
    """The base is an encoder without a head."""
    torch.manual_seed(0)
    Wav2Vec2Model(AutoConfig.for_model("wav2vec2", **TINY, classifier_proj_size=8)).save_pretrained(
        tmp_path / "encoder"
    )
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path / "encoder")
    model, extractor = load_audio_classifier(str(tmp_path / "encoder"))
    with_adapters(model, ["classifier", "projector"]).save_pretrained(tmp_path / "adapter")
    expected = SpoofScorer(model, extractor).score([CLIP])
    scorer = SpoofScorer(tmp_path / "adapter", bonafide_label="LABEL_1")
    np.testing.assert_allclose(scorer.score([CLIP]), expected, atol=1e-5)
    model, _ = load_audio_classifier(str(tmp_path / "encoder"))
    with_adapters(model, ["projector"]).save_pretrained(tmp_path / "adapter")
    with pytest.raises(ValueError, match=r"lacks 2 weights .*classifier"):
        SpoofScorer(tmp_path / "adapter", bonafide_label="LABEL_1")


def test_adapters_that_name_no_base(tmp_path):
    base, extractor = load_audio_classifier(stock_classifier(tmp_path / "base", labels=("real", "fake")))
    # The rows were swapped, so adapters of this model do not fit the original, which has other labels.
    train(with_adapters(base, ["classifier"]), extractor, tmp_path / "run")
    for load in (SpoofScorer, load_audio_classifier):
        with pytest.raises(OSError, match=r"PEFT adapters and does not name their base model; .*run has the merged"):
            load(str(tmp_path / "run" / "checkpoint-2"))
        with pytest.raises(OSError, match=r"PEFT adapters and does not name their base model; .*run has the merged"):
            load(str(tmp_path / "run" / "adapter"))


def test_adapters_that_cannot_be_merged(caplog):
    class Prompts(torch.nn.Module):
        def merge_and_unload(self):
            raise AttributeError("prompts have no merge_and_unload")

    assert copy_with_merged_adapters(Prompts()) is None
    assert "cannot be merged into the model (prompts have no merge_and_unload)" in caplog.text
