import numpy as np
import onnxruntime
import pytest
from transformers import Wav2Vec2ForSequenceClassification

from hf_gradalign.models import (
    SpoofDetectorConfig,
    SpoofDetectorFeatureExtractor,
    SpoofDetectorForAudioClassification,
    small_feature_extractor,
    small_wav2vec2_config,
)

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


def test_exports_a_run(export, save, tmp_path, capsys):
    path = tmp_path / "detector.onnx"
    assert export([save(), "--output", str(path)]) == 0
    printed = capsys.readouterr().out
    assert f"{path}: 0." in printed
    assert "input_values (batch, 3200) to logits (batch, 2)" in printed
    assert "largest difference from PyTorch in batches of 1, 3: " in printed
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"input_values": np.zeros((4, 3200), np.float32)})
    assert logits.shape == (4, 2)


def test_of_another_length(load_script, save, tmp_path, monkeypatch, capsys):
    script = load_script("export_onnx")

    def disagree(model, path, n_samples):
        raise script.OnnxMismatchError(f"{type(model).__name__} of {n_samples} samples disagrees")

    monkeypatch.setattr(script, "export_onnx", disagree)
    assert script.main([save(), "--output", str(tmp_path / "detector.onnx"), "--n_samples", "4000"]) == 2
    assert "error: SpoofDetectorForAudioClassification of 4000 samples disagrees" in capsys.readouterr().err


def test_a_missing_folder(export, tmp_path, capsys):
    assert export([str(tmp_path / "nowhere"), "--output", str(tmp_path / "detector.onnx")]) == 2
    nowhere = tmp_path / "nowhere"
    assert f"error: cannot load the model {nowhere} (there is no folder {nowhere})" in capsys.readouterr().err


def test_no_detector(export, tmp_path, capsys):
    Wav2Vec2ForSequenceClassification(small_wav2vec2_config(**TINY)).save_pretrained(tmp_path)
    small_feature_extractor().save_pretrained(tmp_path)
    assert export([str(tmp_path), "--output", str(tmp_path / "detector.onnx")]) == 2
    assert f"error: {tmp_path} is no detector with a head of hf_gradalign, but a wav2vec2" in capsys.readouterr().err


def test_whole_clips_have_no_length(export, save, tmp_path, capsys):
    assert export([save(n_samples=None), "--output", str(tmp_path / "detector.onnx")]) == 2
    assert "give --n_samples" in capsys.readouterr().err
