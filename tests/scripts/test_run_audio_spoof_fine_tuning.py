"""Runs that fine-tune a trained model: frozen layers and learning rates of their own."""

import json

import pytest
from safetensors.torch import load_file
from tiny_detectors import make_classifier, make_detector
from transformers import Wav2Vec2FeatureExtractor


@pytest.fixture
def base(tmp_path):
    """A folder with a classifier of transformers, and one with a detector."""

    def make(kind):
        folder = tmp_path / kind
        if kind == "classifier":
            make_classifier().save_pretrained(folder)
            Wav2Vec2FeatureExtractor().save_pretrained(folder)
        else:
            make_detector(n_samples=8000).save_pretrained(folder)
        return folder

    return make


@pytest.mark.parametrize("kind", ["classifier", "detector"])
def test_frozen_layers_and_learning_rates(run_script, base, tmp_path, kind):
    start = base(kind)
    words = ["--model_name_or_path", str(start), "--freeze_layers", "1", "--learning_rate", "0.01"]
    words += ["--head_learning_rate", "0.02"]
    assert run_script("--align_gradients", *words, output_dir=tmp_path / "out") == 0
    before, after = (load_file(folder / "model.safetensors") for folder in (start, tmp_path / "out"))
    encoder = "wav2vec2." if kind == "classifier" else "backbone."
    for name, value in after.items():
        frozen = name.startswith(encoder) and "encoder.layers.1." not in name
        assert value.equal(before[name]) == frozen, name
    settings = json.loads((tmp_path / "out" / "all_results.json").read_text())["settings"]
    assert (settings["model"]["freeze_layers"], settings["training"]["head_learning_rate"]) == (1, 0.02)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "learning rate of the head" in card
    assert "frozen layers" in card


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--freeze_layers 3", "--freeze_layers 3: the encoder has 2 layers, cannot freeze 3"),
        ("--freeze_layers -1", "--freeze_layers must be 0 or more, got -1"),
        ("--freeze_layers 1 --freeze_backbone", "--freeze_backbone freezes all layers: remove it or --freeze_layers"),
        ("--layerwise_lr_decay 2", "--layerwise_lr_decay must be above 0 and at most 1, got 2.0"),
        ("--head_learning_rate 0", "--head_learning_rate must be a positive number, got 0.0"),
        ("--freeze_layers 1 --layerwise_lr_decay 0.9", "all of that is frozen; remove it"),
        ("--freeze_backbone --head_learning_rate 1", "set its rate with --learning_rate"),
    ],
)
def test_mistakes(run_script, base, tmp_path, capsys, words, message):
    words = ["--model_name_or_path", str(base("detector")), *words.split()]
    try:
        status = run_script(*words, output_dir=tmp_path / "out")
    except SystemExit as error:
        status = error.code
    assert status == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
