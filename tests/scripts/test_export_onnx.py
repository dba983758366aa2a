import numpy as np
import pytest
import torch
from transformers import (
    Wav2Vec2ForSequenceClassification,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForAudioClassification,
)

from hf_gradalign.models import (
    SpoofDetectorConfig,
    SpoofDetectorFeatureExtractor,
    SpoofDetectorForAudioClassification,
    small_feature_extractor,
    small_wav2vec2_config,
)

onnxruntime, _ = pytest.importorskip("onnxruntime"), pytest.importorskip("onnxscript")
TINY = {
    "conv_dim": (8,) * 5,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
}


@pytest.fixture
def export(load_script):
    return load_script("export_onnx").main


@pytest.fixture
def save(tmp_path):
    def save(n_samples=3200):
        config = SpoofDetectorConfig(small_wav2vec2_config(**TINY), "linear")
        SpoofDetectorForAudioClassification(config).save_pretrained(tmp_path / "run")
        SpoofDetectorFeatureExtractor(n_samples=n_samples).save_pretrained(tmp_path / "run")
        return str(tmp_path / "run")

    return save


def test_of_another_length(load_script, save, tmp_path, monkeypatch, capsys):
    script = load_script("export_onnx")

    def disagree(model, path, n_samples, **options):
        raise script.onnx_export.OnnxMismatchError(f"{type(model).__name__} of {n_samples} samples disagrees")

    monkeypatch.setattr(script.onnx_export, "export_onnx", disagree)
    assert script.main([save(), "--output", str(tmp_path / "detector.onnx"), "--n_samples", "4000"]) == 2
    assert "error: SpoofDetectorForAudioClassification of 4000 samples disagrees" in capsys.readouterr().err


def test_a_missing_folder(export, tmp_path, capsys):
    assert export([str(tmp_path / "nowhere"), "--output", str(tmp_path / "detector.onnx")]) == 2
    nowhere = tmp_path / "nowhere"
    assert f"error: cannot load the model {nowhere} (there is no folder {nowhere})" in capsys.readouterr().err


@pytest.mark.slow
def test_exports_what_the_quick_start_makes(export, tmp_path, capsys):
    # A stock classifier, whose bona fide label comes first here.
    config = small_wav2vec2_config(**TINY)
    config.id2label, config.label2id = {0: "bonafide", 1: "spoof"}, {"bonafide": 0, "spoof": 1}
    model = Wav2Vec2ForSequenceClassification(config).eval()
    model.save_pretrained(tmp_path / "run")
    extractor = small_feature_extractor()
    extractor.n_scored_samples = 3200  # as a run saves it
    extractor.save_pretrained(tmp_path / "run")
    path = tmp_path / "detector.onnx"
    path.write_text("in place of this")
    assert export([str(tmp_path / "run"), "--output", str(path), "--overwrite"]) == 0
    printed = capsys.readouterr().out
    assert f"{path}: 0." in printed
    assert "input_values (batch, 3200) to logits (batch, 2)" in printed
    assert "largest difference from PyTorch in batches of 1, 3: " in printed
    clips = np.random.default_rng(0).standard_normal((3, 3200)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"input_values": clips})
    with torch.no_grad():
        expected = model(torch.from_numpy(clips)).logits.numpy()
    np.testing.assert_allclose(logits, expected[:, ::-1], atol=1e-5)


def test_models_that_take_no_waveforms(export, tmp_path, capsys):
    config = WhisperConfig(
        d_model=16,
        encoder_layers=1,
        encoder_attention_heads=2,
        encoder_ffn_dim=16,
        num_mel_bins=8,
        max_source_positions=50,
        id2label={0: "spoof", 1: "bonafide"},
        label2id={"spoof": 0, "bonafide": 1},
    )
    WhisperForAudioClassification(config).save_pretrained(tmp_path)
    WhisperFeatureExtractor(feature_size=8, chunk_length=1).save_pretrained(tmp_path)
    assert export([str(tmp_path), "--output", str(tmp_path / "detector.onnx")]) == 2
    assert "a WhisperForAudioClassification, takes input_features, not waveforms" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["detector.onnx", "detector.onnx.data"])
def test_a_file_that_is_there_is_not_replaced(export, save, tmp_path, capsys, name):
    (tmp_path / name).write_text("precious")
    path = tmp_path / "detector.onnx"
    assert export([save(), "--output", str(path)]) == 2
    assert (
        f"{tmp_path / name} already exists: choose another file, or pass --overwrite to replace it"
        in capsys.readouterr().err
    )
    assert (tmp_path / name).read_text() == "precious"


def test_a_folder_in_place_of_the_file(export, save, tmp_path, capsys):
    (tmp_path / "folder").mkdir()
    assert export([save(), "--output", str(tmp_path / "folder")]) == 2
    assert "folder is a folder: pass a file, such as detector.onnx" in capsys.readouterr().err


def test_whole_clips_have_no_length(export, save, tmp_path, capsys):
    assert export([save(n_samples=None), "--output", str(tmp_path / "detector.onnx")]) == 2
    assert "pass --n_samples" in capsys.readouterr().err
