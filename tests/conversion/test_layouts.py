"""What tells the layouts apart, and what the shapes of each tell."""

import pytest
import torch
from published_layout import BACKBONE, HEAD_OPTIONS, logits_of, make_detector, make_published

from hf_gradalign.conversion import ConversionError, convert_state_dict, published_state_dict
from hf_gradalign.conversion.encoder_layout import EncoderSettings, config_from_shapes
from hf_gradalign.conversion.layouts import HEAD_LAYOUTS
from hf_gradalign.models.layer_merging import LAYER_MERGING

WAVLM = {"model_type": "wavlm", "conv_bias": False, "num_buckets": 20, "max_bucket_distance": 30}


def renamed(state, old, new):
    return {new + key.removeprefix(old) if key.startswith(old) else key: value for key, value in state.items()}


ENCODER_PREFIXES = ["", "m_ssl.model.", "ssl_model.model.model.", "ssl_model.model.", "encoder."]


# Each head with one prefix, and each prefix with one head; all others are slow.
@pytest.mark.parametrize("outer", ["", "model."])
@pytest.mark.parametrize(
    ("head", "prefix"),
    [
        pytest.param(head, prefix, marks=[] if head == "linear" or prefix == "encoder." else pytest.mark.slow)
        for head in HEAD_OPTIONS
        for prefix in ENCODER_PREFIXES
        if head != "aasist_raw"
    ],
)
def test_any_prefix_of_the_encoder(head, prefix, outer):
    model, state = make_published(head)
    state = renamed(state, HEAD_LAYOUTS[head].encoder_prefix, prefix)
    state = {outer + key: value for key, value in state.items()}
    converted, report = convert_state_dict(state, num_attention_heads=6)
    assert torch.equal(logits_of(converted), logits_of(model))
    assert report.prefix == outer
    assert set(report.ignored) == {f"{prefix}mask_emb", f"{prefix}quantizer.vars"}


def test_several_encoders_are_refused():
    _, state = make_published("linear")
    student = renamed(state, "m_ssl.model.", "student.")
    with pytest.raises(ConversionError, match=r"several encoders, whose keys start with student\., teacher\."):
        convert_state_dict(student | renamed(state, "m_ssl.model.", "teacher."), num_attention_heads=6)


@pytest.mark.parametrize("model_type", ["wav2vec2", "wavlm"])
@pytest.mark.parametrize(
    "options",
    [
        {"variant": "nes2net", "pooling": "mean"},
        {"variant": "nes2net_x", "num_groups": 2, "num_scales": 5, "squeeze_size": 1},
        {"variant": "nes2net", "num_groups": 9, "num_scales": 2, "attention_size": 3},
    ],
    ids=str,
)
def test_sizes_of_nes2net(options, model_type):
    dilation = {"wav2vec2": 2, "wavlm": 1}[model_type]
    backbone = WAVLM if model_type == "wavlm" else {}
    model = make_detector("nes2net", options | {"dilation": dilation}, **backbone)
    heads = {} if model_type == "wavlm" else {"num_attention_heads": 6}
    converted, report = convert_state_dict(
        published_state_dict(model), max_bucket_distance=30 if model_type == "wavlm" else None, **heads
    )
    assert torch.equal(logits_of(converted), logits_of(model))
    assert converted.config.head_options.items() >= (options | {"dilation": dilation}).items()
    assert {"dilation": dilation, "activation": "relu"}.items() <= report.assumed.items()
    assert converted.config.n_samples == 64_600
    assert converted.config.do_normalize is False


def test_settings_of_nes2net_that_shapes_do_not_show():
    model = make_detector("nes2net", {"dilation": 3, "activation": "selu"})
    state = published_state_dict(model)
    given = {"dilation": 3, "activation": "selu"}
    converted, report = convert_state_dict(state, num_attention_heads=6, head_options=given)
    assert torch.equal(logits_of(converted), logits_of(model))
    assert given.items() <= report.given.items()
    assert "given                num_attention_heads 6, dilation 3, activation selu" in str(report)
    assert "assumed              conv_stride [5, 2, 2, 2, 2, 2, 2], do_stable_layer_norm True" in str(report)
    for option in given:
        other, _ = convert_state_dict(state, num_attention_heads=6, head_options={option: given[option]})
        assert not torch.allclose(logits_of(other), logits_of(model), atol=1e-4)


MERGING_KEYS = {
    "sea": {"ssl_model.fc_att_merge.0.weight", "ssl_model.fc_att_merge.2.weight"},
    "weighted_sum": {"ssl_model.weight_hidd"},
    "attm": {
        *("ssl_model.W", "ssl_model.W1", "ssl_model.W2"),
        *("ssl_model.linear_proj.weight", "ssl_model.linear_proj.bias"),
    },
}


@pytest.mark.parametrize("num_labels", [1, 2])
@pytest.mark.parametrize("name", LAYER_MERGING)
def test_layer_merging_of_ctrsvdd(name, num_labels):
    options = {"layer_merging": name, "num_labels": num_labels}
    model = make_detector("nes2net", {"dilation": 1}, options, **WAVLM, num_hidden_layers=5)
    for parameter in model.layer_merging.parameters():
        torch.nn.init.normal_(parameter)
    state = published_state_dict(model)
    assert {key for key in state if not key.startswith(("ssl_model.model.model.", "Nested"))} == MERGING_KEYS[name]
    converted, report = convert_state_dict(state, max_bucket_distance=30)
    assert torch.equal(logits_of(converted), logits_of(model))
    config = converted.config
    assert (config.layer_merging, config.num_labels, config.n_samples) == (name, num_labels, None)
    assert (config.do_normalize, config.normalization_epsilon) == (True, 1e-5)
    assert config.id2label == ({0: "bonafide"} if num_labels == 1 else {0: "spoof", 1: "bonafide"})
    assert report.published.normalization == "inside"
    bare = {key.removeprefix("ssl_model.model.model.").removeprefix("ssl_model."): v for key, v in state.items()}
    assert torch.equal(logits_of(convert_state_dict(bare, max_bucket_distance=30)[0]), logits_of(model))


def test_only_nes2net_has_a_single_output():
    _, state = make_published("linear")
    state |= {name: state[name][:1] for name in ("proj_fc.weight", "proj_fc.bias")}
    with pytest.raises(ConversionError, match=r"proj_fc.weight is \(1, 36\), not \(2, 36\)"):
        convert_state_dict(state, num_attention_heads=6)


@pytest.mark.parametrize("base", [False, True])
def test_shapes_of_wavlm_give_its_heads(base):
    style = {"feat_extract_norm": "group", "do_stable_layer_norm": False} if base else {}
    state = published_state_dict(make_detector("nes2net", {"dilation": 1}, **WAVLM | style))
    model = make_detector("nes2net", {"dilation": 1}, **WAVLM | style)
    converted, report = convert_state_dict(state, num_attention_heads=6, max_bucket_distance=30)
    assert torch.equal(logits_of(converted), logits_of(model))
    _, report = convert_state_dict(state)
    assert "num_attention_heads" not in report.assumed
    assert report.assumed["max_bucket_distance"] == 800
    assert report.assumed["do_stable_layer_norm"] is not base
    with pytest.raises(ConversionError, match="--num_attention_heads 4: the encoder is a WavLM, whose shapes say 6"):
        convert_state_dict(state, num_attention_heads=4)


def test_bucket_distance_matches_wavlm():
    _, state = make_published("linear")
    with pytest.raises(ConversionError, match="--max_bucket_distance is for WavLM, but the encoder is a wav2vec2"):
        convert_state_dict(state, num_attention_heads=6, max_bucket_distance=80)


@pytest.mark.parametrize(
    "style", [{}, {"feat_extract_norm": "group", "conv_bias": False, "do_stable_layer_norm": False}]
)
@pytest.mark.parametrize("model_type", ["wav2vec2", "hubert"])
def test_antideepfake(model_type, style):
    model = make_detector("linear", model_type=model_type, **style)
    state = published_state_dict(model)
    if model_type == "hubert":
        state["m_ssl.model.label_embs_concat"] = torch.zeros(4, 3)
    converted, report = convert_state_dict(state, num_attention_heads=6)
    assert converted.config.backbone_config.model_type == model_type
    assert torch.equal(logits_of(converted), logits_of(model))
    assert (converted.config.n_samples, converted.config.do_normalize) == (None, True)
    assert converted.make_feature_extractor().normalization_epsilon == 1e-5
    assert report.published.license == "cc-by-nc-sa-4.0"
    assert report.ignored == (["m_ssl.model.label_embs_concat"] if model_type == "hubert" else [])


def test_the_one_class_layer_of_antideepfake_is_refused():
    _, state = make_published("linear")
    del state["proj_fc.bias"]
    state["proj_fc.weight"] = torch.zeros(36, 1)
    with pytest.raises(ConversionError, match="proj_fc is the one-class layer of AntiDeepfake's later training code"):
        convert_state_dict(state, num_attention_heads=6)


@pytest.mark.parametrize(("n_frames", "n_samples"), [(201, 64_600), (198, 63_440), (204, 65_360), (33, 10_640)])
def test_the_window_of_sls_has_its_frames(n_frames, n_samples):
    model = make_detector("sls", {"n_frames": n_frames})
    converted, _ = convert_state_dict(published_state_dict(model), num_attention_heads=6)
    assert converted.config.n_samples == n_samples
    frames = converted.backbone._get_feat_extract_output_lengths(torch.tensor(n_samples))
    assert frames // 3 == n_frames // 3
    assert torch.equal(logits_of(converted, n_samples), logits_of(model, n_samples))


def test_sls_of_an_impossible_size():
    _, state = make_published("sls")
    state["fc1.weight"] = torch.zeros(10, 133)
    with pytest.raises(ConversionError, match="fc1 has 133 inputs, which is not a multiple of 12"):
        convert_state_dict(state, num_attention_heads=6)


def test_counters_of_averaged_checkpoints_are_floats():
    model, state = make_published("nes2net")
    state = {name: value.double() + 0.5 if "num_batches" in name else value for name, value in state.items()}
    converted, _ = convert_state_dict(state, num_attention_heads=6)
    assert converted.state_dict()["head.norm.num_batches_tracked"].dtype == torch.long
    assert torch.equal(logits_of(converted), logits_of(model))


@pytest.mark.parametrize(("width", "heads"), [(768, 12), (1024, 16), (1280, 16), (1920, 16)])
def test_published_numbers_of_attention_heads(width, heads):
    sizes = BACKBONE | {"hidden_size": width, "num_attention_heads": heads, "num_conv_pos_embedding_groups": 16}
    with torch.device("meta"):
        state = published_state_dict(make_detector("linear", **sizes))
    state = {key.removeprefix("m_ssl.model."): value for key, value in state.items()}
    fields, assumed = config_from_shapes(state, EncoderSettings())
    assert fields["num_attention_heads"] == assumed["num_attention_heads"] == heads
