"""Detectors on encoders that take features: w2v-BERT 2.0 and Whisper's encoder."""

import json

import numpy as np
import pytest
import torch
from tiny_detectors import FEATURE_ENCODERS, LABELS, OWN_EXTRACTORS, SMALL, gradients
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForAudioClassification,
)

from hf_gradalign.data import ViewCollator
from hf_gradalign.models import SpoofDetectorConfig, SpoofDetectorFeatureExtractor, SpoofDetectorForAudioClassification
from hf_gradalign.scoring import SpoofScorer

N_SAMPLES = 8000
FAMILY = pytest.mark.parametrize("family", FEATURE_ENCODERS)


def make_detector(family, head="linear", **options):
    torch.manual_seed(0)
    config = SpoofDetectorConfig(
        AutoConfig.for_model(family, **FEATURE_ENCODERS[family]), head, SMALL[head], n_samples=N_SAMPLES, **options
    )
    return SpoofDetectorForAudioClassification(config).eval()


def make_waves(*lengths):
    rng = np.random.default_rng(0)
    return [rng.normal(0, 0.1, length).astype(np.float32) for length in lengths or (N_SAMPLES, N_SAMPLES, N_SAMPLES)]


@FAMILY
def test_features_match_the_encoders_extractor(family):
    waves = make_waves(9000, 8000)
    found = make_detector(family).make_feature_extractor()(waves, sampling_rate=16_000, return_tensors="pt")
    assert list(found) == ["input_features", "attention_mask"]
    expected = OWN_EXTRACTORS[family](
        [wave[:N_SAMPLES] for wave in waves], sampling_rate=16_000, return_attention_mask=True
    )
    assert torch.equal(found["input_features"], torch.as_tensor(np.asarray(expected["input_features"])))
    assert torch.equal(found["attention_mask"], torch.as_tensor(np.asarray(expected["attention_mask"])))
    normalizing = make_detector(family, do_normalize=True).make_feature_extractor()
    loud, quiet = (normalizing([waves[0] * gain])["input_features"] for gain in (1.0, 0.5))
    assert np.allclose(loud, quiet, atol=1e-3)


# Whisper's encoder always takes 30 s, so it is slow with more than one head.
@pytest.mark.parametrize(
    ("family", "head"),
    [
        pytest.param(family, head, marks=pytest.mark.slow if family == "whisper" and head != "linear" else [])
        for family in FEATURE_ENCODERS
        for head in ("linear", "aasist", "mhfa")
    ],
)
def test_a_padded_clip_gets_the_logits_that_it_gets_alone(family, head):
    model = make_detector(family, head)
    extractor = model.make_feature_extractor()
    extractor.n_samples = None
    waves = make_waves(8000, 5200, 6400)
    with torch.no_grad():
        together = model(**extractor(waves, return_tensors="pt")).logits
        alone = torch.cat([model(**extractor(wave, return_tensors="pt")).logits for wave in waves])
    assert torch.allclose(together, alone, atol=1e-4)
    assert together.std(0).min() > 1e-5


@pytest.mark.parametrize(
    ("family", "options"),
    [
        *((family, {}) for family in FEATURE_ENCODERS),
        ("wav2vec2-bert", {"layer_merging": "sea"}),
        pytest.param("whisper", {"layer_merging": "sea"}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_saved_loaded_scored_and_collated(family, options, tmp_path):
    model = make_detector(family, **options)
    model.save_pretrained(tmp_path)
    loaded, report = AutoModelForAudioClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    extractor = AutoFeatureExtractor.from_pretrained(tmp_path)
    assert type(extractor) is SpoofDetectorFeatureExtractor
    waves = make_waves()
    items = [{"input_values": wave, "labels": label} for wave, label in zip(waves, LABELS.tolist(), strict=True)]
    with torch.no_grad():
        logits = model(**model.make_feature_extractor()(waves, return_tensors="pt")).logits
        output = loaded(**ViewCollator(extractor)(items))
    assert torch.allclose(output.logits, logits, atol=1e-6)
    assert output.loss.isfinite()
    scores = SpoofScorer(tmp_path).score(waves)
    assert scores == pytest.approx((logits[:, 1] - logits[:, 0]).tolist(), abs=1e-5)
    assert json.loads((tmp_path / "config.json").read_text())["encoder_extractor"] == model.config.encoder_extractor


@FAMILY
def test_every_weight_gets_a_gradient(family):
    model = make_detector(family, "mhfa").train()
    inputs = model.make_feature_extractor()(make_waves(), return_tensors="pt")
    found = gradients(model, None, **inputs)
    idle = {"backbone.masked_spec_embed", "head.key.bias"}
    missing = {name for name, p in model.named_parameters() if p.requires_grad} - found.keys()
    assert missing <= idle
    assert all(gradient.isfinite().all() for gradient in found.values())


@FAMILY
def test_from_a_pretrained_encoder(family, tmp_path):
    torch.manual_seed(3)
    encoder = AutoModel.from_config(AutoConfig.for_model(family, **FEATURE_ENCODERS[family]))
    encoder.save_pretrained(tmp_path)
    with pytest.raises(OSError, match="preprocessor_config"):
        SpoofDetectorForAudioClassification.from_backbone(str(tmp_path), head="linear")
    OWN_EXTRACTORS[family].save_pretrained(tmp_path)
    model = SpoofDetectorForAudioClassification.from_backbone(str(tmp_path), head="linear")
    theirs = (encoder.get_encoder() if family == "whisper" else encoder).state_dict()
    ours = model.backbone.state_dict()
    assert ours.keys() == theirs.keys() - {"masked_spec_embed"}
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    own = OWN_EXTRACTORS[family].to_dict()
    assert {name: model.config.encoder_extractor[name] for name in own} == own


@FAMILY
def test_freezing(family):
    model = make_detector(family)
    with pytest.raises(ValueError, match=r"has no convolutional feature encoder: .* --freeze_layers 0"):
        model.freeze_feature_encoder()
    model.freeze_encoder_layers(1)
    assert any(parameter.requires_grad for parameter in model.backbone.parameters())
    model.freeze_backbone()
    assert not any(parameter.requires_grad for parameter in model.backbone.parameters())


def test_unsupported_inputs_are_refused():
    model = make_detector("whisper")
    with pytest.raises(ValueError, match="the detector takes input_features: prepare clips with its feature extractor"):
        model(torch.randn(1, N_SAMPLES))
    extractor = model.make_feature_extractor()
    extractor.n_samples = None
    with pytest.raises(ValueError, match="the encoder takes at most 30 s, got 31 s: pass windows to the model"):
        extractor(np.zeros(31 * 16_000, np.float32))
    with pytest.raises(ValueError, match="must be one of SeamlessM4TFeatureExtractor, WhisperFeatureExtractor, got X"):
        SpoofDetectorFeatureExtractor(encoder_extractor={"feature_extractor_type": "X"})
