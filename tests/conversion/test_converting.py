from pathlib import Path

import numpy as np
import pytest
import torch
from published_layout import HEAD_OPTIONS, logits_of, make_detector, make_published, settings_of
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

from hf_gradalign.conversion import (
    ConversionError,
    convert_state_dict,
    largest_difference,
    published_state_dict,
    read_state_dict,
)
from hf_gradalign.conversion.layouts import HEAD_LAYOUTS
from hf_gradalign.models import SpoofDetectorConfig, SpoofDetectorForAudioClassification
from hf_gradalign.scoring import SpoofScorer

GOLDEN = Path(__file__).parents[1] / "fixtures"
HEADS = list(HEAD_OPTIONS)
LONG = [pytest.mark.slow, pytest.mark.long]


WAVLM = {"max_bucket_distance": 80}
# Each golden checkpoint: its layout, what its shapes do not tell, and how many entries are for pre-training only.
GOLDENS = {
    "aasist": ("aasist", {}, 8),
    "aasist_raw": ("aasist_raw", {"num_attention_heads": None}, 0),
    "conformer_tcm": ("conformer_tcm", {}, 8),
    "mamba": ("mamba", {}, 8),
    "sls": ("sls", {}, 8),
    "nes2net_x": ("nes2net", {}, 8),
    "wavlm_nes2net": ("nes2net", WAVLM, 1),
    "wavlm_nes2net_x": ("nes2net", WAVLM, 1),
    "wavlm_nes2net_x_selu": ("nes2net", WAVLM | {"head_options": {"activation": "selu"}}, 1),
    "wavlm_nes2net_x_asvspoof5": ("nes2net", WAVLM, 1),
    "antideepfake_w2v": ("linear", {}, 8),
    "antideepfake_w2v_small": ("linear", {}, 8),
    "antideepfake_hubert": ("linear", {}, 4),
}


def convert_golden(name):
    state = read_state_dict(GOLDEN / f"{name}.pth")
    return state, *convert_state_dict(state, **({"num_attention_heads": 4} | GOLDENS[name][1]))


# The command compares those of `aasist_raw`, which is slow, in `scripts/test_convert_checkpoint.py`.
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name == "aasist_raw" else name for name in GOLDENS]
)
def test_golden_logits(name):
    head, _, n_ignored = GOLDENS[name]
    _, model, report = convert_golden(name)
    reference = torch.load(GOLDEN / f"{name}.io.pth", weights_only=True)
    assert largest_difference(model, report, reference["input_values"], reference["logits"]) < 1e-5
    assert report.head == head
    assert len(report.ignored) == n_ignored
    assert set(report.casted) == {"float16"}


# One of each kind of normalization, front end and number of outputs. The others only differ in the network, which the
# test above compares.
FROM_FILES = ("mamba", "sls", "wavlm_nes2net", "antideepfake_w2v", "antideepfake_hubert")


@pytest.mark.parametrize(
    "name", [name if name in FROM_FILES else pytest.param(name, marks=pytest.mark.slow) for name in GOLDENS]
)
def test_golden_logits_from_saved_files(name, tmp_path):
    """The way of users: the saved model and its feature extractor, from waveforms as the published code gets them."""
    _, model, report = convert_golden(name)
    model.save_pretrained(tmp_path)
    reference = torch.load(GOLDEN / f"{name}.io.pth", weights_only=True)
    extractor = AutoFeatureExtractor.from_pretrained(tmp_path)
    inputs = extractor(list(reference["input_values"].float().numpy()), sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        logits = AutoModelForAudioClassification.from_pretrained(tmp_path)(**inputs).logits
    # Golden inputs of AntiDeepfake are normalized already, and rounded: normalizing them once more changes them a bit.
    atol = 1e-4 if report.published.normalization == "outside" else 1e-5
    torch.testing.assert_close(logits, reference["logits"], atol=atol, rtol=0)


@pytest.mark.parametrize("name", ["wavlm_nes2net", "nes2net_x", "antideepfake_w2v"])
def test_scores_of_converted_detectors(name, tmp_path):
    """A single output is the score; of two, it is their difference. Whole clips of other lengths share no padding."""
    options = GOLDENS[name][1] | {"num_attention_heads": 4}
    model, _ = convert_state_dict(read_state_dict(GOLDEN / f"{name}.pth"), **options)
    model.save_pretrained(tmp_path)
    waves = [np.random.default_rng(n).normal(0, 0.1, n).astype(np.float32) for n in (12_000, 9_000)]
    extractor = model.make_feature_extractor()
    with torch.no_grad():
        logits = torch.cat([model(**extractor(wave, return_tensors="pt")).logits for wave in waves])
    expected = logits[:, 0] if name == "wavlm_nes2net" else logits[:, 1] - logits[:, 0]
    assert SpoofScorer(tmp_path).score(waves) == pytest.approx(expected.tolist(), abs=1e-5)


def test_reference_logits_of_another_shape():
    model, report = convert_state_dict(read_state_dict(GOLDEN / "wavlm_nes2net.pth"), **WAVLM)
    with pytest.raises(ConversionError, match=r"the reference logits have shape \(2, 2\), the model's \(2, 1\)"):
        largest_difference(model, report, torch.randn(2, 4000), torch.zeros(2, 2))


def test_every_head_has_a_golden_checkpoint():
    assert {head for head, _, _ in GOLDENS.values()} == set(HEAD_LAYOUTS) == set(HEADS)


# Each head with one prefix, and each prefix with one head, the fastest; all others are long.
@pytest.mark.parametrize(
    ("head", "prefix"),
    [
        pytest.param(head, prefix, marks=[] if head == "linear" or prefix == "net." else LONG)
        for head in HEADS
        for prefix in ("model.", "net.", "detector.module.", "0.", "modules.0.", "_forward_module.model.")
    ],
)
def test_prefixes_of_frameworks(head, prefix, tmp_path):
    """Prefixes from Lightning, SpeechBrain (a ModuleList) and others."""
    model, state = make_published(head)
    content = {f"{prefix}{name}": value for name, value in state.items()}
    content |= {"criterion.weight": torch.tensor([0.1, 0.9]), "val_eer.total": torch.zeros(1)}
    torch.save({"state_dict": content, "epoch": 3, "hyper_parameters": {"lr": 1e-6}}, tmp_path / "last.ckpt")
    for name in ("auto", head):
        converted, report = convert_state_dict(read_state_dict(tmp_path / "last.ckpt"), head=name, **settings_of(head))
        assert torch.equal(logits_of(converted), logits_of(model))
    assert report.prefix == prefix
    assert report.beside == ["criterion.weight", "val_eer.total"]
    assert f"prefix taken off     {prefix}" in str(report)
    assert "not of the detector  2: criterion.weight, val_eer.total" in str(report)


def test_several_detectors_in_a_checkpoint(tmp_path):
    (model, state), ema = make_published("aasist"), make_published("aasist")[1]
    ema = {name: value * 0.5 if value.is_floating_point() else value for name, value in ema.items()}
    both = {f"model.{name}": value for name, value in state.items()}
    both |= {f"ema.{name}": value for name, value in ema.items()}
    with pytest.raises(ConversionError, match=r"several detectors.*model. \(aasist\), ema. .*--prefix ema\."):
        convert_state_dict(both, num_attention_heads=6)
    converted, report = convert_state_dict(both, num_attention_heads=6, prefix="model.")
    assert torch.equal(logits_of(converted), logits_of(model))
    assert len(report.beside) == len(ema)
    torch.save({"student": state, "teacher": ema}, tmp_path / "a.pth")
    converted, _ = convert_state_dict(read_state_dict(tmp_path / "a.pth"), num_attention_heads=6, prefix="student.")
    assert torch.equal(logits_of(converted), logits_of(model))


@pytest.mark.parametrize("name", GOLDENS)
def test_back_to_the_published_layout(name):
    state, model, report = convert_golden(name)
    back = published_state_dict(model)
    assert set(back) == set(state) - set(report.ignored)
    assert all(torch.equal(value.float(), state[name].float()) for name, value in back.items())


@pytest.mark.parametrize("head", HEADS)
def test_other_sizes(head, tmp_path):
    model, state = make_published(head)
    converted, report = convert_state_dict(state, **settings_of(head))
    assert report.converted == len(state) - len(report.ignored)
    assert {k: v for k, v in converted.config.head_options.items() if k in HEAD_OPTIONS[head]} == HEAD_OPTIONS[head]
    assert torch.equal(logits_of(converted), logits_of(model))
    converted.save_pretrained(tmp_path)
    assert torch.equal(logits_of(AutoModelForAudioClassification.from_pretrained(tmp_path)), logits_of(model))
    assert [n for n, _ in converted.named_parameters()] == [n for n, _ in model.named_parameters()]


@pytest.mark.parametrize(
    "backbone", [{"feat_extract_norm": "group", "do_stable_layer_norm": False}, {"conv_bias": False}]
)
def test_other_wav2vec2s(backbone):
    model, state = make_published("mamba", **backbone)
    converted, _ = convert_state_dict(state, num_attention_heads=6)
    assert torch.equal(logits_of(converted), logits_of(model))


def test_other_convolutions():
    convolutions = {"conv_dim": [10, 12, 14], "conv_kernel": [10, 8, 4], "conv_stride": [5, 8, 4]}
    model, state = make_published("mamba", **convolutions)
    with pytest.raises(
        ConversionError, match=r"has 3 layers, not 7 as in wav2vec 2.0: pass their strides, .* --conv_stride"
    ):
        convert_state_dict(state, num_attention_heads=6)
    with pytest.raises(ConversionError, match="--conv_stride has 2 strides for 3 layers"):
        convert_state_dict(state, num_attention_heads=6, conv_stride=[5, 8])
    converted, _ = convert_state_dict(state, num_attention_heads=6, conv_stride=[5, 8, 4])
    assert torch.equal(logits_of(converted), logits_of(model))


def test_fairseq_has_no_projection_between_equal_widths():
    model = make_detector("mamba", conv_dim=[36] * 7)
    projection = model.backbone.feature_projection.projection
    projection.weight.data.copy_(torch.eye(36))
    projection.bias.data.zero_()
    state = {name: value for name, value in published_state_dict(model).items() if "post_extract_proj" not in name}
    converted, report = convert_state_dict(state, num_attention_heads=6)
    assert torch.equal(logits_of(converted), logits_of(model))
    assert "ssl_model.model.post_extract_proj.weight" in report.filled_in


def test_counters_may_be_missing():
    model, state = make_published("aasist")
    state = {name: value for name, value in state.items() if "num_batches_tracked" not in name}
    converted, report = convert_state_dict(state, num_attention_heads=6)
    assert torch.equal(logits_of(converted), logits_of(model))
    assert len(report.filled_in) == sum("num_batches_tracked" in name for name in model.state_dict())


def test_the_positional_convolution_as_torch_names_it_now():
    model, state = make_published("mamba")
    conv = "ssl_model.model.encoder.pos_conv.0"
    state[f"{conv}.parametrizations.weight.original0"] = state.pop(f"{conv}.weight_g")
    state[f"{conv}.parametrizations.weight.original1"] = state.pop(f"{conv}.weight_v")
    assert torch.equal(logits_of(convert_state_dict(state, num_attention_heads=6)[0]), logits_of(model))


def test_all_problems_are_reported_at_once():
    _, state = make_published("conformer_tcm")
    state["conformer.fc6.weight"] = torch.zeros(2)
    state["ssl_model.model.encoder.layers.0.adapter.weight"] = torch.zeros(2)
    del state["conformer.fc5.bias"], state["ssl_model.model.encoder.layers.1.fc2.bias"]
    state["LL.bias"] = torch.zeros(3)
    with pytest.raises(ConversionError) as caught:
        convert_state_dict(state, num_attention_heads=6)
    message = str(caught.value)
    assert "2 unknown:" in message
    assert "ssl_model.model.encoder.layers.0.adapter.weight" in message
    assert "conformer.fc6.weight" in message
    assert "2 missing:" in message
    assert "conformer.fc5.bias" in message
    assert "ssl_model.model.encoder.layers.1.fc2.bias" in message
    assert "1 with a wrong shape:" in message
    assert "LL.bias is (3,), not (24,)" in message


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value):
    _, state = make_published("conformer_tcm")
    state["LL.bias"] = state["LL.bias"].clone()
    state["LL.bias"][3] = value
    with pytest.raises(ConversionError, match=r"1 with values that are NaN or infinite .*:\n    LL\.bias$"):
        convert_state_dict(state, num_attention_heads=6)


def test_weights_of_integers_are_refused():
    _, state = make_published("conformer_tcm")
    with pytest.raises(ConversionError, match=r"1 of integers, as in a quantized model; .*:\n    LL\.bias$"):
        convert_state_dict(state | {"LL.bias": torch.ones(24, dtype=torch.int8)}, num_attention_heads=6)


def test_errors():
    _, state = make_published("mamba")
    with pytest.raises(ConversionError, match="--num_attention_heads 16 does not divide the backbone's width of 36"):
        convert_state_dict(state)
    with pytest.raises(
        ConversionError, match=f"no published layout 'aasist2'; available: auto, {', '.join(HEAD_LAYOUTS)}$"
    ):
        convert_state_dict(state, head="aasist2", num_attention_heads=6)
    with pytest.raises(ConversionError, match="aasist head's sizes cannot be read"):
        convert_state_dict(state, head="aasist", num_attention_heads=6)
    with pytest.raises(
        ConversionError, match=r"no known head; looked for attention\.0\.weight \(aasist\), GAT_layer_S"
    ):
        convert_state_dict({"fc.weight": torch.zeros(1)})
    head_alone = {name: value for name, value in state.items() if not name.startswith("ssl_model")}
    with pytest.raises(
        ConversionError, match=r"the backbone's sizes cannot be read: missing ssl_model.model.encoder.layer_norm"
    ):
        convert_state_dict(head_alone)


def test_only_published_heads_convert_back():
    backbone = make_detector("mamba").config.backbone_config
    for options, message in (
        ({"head": "mhfa"}, "no published layout for wav2vec2 with the head mhfa; known: aasist with wav2vec2; "),
        ({"head": "sls", "head_options": {"n_frames": 33}}, r"applies a SELU to the logits, but this head does not"),
        ({"head": "linear", "layer_merging": "sea"}, "no published layout that merges the layers of wav2vec2"),
    ):
        with pytest.raises(ConversionError, match=message):
            published_state_dict(SpoofDetectorForAudioClassification(SpoofDetectorConfig(backbone, **options)))
