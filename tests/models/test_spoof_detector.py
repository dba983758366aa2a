"""Detectors with every encoder, and their configuration."""

import pytest
import torch
from tiny_detectors import (
    FAMILIES,
    FEATURE_ENCODERS,
    LENGTHS,
    PADDED,
    READ_PADDING,
    ROUNDING,
    SMALL,
    make_clips,
    make_config,
    make_detector,
)
from transformers import AutoConfig, AutoModelForAudioClassification

from hf_gradalign.models import ID2LABEL, LABEL2ID, SpoofDetectorConfig, SpoofDetectorForAudioClassification
from hf_gradalign.models.clip_lengths import padding_is_harmless, spreads_padding


@pytest.mark.parametrize("head", [pytest.param("aasist", marks=pytest.mark.slow), "mhfa"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(family, head, tmp_path):
    model, clips = make_detector(family, head), make_clips()
    with torch.no_grad():
        output = model(clips)
        assert output.logits.shape == (3, 2)
        assert output.loss is None
        assert output.hidden_states is None
        states = model(clips, output_hidden_states=True)
        assert torch.equal(states.logits, output.logits)
        assert len(states.hidden_states) == 3
        assert states.hidden_states[0].shape == states.hidden_states[-1].shape == (3, 39, 32)
        masked = model(clips * PADDED, attention_mask=PADDED.long()).logits
        alone = [model(clip[None, :length]).logits for clip, length in zip(clips, LENGTHS, strict=True)]
        assert masked.isfinite().all()
        assert family in READ_PADDING or torch.allclose(masked, torch.cat(alone), atol=1e-5)
        assert torch.equal(model(clips, return_dict=False)[0], output.logits)

    model.save_pretrained(tmp_path)
    loaded = AutoModelForAudioClassification.from_pretrained(tmp_path)
    assert type(loaded) is SpoofDetectorForAudioClassification
    assert not loaded.training
    assert loaded.backbone.config.model_type == family
    with torch.no_grad():
        assert torch.allclose(loaded(clips).logits, output.logits, atol=ROUNDING)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "wavlm"])  # only has eager attention
def test_sdpa_is_eager(family, tmp_path):
    make_detector(family).save_pretrained(tmp_path)
    clips, logits = make_clips(), []
    for implementation in ("eager", "sdpa"):
        model = AutoModelForAudioClassification.from_pretrained(tmp_path, attn_implementation=implementation)
        assert model.backbone.config._attn_implementation == implementation
        logits += [torch.cat([model(clips).logits, model(clips, attention_mask=PADDED.long()).logits])]
    assert torch.allclose(*logits, atol=1e-5)


ADAPTER = {"add_adapter": True, "num_adapter_layers": 1, "output_hidden_size": 24}


@pytest.mark.parametrize("head", ["linear", "mhfa", "sls"])
@pytest.mark.parametrize(
    ("family", "backbone"),
    [
        ("wav2vec2", ADAPTER),
        ("wavlm", ADAPTER),
        ("wav2vec2-bert", FEATURE_ENCODERS["wav2vec2-bert"] | ADAPTER),
        ("sew", {"squeeze_factor": 2}),
        ("sew-d", {"squeeze_factor": 2, "pos_att_type": ["p2c", "c2p"]}),
    ],
    ids=str,
)
def test_encoders_whose_layers_have_other_frames_than_their_output(family, backbone, head):
    model = make_detector(family, head, backbone, n_samples=None)
    clips = [clip[:length].numpy() for clip, length in zip(make_clips(), LENGTHS, strict=True)]
    extractor = model.make_feature_extractor()
    with torch.no_grad():
        together = model(**extractor(clips, return_tensors="pt")).logits
        alone = torch.cat([model(**extractor(clip, return_tensors="pt")).logits for clip in clips])
    # SEW averages over padding before its layers, and so do adapters after them.
    is_exact = "add_adapter" in backbone and head != "linear"
    assert torch.allclose(together, alone, atol=1e-5 if is_exact else 0.1)
    assert is_exact or spreads_padding(model)
    assert not padding_is_harmless(model, extractor)
    with pytest.raises(ValueError, match=rf"layer_merging sea needs layers with the same frames .* of {family} have"):
        make_detector(family, "linear", backbone, layer_merging="sea")


def test_attentions_on_request():
    model = AutoModelForAudioClassification.from_config(make_config(), attn_implementation="eager").eval()
    maps = model(make_clips(), output_attentions=True).attentions
    assert [tuple(one.shape) for one in maps] == [(3, 2, 39, 39)] * 2
    assert not model(make_clips()).attentions
    model.config.output_attentions = True
    assert len(model(make_clips()).attentions) == 2


def test_configuration_asks_for_hidden_states_and_tuples():
    model = make_detector(output_hidden_states=True)
    assert len(model(make_clips()).hidden_states) == 3
    model.config.return_dict = False
    logits, states = model(make_clips())[:2]
    assert logits.shape == (3, 2)
    assert len(states) == 3


def test_the_default_is_xls_r_300m_and_published_labels():
    config = SpoofDetectorConfig()
    assert config.backbone_config.model_type == "wav2vec2"
    assert (config.hidden_size, config.backbone_config.num_hidden_layers, config.head) == (1024, 24, "aasist")
    assert config.backbone_config.num_attention_heads == 16
    assert (config.backbone_config.layerdrop, config.backbone_config.mask_time_prob) == (0.0, 0.0)
    assert (config.id2label, config.label2id, config.num_labels) == (ID2LABEL, LABEL2ID, 2)


def test_other_labels():
    config = make_config(id2label={0: "fake", 1: "real", 2: "noise"})
    assert config.label2id == {"fake": 0, "real": 1, "noise": 2}
    assert SpoofDetectorForAudioClassification(config)(make_clips()).logits.shape == (3, 3)
    assert make_config(label2id={"fake": 0, "real": 1}).id2label == {0: "fake", 1: "real"}
    assert make_config(num_labels=5).num_labels == 5


def test_a_configuration_of_ones_own(tmp_path):
    # What it takes to register a model of one's own with the Auto classes.
    class OwnConfig(SpoofDetectorConfig):
        model_type = "own_detector"

    class OwnDetector(SpoofDetectorForAudioClassification):
        config_class = OwnConfig

    config = OwnConfig(backbone_config=make_config().backbone_config, head="linear")
    assert (config.id2label, config.head_options) == (ID2LABEL, {})
    OwnDetector(config).save_pretrained(tmp_path)
    assert OwnDetector.from_pretrained(tmp_path).config.head == "linear"


def test_configuration_survives_saving(tmp_path):
    config = make_config("wavlm", "sls", class_weights=[1, 3])
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert type(loaded) is SpoofDetectorConfig
    assert loaded.backbone_config.to_dict() == config.backbone_config.to_dict()
    assert (loaded.head, loaded.head_options, loaded.class_weights) == ("sls", SMALL["sls"], [1.0, 3.0])
    assert loaded.id2label == ID2LABEL
