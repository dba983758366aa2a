"""Every command and class that takes a model takes a published checkpoint as it is."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from published_layout import logits_of, make_published

import hf_gradalign
from hf_gradalign.experiment.publication import _license_of_base
from hf_gradalign.hub.arena import GradAlignModel

CHECKPOINT = Path(__file__).parents[1] / "fixtures" / "nes2net_x.pth"
OPTIONS = json.dumps({"num_attention_heads": 4})


@pytest.fixture
def clip(tmp_path):
    samples = np.random.default_rng(0).normal(0, 0.1, 20_000).astype(np.float32)
    soundfile.write(tmp_path / "clip.wav", samples, 16_000, subtype="FLOAT")
    return tmp_path / "clip.wav"


@pytest.fixture
def expected(clip):
    model, extractor = hf_gradalign.load_detector(str(CHECKPOINT), conversion_options=json.loads(OPTIONS))
    inputs = extractor(soundfile.read(clip, dtype="float32")[0], sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        spoof, bonafide = model(**inputs).logits[0].tolist()
    return bonafide - spoof


def test_score(load_script, clip, expected, tmp_path):
    words = [str(CHECKPOINT), "--audio", str(clip), "--output_file", str(tmp_path / "s.txt"), "--no_progress"]
    assert load_script("score_audio_spoof").main([*words, "--conversion_options", OPTIONS, "--device", "cpu"]) == 0
    assert float((tmp_path / "s.txt").read_text().split()[1]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.long
@pytest.mark.slow
def test_export(load_script, clip, expected, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    words = [str(CHECKPOINT), "--output", str(tmp_path / "d.onnx"), "--conversion_options", OPTIONS]
    assert load_script("export_onnx").main(words) == 0
    samples = np.resize(soundfile.read(clip, dtype="float32")[0], (1, 64_600))  # the window, by repetition
    ((spoof, bonafide),) = onnxruntime.InferenceSession(tmp_path / "d.onnx").run(None, {"input_values": samples})[0]
    assert bonafide - spoof == pytest.approx(expected, abs=1e-4)


def test_the_arenas_class(clip, expected, monkeypatch):
    for name, value in (("MODEL", str(CHECKPOINT)), ("CONVERSION_OPTIONS", OPTIONS), ("DEVICE", "cpu")):
        monkeypatch.setenv(f"HF_GRADALIGN_{name}", value)
    model = GradAlignModel()
    model.load()
    samples, rate = soundfile.read(clip, dtype="float32")
    assert model.score_batch([samples], [rate]) == [pytest.approx(expected, abs=1e-5)]
    monkeypatch.setenv("HF_GRADALIGN_CONVERSION_OPTIONS", "[4]")
    with pytest.raises(ValueError, match="HF_GRADALIGN_CONVERSION_OPTIONS takes a JSON object, such as"):
        GradAlignModel().load()


def test_train(run_script, tmp_path):
    out = tmp_path / "out"
    words = ("--model_name_or_path", str(CHECKPOINT), "--conversion_options", OPTIONS)
    assert run_script("--align_gradients", *words, output_dir=out) == 0
    model, _ = hf_gradalign.load_detector(str(out))
    before, _ = hf_gradalign.load_detector(str(CHECKPOINT), conversion_options=json.loads(OPTIONS))
    assert model.config.head == "nes2net"
    weight, start = model.head.classifier.weight, before.head.classifier.weight
    assert not torch.equal(weight, start)
    torch.testing.assert_close(weight, start, atol=0.05, rtol=0)  # it went on from the published weights
    assert "It is nes2net_x.pth, fine-tuned on " in (out / "README.md").read_text()


@pytest.mark.slow
def test_adapters_find_the_checkpoint_again(run_script, tmp_path):
    _, state = make_published("mamba", hidden_size=32, num_attention_heads=16, num_conv_pos_embedding_groups=4)
    torch.save(state, tmp_path / "best.pth")
    words = ("--model_name_or_path", str(tmp_path / "best.pth"), "--lora_r", "2", "--no_merge_adapters")
    assert run_script("--align_gradients", *words, output_dir=tmp_path / "out") == 0
    settings = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == str(tmp_path / "best.pth")
    adapted, _ = hf_gradalign.load_detector(str(tmp_path / "out"))
    base, _ = hf_gradalign.load_detector(str(tmp_path / "best.pth"))
    assert not torch.equal(logits_of(adapted), logits_of(base))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--conversion_options", "{}"], "--conversion_options takes a JSON object and needs --model_name_or_path"),
        (["--model_name_or_path", "aasist", "--conversion_options", "{}"], "--conversion_options does not apply to"),
        (["--model_name_or_path", "x.pth", "--conversion_options", "{"], "--conversion_options is not JSON: "),
        (["--model_name_or_path", "no/x.pth"], "no/x.pth is not a file or folder; name a checkpoint on the Hub as"),
    ],
)
def test_train_refuses(run_script, tmp_path, capsys, words, message):
    try:
        status = run_script("--align_gradients", *words, output_dir=tmp_path / "out")
    except SystemExit as ended:  # of the parser
        status = ended.code
    assert status == 2
    assert f"error: {message}" in capsys.readouterr().err


def test_the_license_of_a_published_detector_is_that_of_what_is_trained_from_it():
    assert _license_of_base("nii-yamagishilab/mms-300m-anti-deepfake") == "cc-by-nc-sa-4.0"
    assert _license_of_base("nii-yamagishilab/mms-300m-anti-deepfake:model.safetensors") == "cc-by-nc-sa-4.0"
    assert _license_of_base("facebook/wav2vec2-base") is None
    assert _license_of_base(None) is None
