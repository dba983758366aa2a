import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_detectors import SMALL, make_classifier, make_detector
from transformers import (
    AutoModelForAudioClassification,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForAudioFrameClassification,
)

from hf_gradalign.models import (
    HEADS,
    ID2LABEL,
    LABEL2ID,
    load_audio_classifier,
    load_classifier,
    loading,
    small_wav2vec2_config,
)
from hf_gradalign.scoring import load_detector

TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
TINY |= {"num_conv_pos_embedding_groups": 2}


@pytest.fixture
def checkpoint(tmp_path):
    def make(labels=None, extractor=True, **options):
        if labels is not None:
            options |= {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}
        config = small_wav2vec2_config(**TINY | options)
        AutoModelForAudioClassification.from_config(config).save_pretrained(tmp_path / "checkpoint")
        if extractor:
            Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(tmp_path / "checkpoint")
        return str(tmp_path / "checkpoint")

    return make


def test_the_small_model():
    model, extractor = load_audio_classifier()
    assert 0.6e6 < model.num_parameters() < 0.8e6
    assert model.config.id2label == ID2LABEL == {0: "spoof", 1: "bonafide"}
    inputs = extractor([[0.0, 1.0] * 8000], sampling_rate=16_000, return_tensors="pt")
    assert model(**inputs).logits.shape == (1, 2)


def test_class_weights_go_by_name_and_survive(tmp_path):
    model, _ = load_audio_classifier(class_weights={"bonafide": 0.9, "spoof": 0.1})
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["class_weights"] == [0.1, 0.9]
    reloaded, _ = load_audio_classifier(str(tmp_path))
    assert reloaded.config.class_weights == [0.1, 0.9]


def test_a_head_of_another_size_is_replaced(checkpoint):
    path = checkpoint(labels=["a", "b", "c"])
    model, extractor = load_audio_classifier(path)
    assert model.classifier.out_features == 2
    assert model.config.label2id == LABEL2ID
    assert extractor.do_normalize is False
    trained = AutoModelForAudioClassification.from_pretrained(path)
    assert torch.equal(model.wav2vec2.encoder.layer_norm.weight, trained.wav2vec2.encoder.layer_norm.weight)
    assert torch.equal(model.projector.weight, trained.projector.weight)


def test_a_detector_keeps_its_head(checkpoint):
    path = checkpoint(labels=["fake", "real"])
    model, _ = load_audio_classifier(path)
    trained = AutoModelForAudioClassification.from_pretrained(path)
    assert torch.equal(model.classifier.weight, trained.classifier.weight)


def test_a_single_label_without_a_trained_head_gets_two(checkpoint, tmp_path):
    path = checkpoint(labels=["LABEL_0"])
    AutoModelForAudioClassification.from_pretrained(path).wav2vec2.save_pretrained(path)
    model, _ = load_audio_classifier(path)
    assert model.classifier.out_features == 2
    assert model.config.id2label == ID2LABEL
    with pytest.raises(ValueError, match=r"--bonafide_label LABEL_0: .* has no trained head"):
        load_audio_classifier(path, bonafide_label="LABEL_0")


def test_a_classifier_without_its_head_is_called_untrained(checkpoint):
    path = checkpoint()
    for name in [name for name in load_file(f"{path}/model.safetensors") if not name.startswith("wav2vec2.")]:
        drop(path, name)
    with pytest.raises(ValueError, match=r"\.\.\.\)\. It is not a trained classifier, and scores from random weights"):
        load_detector(path)


def test_incomplete_encoder_is_refused(checkpoint):
    path = checkpoint()
    weights = load_file(f"{path}/model.safetensors")
    lacking = {name: value for name, value in weights.items() if "layers.0.attention.k_proj" not in name}
    save_file(lacking, f"{path}/model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 2 weights of its encoder.*k_proj\.bias"):
        load_audio_classifier(path)
    weights["wav2vec2.encoder.layer_norm.weight"] = torch.ones(17)
    save_file(weights, f"{path}/model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"their shapes differ.*\(wav2vec2.encoder.layer_norm.weight\)"):
        load_audio_classifier(path)


def drop(path, name):
    weights = load_file(f"{path}/model.safetensors")
    del weights[name]
    save_file(weights, f"{path}/model.safetensors", {"format": "pt"})


def head_key(head, ending):
    return next(key for key in make_detector(head=head).state_dict() if key.startswith("head.") and ending in key)


@pytest.mark.parametrize("head", HEADS)
def test_a_detector_that_lacks_a_weight_of_its_head_is_refused(head, tmp_path):
    refuses_without(head_key(head, "weight"), head, tmp_path)


@pytest.mark.parametrize("head", ["aasist", "nes2net"])
def test_a_detector_that_lacks_a_buffer_of_its_head_is_refused(head, tmp_path):
    """It would count as a new head, and the labels would stay in the wrong order."""
    refuses_without(head_key(head, "num_batches_tracked"), head, tmp_path)


def refuses_without(key, head, folder):
    labels = {"id2label": {0: "bonafide", 1: "spoof"}, "label2id": {"bonafide": 0, "spoof": 1}}
    make_detector(head=head, **labels).save_pretrained(folder)
    drop(folder, key)
    for load in (load_audio_classifier, load_detector):
        with pytest.raises(ValueError, match=rf"lacks 1 weights or buffers of its head.*\({key}\)"):
            load(str(folder))


@pytest.mark.parametrize("labels", [["fake", "real"], ["real"], ["a", "b", "c"]])
def test_a_classifier_that_lacks_a_part_of_its_head_is_refused(labels, checkpoint):
    path = checkpoint(labels=labels)
    drop(path, "projector.weight")
    for load in (load_audio_classifier, load_detector):
        with pytest.raises(ValueError, match=r"lacks \d weights or buffers of its head.*projector.weight"):
            load(path)


def test_a_head_of_another_class_is_replaced(checkpoint, monkeypatch):
    """Its classifier has a bias of the same shape."""
    warnings = []
    monkeypatch.setattr(loading.logger, "warning", warnings.append)
    path = checkpoint()
    Wav2Vec2ForAudioFrameClassification(small_wav2vec2_config(**TINY)).save_pretrained(path)
    model, _ = load_audio_classifier(path)
    assert model.config.id2label == ID2LABEL
    assert "was saved as a Wav2Vec2ForAudioFrameClassification, whose head does not fit a Wav2Vec2For" in warnings[0]
    with pytest.raises(
        ValueError,
        match="saved as a Wav2Vec2ForAudioFrameClassification, which has another head or none, and",
    ):
        load_detector(path)


LESS = {"mamba": {"head_options": SMALL["mamba"] | {"num_blocks": 1}}, "classifier": {"num_hidden_layers": 1}}
LEAVES_OUT = r"has \d+ weights of layers that its configuration leaves out \(.*in its config\.json or in the options"


@pytest.mark.parametrize("n_labels", [2, 3])
@pytest.mark.parametrize("kind", LESS)
def test_a_configuration_that_leaves_out_layers_is_refused(kind, n_labels, tmp_path):
    model = (
        make_detector(head="mamba", num_labels=n_labels) if kind == "mamba" else make_classifier(num_labels=n_labels)
    )
    model.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    weights = load_file(tmp_path / "model.safetensors")
    weights[f"{model.base_model_prefix}.encoder.inv_freq"] = torch.ones(2)  # a buffer of an older version
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    load_detector(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps(settings | LESS[kind]))
    for load in (load_audio_classifier, load_detector):
        with pytest.raises(ValueError, match=LEAVES_OUT):
            load(str(tmp_path))


def test_only_encoders_may_be_shortened(checkpoint):
    path = checkpoint(num_hidden_layers=2)
    with pytest.raises(ValueError, match=LEAVES_OUT):
        load_classifier(path, {}, num_hidden_layers=1)
    weights = load_file(f"{path}/model.safetensors")
    encoder = {name: value for name, value in weights.items() if name.startswith("wav2vec2.")}
    save_file(encoder, f"{path}/model.safetensors", {"format": "pt"})
    _, absent = load_classifier(path, {}, num_hidden_layers=1)
    assert absent == weights.keys() - encoder.keys()


def test_a_detector_of_three_classes_gets_a_new_output_layer(tmp_path):
    model = make_detector(num_labels=3)
    model.save_pretrained(tmp_path)
    loaded, _ = load_audio_classifier(str(tmp_path))
    assert loaded.config.id2label == ID2LABEL
    assert loaded.head.classifier.out_features == 2


def test_without_a_preprocessor_config(checkpoint):
    _, extractor = load_audio_classifier(checkpoint(extractor=False))
    assert extractor.do_normalize is True
    assert extractor.sampling_rate == 16_000


def test_half_precision_checkpoints_train_in_float32(checkpoint):
    path = checkpoint()
    AutoModelForAudioClassification.from_pretrained(path).half().save_pretrained(path)
    model, _ = load_audio_classifier(path)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
