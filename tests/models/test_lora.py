"""LoRA on the encoder of any classifier, with the head trained as a whole."""

import numpy as np
import pytest
import torch
from tiny_detectors import FAMILIES, FEATURE_ENCODERS, OWN_EXTRACTORS, make_classifier, make_clips, make_detector
from transformers import AutoConfig, AutoModel, Wav2Vec2FeatureExtractor

from hf_gradalign.models import create_detector
from hf_gradalign.models.encoder_layers import encoder_of, freeze_layers
from hf_gradalign.models.lora import ALL_LINEAR, add_lora, count_parameters
from hf_gradalign.scoring import SpoofScorer
from hf_gradalign.training.adapters import save_whole_config

peft = pytest.importorskip("peft")
# Queries and values, which WavLM's attention reads without calling the layers.
TARGETS = {"wavlm": {"intermediate_dense", "output_dense"}, "wav2vec2-conformer": {"linear_q", "linear_v"}}


def adapted(model, *positional, **options):
    extractor = model.make_feature_extractor() if hasattr(model, "make_feature_extractor") else None
    return add_lora(model, extractor or Wav2Vec2FeatureExtractor(), *positional, **options)


def adapted_layers(model):
    return {name.split(".lora_A")[0] for name, _ in model.named_parameters() if ".lora_A" in name}


def trained(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        ("wav2vec2", "aasist"),
        *((family, "classifier") for family in FAMILIES),
        *(pytest.param(family, "aasist", marks=pytest.mark.slow) for family in FAMILIES if family != "wav2vec2"),
    ],
)
def test_every_family(family, kind):
    base = make_classifier(family) if kind == "classifier" else make_detector(family, kind, n_samples=3200)
    state = {name: value.clone() for name, value in base.state_dict().items()}
    size, was = sum(value.numel() for value in base.parameters()), base(make_clips()).logits.detach()
    model = adapted(base, 2)
    assert {name.rpartition(".")[2] for name in adapted_layers(model)} == TARGETS.get(family, {"q_proj", "v_proj"})
    assert len(adapted_layers(model)) == 2 * 2
    torch.testing.assert_close(model(make_clips()).logits, was)  # the adapters are zero at first
    assert count_parameters(model) == size
    model.train()
    model(make_clips(), labels=torch.tensor([0, 1, 0])).loss.backward()
    with_gradient = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert with_gradient == trained(model)
    for name, parameter in model.named_parameters():
        if ".lora_B" in name:
            assert parameter.grad.abs().max() > 0, name
    merged = model.eval().merge_and_unload().state_dict()
    assert merged.keys() == state.keys()


def test_the_head_is_trained_and_nothing_else_of_the_model():
    names = trained(adapted(make_detector(n_samples=3200), 2))
    assert {name for name in names if "lora_" not in name} == {
        f"base_model.model.head.modules_to_save.default.classifier.{part}" for part in ("weight", "bias")
    }
    names = trained(adapted(make_detector(n_samples=3200, layer_merging="weighted_sum"), 2))
    assert any("layer_merging" in name for name in names)
    names = trained(adapted(make_classifier("wav2vec2-conformer"), 2))
    others = {name.split(".modules_to_save")[0].rpartition(".")[2] for name in names if "lora_" not in name}
    assert others == {"projector", "classifier", "batch_norm"}


def test_rank_scale_and_targets():
    model = adapted(make_detector(n_samples=3200), 3, 7.5, ["layers.1.attention.out_proj", "projection"])
    assert {name.removeprefix("base_model.model.backbone.") for name in adapted_layers(model)} == {
        "encoder.layers.1.attention.out_proj",
        "feature_projection.projection",
    }
    config = model.peft_config["default"]
    assert (config.r, config.lora_alpha) == (3, 7.5)
    assert adapted(make_detector(n_samples=3200), 3).peft_config["default"].lora_alpha == 6
    everything = adapted_layers(adapted(make_detector(n_samples=3200), 1, target_modules=[ALL_LINEAR]))
    assert len(everything) == 2 * 6 + 1  # without the head's


def test_the_same_adapters_for_the_same_seed():
    first, second = (adapted(make_detector(n_samples=3200), 2).state_dict() for _ in range(2))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize(
    ("make", "targets", "message"),
    [
        (make_detector, ["q_projj"], "--lora_target_modules q_projj: Wav2Vec2Model has no linear layer of that name"),
        (make_detector, ["classifier"], "Wav2Vec2Model has no linear layer of that name; there are intermediate_dense"),
        (lambda **_: make_classifier("wavlm"), ["q_proj"], "WavLMModel reads the weights .* would have no effect"),
        (lambda **_: make_detector("sinc"), None, "--lora_r: SincFrontEnd has no linear layers to adapt; remove it"),
        (lambda **_: make_classifier(use_weighted_layer_sum=True), None, "layer_weights of .* PEFT cannot save it"),
    ],
)
def test_refused(make, targets, message):
    model = make(n_samples=3200)
    with pytest.raises(ValueError, match=message):
        adapted(model, 2, target_modules=targets)
    assert not isinstance(model, peft.PeftModel)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_model_without_an_encoder():
    with pytest.raises(ValueError, match="Linear has no encoder apart from its head"):
        add_lora(torch.nn.Linear(2, 2), Wav2Vec2FeatureExtractor(), 2)


@pytest.mark.parametrize("family", OWN_EXTRACTORS)
def test_encoders_that_take_features(family, tmp_path):
    """Adapters of a head on such an encoder load with the encoder's checkpoint."""
    encoder = AutoModel.from_config(AutoConfig.for_model(family, **FEATURE_ENCODERS[family]))
    encoder.save_pretrained(tmp_path / "encoder")
    OWN_EXTRACTORS[family].save_pretrained(tmp_path / "encoder")
    model, extractor = create_detector(str(tmp_path / "encoder"), head="linear", n_samples=3200)
    freeze_layers(encoder_of(model), 1)
    model = add_lora(model, extractor, 2, base=str(tmp_path / "encoder"))
    assert len(adapted_layers(model)) == 4
    for name, parameter in model.named_parameters():
        if ".lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(tmp_path / "adapter")
    save_whole_config(model, tmp_path / "adapter")
    extractor.save_pretrained(tmp_path / "adapter")
    clip = make_clips(1)[0].numpy()
    expected = SpoofScorer(model, extractor).score([clip])
    np.testing.assert_allclose(SpoofScorer(tmp_path / "adapter").score([clip]), expected, atol=1e-5)
