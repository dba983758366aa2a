"""The detector's feature extractor: the scoring protocol, whole clips, and its use by collator and pipeline."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoFeatureExtractor, pipeline

from hf_gradalign.data.collator import ViewCollator
from hf_gradalign.models import SpoofDetectorConfig, SpoofDetectorFeatureExtractor, SpoofDetectorForAudioClassification

GOLDEN = Path(__file__).parents[1] / "fixtures"


def clip(length, seed=0):
    return (np.random.default_rng(seed).normal(0.3, 0.1, length)).astype(np.float32)


def test_takes_the_first_samples_as_they_are():
    wave = clip(70_000)
    inputs = SpoofDetectorFeatureExtractor()(wave, sampling_rate=16_000, return_tensors="pt")
    assert set(inputs) == {"input_values"}
    assert inputs["input_values"].dtype == torch.float32
    assert inputs["input_values"].shape == (1, 66_800)
    assert np.array_equal(inputs["input_values"][0], wave[:66_800])


@pytest.mark.parametrize("length", [1, 7, 33_400, 40_000, 66_799, 66_800, 66_801])
def test_repeats_shorter_clips_from_their_start(length):
    wave = clip(length)
    found = SpoofDetectorFeatureExtractor()(wave, return_tensors="np")["input_values"][0]
    assert np.array_equal(found, np.tile(wave, 66_800 // length + 1)[:66_800])


def test_does_not_change_its_input():
    wave = clip(100)
    kept = wave.copy()
    SpoofDetectorFeatureExtractor(n_samples=50, do_normalize=True)(wave)
    SpoofDetectorFeatureExtractor(n_samples=None, do_normalize=True)([wave, wave[:10]])
    assert np.array_equal(wave, kept)


def test_normalization_on_request():
    wave = clip(500)
    found = SpoofDetectorFeatureExtractor(n_samples=400, do_normalize=True)(wave)["input_values"][0]
    assert abs(found.mean()) < 1e-5
    assert abs(found.std() - 1) < 1e-3
    expected = (wave[:400] - wave[:400].mean()) / wave[:400].std()  # of the samples that the model sees
    assert np.allclose(found, expected, atol=1e-4)
    silence = SpoofDetectorFeatureExtractor(do_normalize=True)(np.zeros(9, np.float32))["input_values"]
    assert (silence == 0).all()


def test_normalization_of_quiet_clips_as_published():
    """The normalization of AntiDeepfake, of loud and quiet clips."""
    reference = torch.load(GOLDEN / "antideepfake_normalisation.io.pth", weights_only=True)
    waves = reference["waveform"].float().numpy()
    extractor = SpoofDetectorFeatureExtractor(n_samples=None, do_normalize=True, normalization_epsilon=1e-5)
    found = extractor(list(waves), return_tensors="pt")["input_values"]
    torch.testing.assert_close(found, reference["input_values"], atol=1e-5, rtol=0)
    assert found.std(1)[1:].tolist() == pytest.approx([0.75, 0.05], abs=0.03)
    usual = SpoofDetectorFeatureExtractor(n_samples=None, do_normalize=True)
    assert usual(list(waves))["input_values"].std(1).min() > 0.3


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_every_form_of_clips(dtype):
    extractor = SpoofDetectorFeatureExtractor(n_samples=30)
    waves = np.stack([clip(40), clip(40, 1)]).astype(dtype)
    expected = waves[:, :30].astype(np.float32)
    ways = {
        "array": waves,
        "list of arrays": list(waves),
        "tuple of arrays": tuple(waves),
        "list of lists": waves.tolist(),
        "tensor": torch.from_numpy(waves),
        "list of tensors": list(torch.from_numpy(waves)),
    }
    for name, way in ways.items():
        found = extractor(way)["input_values"]
        assert isinstance(found, np.ndarray), name
        assert found.dtype == np.float32, name
        assert np.array_equal(found, expected), name
    for name, way in {"array": waves[0], "list": waves[0].tolist(), "list of one": [waves[0]]}.items():
        found = extractor(way)["input_values"]
        assert found.shape == (1, 30), name
        assert np.array_equal(found, expected[:1]), name


def test_whole_clips_are_padded_with_zeros_and_masked():
    extractor = SpoofDetectorFeatureExtractor(n_samples=None)
    long, short = clip(100), clip(60, 1)
    inputs = extractor([long, short], return_tensors="pt")
    assert inputs["input_values"].dtype == torch.float32
    assert np.array_equal(inputs["input_values"][0], long)
    assert np.array_equal(inputs["input_values"][1], np.pad(short, (0, 40)))
    assert inputs["attention_mask"].tolist() == [[1] * 100, [1] * 60 + [0] * 40]
    assert set(extractor([long, long])) == {"input_values"}
    alone = extractor(long)
    assert alone["input_values"].shape == (1, 100)
    assert np.array_equal(alone["attention_mask"], np.ones((1, 100)))  # a pipeline may pad it
    without = SpoofDetectorFeatureExtractor(n_samples=None, return_attention_mask=False)
    assert set(without([long, short])) == {"input_values"}


def test_another_sampling_rate_is_refused():
    with pytest.raises(ValueError, match="takes audio at 16000 Hz, got 8000 Hz: resample it"):
        SpoofDetectorFeatureExtractor()(clip(10), sampling_rate=8000)
    assert SpoofDetectorFeatureExtractor(sampling_rate=8000)(clip(10), sampling_rate=8000)


@pytest.mark.parametrize(
    ("wave", "shape"),
    [
        ([], r"\(0,\)"),
        (np.zeros(0, np.float32), r"\(0,\)"),
        ([clip(5), np.zeros(0)], r"\(0,\)"),
        ([np.zeros((2, 50))], r"\(2, 50\)"),
        (np.zeros((1, 2, 50)), r"\(2, 50\)"),
        (0.5, r"\(\)"),
    ],
)
@pytest.mark.parametrize("n_samples", [30, None])
def test_empty_and_stereo_clips_are_refused(wave, shape, n_samples):
    with pytest.raises(ValueError, match=rf"mono waveform of shape \(time,\) with .* sample, got shape {shape}"):
        SpoofDetectorFeatureExtractor(n_samples=n_samples)(wave)


@pytest.mark.parametrize("n_samples", [0, -5])
def test_an_invalid_length_is_refused(n_samples):
    with pytest.raises(ValueError, match=f"n_samples must be positive, or None for whole clips, got {n_samples}"):
        SpoofDetectorFeatureExtractor(n_samples=n_samples)


@pytest.mark.parametrize("n_samples", [3200, None])
def test_saving_and_loading(n_samples, tmp_path):
    extractor = SpoofDetectorFeatureExtractor(
        8000, n_samples, do_normalize=True, return_attention_mask=False, normalization_epsilon=1e-5
    )
    extractor.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert saved["auto_map"]["AutoFeatureExtractor"].endswith(".SpoofDetectorFeatureExtractor")
    for auto in (SpoofDetectorFeatureExtractor, AutoFeatureExtractor):
        SpoofDetectorConfig().save_pretrained(tmp_path)
        loaded = auto.from_pretrained(tmp_path)
        assert type(loaded) is SpoofDetectorFeatureExtractor
        assert loaded.to_dict() == extractor.to_dict()
        assert (loaded.sampling_rate, loaded.n_samples, loaded.do_normalize) == (8000, n_samples, True)
        assert loaded.return_attention_mask is False
        assert loaded.normalization_epsilon == 1e-5


@pytest.fixture
def detector(tmp_path):
    """A saved one, its folder and its extractor."""
    backbone = AutoConfig.for_model(
        "wav2vec2", hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        conv_dim=[16] * 3, conv_stride=[5, 4, 4], conv_kernel=[10, 8, 4], num_feat_extract_layers=3,
        num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2, feat_extract_norm="layer", conv_bias=True,
    )  # fmt: skip
    torch.manual_seed(0)
    model = SpoofDetectorForAudioClassification(SpoofDetectorConfig(backbone, "linear")).eval()
    extractor = SpoofDetectorFeatureExtractor(n_samples=3200)
    for part in (model, extractor):
        part.save_pretrained(tmp_path)
    return model, tmp_path, extractor


@pytest.mark.parametrize("n_samples", [3200, None])
def test_the_pipeline_gives_the_models_scores(detector, n_samples):
    model, folder, _ = detector
    extractor = SpoofDetectorFeatureExtractor(n_samples=n_samples)
    extractor.save_pretrained(folder)
    classify = pipeline("audio-classification", model=str(folder))
    assert type(classify.model) is SpoofDetectorForAudioClassification
    assert type(classify.feature_extractor) is SpoofDetectorFeatureExtractor
    waves = [clip(1000), clip(5000, 1), clip(3200, 2)]
    with torch.no_grad():
        expected = model(**extractor(waves, return_tensors="pt")).logits.softmax(1)
    for batch_size in (1, 3):
        for form in (lambda wave: wave, lambda wave: {"array": wave, "sampling_rate": 16_000}):
            found = classify([form(wave) for wave in waves], batch_size=batch_size)
            for scores, row in zip(found, expected, strict=True):
                by_name = {score["label"]: score["score"] for score in scores}
                assert by_name.keys() == {"spoof", "bonafide"}
                assert [by_name["spoof"], by_name["bonafide"]] == pytest.approx(row.tolist(), abs=1e-5)


@pytest.mark.parametrize("n_samples", [3200, None])
def test_the_collator_makes_the_extractors_inputs(detector, n_samples):
    model, _, _ = detector
    extractor = SpoofDetectorFeatureExtractor(n_samples=n_samples)
    waves = [clip(4000), clip(2000, 1)]
    items = [{"input_values": wave, "labels": label} for wave, label in zip(waves, (1, 0), strict=True)]
    batch = ViewCollator(extractor)(items)
    expected = SpoofDetectorFeatureExtractor(n_samples=None)(waves, return_tensors="pt")  # windows are already cut
    assert batch.keys() == {*expected, "labels"}
    assert "attention_mask" in batch
    assert all(torch.equal(batch[name], expected[name]) for name in expected)
    assert batch["labels"].tolist() == [1, 0]
    assert model(**batch).loss.isfinite()
