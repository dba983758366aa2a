"""New heads on pretrained encoders."""

import pytest
import torch
from tiny_detectors import ROUNDING, SMALL, TINY, make_clips, make_config, make_detector
from transformers import AutoConfig, AutoModel, AutoModelForAudioClassification

from hf_gradalign.models import ID2LABEL, LABEL2ID, SpoofDetectorConfig, SpoofDetectorForAudioClassification


@pytest.fixture(scope="module", params=["wav2vec2", "wavlm"])
def encoder_folder(request, tmp_path_factory):
    """An encoder as found on the Hub: with masking and layer drop, saved after training."""
    path = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(7)
    options = {"apply_spec_augment": True, "mask_time_prob": 0.5, "mask_feature_prob": 0.1, "layerdrop": 0.3}
    encoder = AutoModel.from_config(AutoConfig.for_model(request.param, **TINY | options))
    for parameter in encoder.parameters():
        parameter.data.add_(torch.rand_like(parameter) * 0.1)
    encoder.save_pretrained(path)
    return path


def test_from_backbone_keeps_weights_and_turns_off_masking(encoder_folder, tmp_path):
    model = SpoofDetectorForAudioClassification.from_backbone(
        str(encoder_folder), head="mamba", head_options=SMALL["mamba"], class_weights=[0.1, 0.9]
    )
    assert not model.training
    theirs, ours = AutoModel.from_pretrained(encoder_folder).state_dict(), model.backbone.state_dict()
    assert theirs.keys() - ours.keys() <= {"masked_spec_embed"}
    assert ours.keys() <= theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    options = model.config.backbone_config
    assert (options.apply_spec_augment, options.mask_time_prob, options.mask_feature_prob) == (False, 0.0, 0.0)
    assert options.layerdrop == 0.0
    assert (model.config.id2label, model.config.label2id) == (ID2LABEL, LABEL2ID)

    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())
    clips = make_clips()
    before = model(clips).logits
    model.save_pretrained(tmp_path)
    loaded = AutoModelForAudioClassification.from_pretrained(tmp_path)
    assert torch.allclose(loaded(clips).logits, before, atol=ROUNDING)
    assert loaded.config.class_weights == [0.1, 0.9]
    assert loaded.config.backbone_config.mask_time_prob == 0.0


def test_from_backbone_takes_options_of_encoder_and_loading(encoder_folder):
    make = SpoofDetectorForAudioClassification.from_backbone
    model = make(
        str(encoder_folder), head="linear", backbone_options={"mask_time_prob": 0.2, "apply_spec_augment": True}
    )
    assert model.backbone.config.mask_time_prob == 0.2
    assert model.backbone.config.mask_feature_prob == 0.0
    assert {p.dtype for p in make(str(encoder_folder), head="linear").parameters()} == {torch.float32}
    merged = make(str(encoder_folder), head="linear", layer_merging="sea")
    assert merged.config.layer_merging == "sea"
    assert all(tensor.isfinite().all() for tensor in merged.state_dict().values())
    with pytest.raises(ValueError, match=r"has no option mask_time$"):
        make(str(encoder_folder), head="linear", backbone_options={"mask_time": 0.2})


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_attention_implementation_reaches_the_backbone(implementation, tmp_path):
    make_detector().save_pretrained(tmp_path / "detector")
    AutoModel.from_config(make_config().backbone_config).save_pretrained(tmp_path / "encoder")
    options = {"attn_implementation": implementation}
    for model in (
        AutoModelForAudioClassification.from_pretrained(tmp_path / "detector", **options),
        AutoModelForAudioClassification.from_config(make_config(), **options),
        SpoofDetectorForAudioClassification.from_backbone(str(tmp_path / "encoder"), head="linear", **options),
    ):
        assert model.backbone.encoder.layers[0].attention.config._attn_implementation == implementation


def test_an_unknown_head_or_option_is_reported_before_loading():
    make, nowhere = SpoofDetectorForAudioClassification.from_backbone, "/no/such/folder"
    with pytest.raises(ValueError, match="there is no head 'resnet'; available: aasist"):
        make(nowhere, head="resnet")
    with pytest.raises(ValueError, match="the head linear has no option size; it has dropout"):
        make(nowhere, head="linear", head_options={"size": 3})
    with pytest.raises(ValueError, match="there is no head 'resnet'"):
        SpoofDetectorForAudioClassification(SpoofDetectorConfig(make_config().backbone_config, head="resnet"))


def test_an_encoder_of_spectrograms_is_refused(tmp_path):
    config = AutoConfig.for_model(
        "audio-spectrogram-transformer",
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    AutoModel.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match=r"\(ASTModel\) is not an encoder of raw waveforms, nor one of wav2vec2-bert, whisper"
    ):
        SpoofDetectorForAudioClassification.from_backbone(str(tmp_path), head="linear")
