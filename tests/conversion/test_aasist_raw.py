"""Published checkpoints of AASIST on raw waveforms: what their shapes do not tell."""

from pathlib import Path

import pytest
import torch
from published_layout import logits_of, make_published

from hf_gradalign.conversion import ConversionError, convert_state_dict, published_state_dict, read_state_dict
from hf_gradalign.models import ARCHITECTURES, SpoofDetectorForAudioClassification, architecture_config

GOLDEN = Path(__file__).parents[1] / "fixtures" / "aasist_raw.pth"
TEMPERATURES = [2.0, 2.0, 100.0]


@pytest.mark.parametrize(
    ("name", "ratios", "known_as"),
    [("aasist", [0.5, 0.7, 0.5], "AASIST on raw waveforms"), ("aasist_l", [0.4, 0.5, 0.7], "AASIST-L")],
)
def test_published_sizes_are_recognized(name, ratios, known_as):
    state = published_state_dict(SpoofDetectorForAudioClassification(architecture_config(name)))
    assert len(state) == 229
    model, report = convert_state_dict({f"model.{key}": value for key, value in state.items()})
    assert model.config.head_options == {**model.config.head_options, **ARCHITECTURES[name], "pool_ratios": ratios}
    assert model.config.n_samples == 64_600
    assert report.published.name == known_as
    assert report.assumed == {
        "num_sinc_filters": 70,
        "sinc_kernel_size": 129,
        "pool_ratios": ratios,
        "temperatures": TEMPERATURES,
    }
    assert report.n_parameters == sum(v.numel() for key, v in state.items() if "num_batches" not in key)


@pytest.mark.parametrize(
    ("head_options", "filters", "settings"),
    [
        ({"pool_ratios": [0.9, 0.3, 0.6], "temperatures": [1.0, 3.0, 10.0]}, {}, {}),
        ({}, {"num_filters": 71, "kernel_size": 65}, {"num_sinc_filters": 71, "sinc_kernel_size": 64}),
        ({}, {"num_filters": 40}, {"num_sinc_filters": 40}),
    ],
)
def test_settings_that_shapes_do_not_show(head_options, filters, settings):
    model, state = make_published("aasist_raw", head_options=head_options, **filters)
    converted, report = convert_state_dict(state, head_options=head_options, **settings)
    assert torch.equal(logits_of(converted), logits_of(model))
    assert report.given == settings | head_options
    assert not report.assumed.keys() & report.given.keys()
    if "num_filters" not in filters or filters["num_filters"] == 71:
        assert not torch.allclose(logits_of(convert_state_dict(state)[0]), logits_of(model), atol=1e-5)


@pytest.mark.parametrize("option", ["pool_ratios", "temperatures"])
@pytest.mark.parametrize("place", range(3))
def test_each_ratio_and_temperature_is_used(option, place):
    model, state = make_published("aasist_raw")
    values = list(model.config.head_options[option])
    values[place] *= 0.6
    converted, _ = convert_state_dict(state, head_options={option: values})
    assert not torch.equal(logits_of(converted, 4000), logits_of(model, 4000))


def test_settings_that_do_not_fit():
    _, state = make_published("aasist_raw")
    _, of_forty = make_published("aasist_raw", num_filters=40)
    _, of_encoder = make_published("aasist")
    for given, options, message in (
        (
            of_forty,
            {},
            "the published number of filters, 70 does not fit the 13 spectral nodes of pos_S: set --num_sinc",
        ),
        (
            state,
            {"num_sinc_filters": 68},
            "--num_sinc_filters 68 does not fit the 23 .* configuration, which is 69 to 71",
        ),
        (
            state,
            {"num_attention_heads": 4},
            "--num_attention_heads is for encoders, but AASIST on raw waveforms has none",
        ),
        (state, {"head_options": {"pool_ratios": [0.5, 0.7]}}, "pool_ratios must be three numbers"),
        (state, {"head_options": {"dilation": 2}}, "the head aasist has no option dilation; it has channels"),
        (
            of_encoder,
            {"num_sinc_filters": 70},
            "--num_sinc_filters is for AASIST on raw waveforms, but this .* wav2vec2",
        ),
        (
            of_encoder,
            {"num_attention_heads": 6, "head_options": {"temperatures": TEMPERATURES}},
            "no option temperatures",
        ),
    ):
        with pytest.raises(ConversionError, match=message):
            convert_state_dict(given, **options)


def test_it_is_not_mistaken_for_aasist_on_an_encoder():
    _, state = make_published("aasist_raw")
    assert convert_state_dict(state)[1].head == "aasist_raw"
    with pytest.raises(ConversionError, match="sizes cannot be read"):
        convert_state_dict(state, head="aasist")
    _, of_encoder = make_published("aasist")
    assert convert_state_dict(of_encoder, num_attention_heads=6)[1].head == "aasist"
    del of_encoder["attention.0.weight"]
    with pytest.raises(ConversionError, match="no known head"):
        convert_state_dict(of_encoder, num_attention_heads=6)
    del state["pos_S"], state["master1"]
    with pytest.raises(ConversionError, match="aasist_raw head's sizes cannot be read: no pos_S"):
        convert_state_dict(state)


def test_all_problems_are_reported_at_once():
    _, state = make_published("aasist_raw")
    state["ssl_model.model.encoder.layer_norm.bias"] = state["pool_X.proj.bias"] = torch.zeros(1)
    del state["master1"]
    state["out_layer.bias"] = torch.zeros(3)
    with pytest.raises(ConversionError) as caught:
        convert_state_dict(state)
    for part in ("2 unknown", "ssl_model.model.encoder.layer_norm.bias", "pool_X.proj.bias", "1 missing", "master1"):
        assert part in str(caught.value)
    assert "out_layer.bias is (3,), not (2,)" in str(caught.value)


@pytest.mark.parametrize("zipped", [True, False])
def test_storages_of_a_gpu_are_read_without_one(zipped, tmp_path, monkeypatch):
    """The published files were saved on a GPU."""
    state = torch.load(GOLDEN, weights_only=True)
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
        torch.save(state, tmp_path / "AASIST.pth", _use_new_zipfile_serialization=zipped)
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="CUDA"):
            torch.load(tmp_path / "AASIST.pth", weights_only=True)
    found = read_state_dict(tmp_path / "AASIST.pth")
    assert all(torch.equal(found[key], value) for key, value in state.items())
