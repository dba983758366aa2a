"""A detector whose class 0 is bona fide keeps its scores when it is loaded for training."""

import json

import numpy as np
import pytest
import torch
from tiny_detectors import SMALL, TINY, make_detector
from torch import nn
from transformers import (
    ASTFeatureExtractor,
    AutoConfig,
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    Wav2Vec2FeatureExtractor,
    WhisperFeatureExtractor,
)

from hf_gradalign.labels import LABEL_NAMES
from hf_gradalign.models import ID2LABEL, LABEL2ID, load_audio_classifier, output_labels, put_in_order

RNG = np.random.default_rng(0)
CLIP = RNG.normal(0, 0.1, 66_800).astype(np.float32)
PLAIN = TINY | {"classifier_proj_size": 8}
AST = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "max_length": 64}
WHISPER = {"d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 16, "num_mel_bins": 80}
WHISPER |= {"decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 16, "vocab_size": 50}
WHISPER |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
FAMILIES = {
    "wav2vec2": (PLAIN, Wav2Vec2FeatureExtractor()),
    "hubert": (PLAIN, Wav2Vec2FeatureExtractor()),
    "wavlm": (PLAIN, Wav2Vec2FeatureExtractor()),
    "data2vec-audio": (PLAIN, Wav2Vec2FeatureExtractor()),
    "audio-spectrogram-transformer": (AST, ASTFeatureExtractor(max_length=64)),
    "whisper": (WHISPER | {"classifier_proj_size": 8}, WhisperFeatureExtractor()),
}


def save(folder, labels, family="wav2vec2", **options):
    fields, extractor = FAMILIES[family]
    torch.manual_seed(0)
    labels = {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}
    model = AutoModelForAudioClassification.from_config(AutoConfig.for_model(family, **fields, **labels, **options))
    for parameter in model.parameters():  # biases too
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)
    return str(folder)


@torch.no_grad()
def logits_of(model, extractor):
    return model.eval()(**extractor(CLIP, sampling_rate=16_000, return_tensors="pt")).logits[0]


def raw_logits(folder):
    model = AutoModelForAudioClassification.from_pretrained(folder)
    return logits_of(model, AutoFeatureExtractor.from_pretrained(folder))


@pytest.mark.parametrize(
    "family",
    [
        family if family in ("wav2vec2", "whisper") else pytest.param(family, marks=pytest.mark.slow)
        for family in FAMILIES
    ],
)
def test_bona_fide_first_keeps_its_scores(family, tmp_path, caplog):
    folder = save(tmp_path, ["real", "fake"], family)
    bonafide, spoof = raw_logits(folder)
    model, extractor = load_audio_classifier(folder)
    assert logits_of(model, extractor).tolist() == pytest.approx([float(spoof), float(bonafide)], abs=1e-6)
    assert model.config.id2label == ID2LABEL
    assert model.config.label2id == LABEL2ID
    assert "has the labels 0: real, 1: fake: the rows are swapped in classifier" in caplog.text

    model.save_pretrained(tmp_path / "again")
    extractor.save_pretrained(tmp_path / "again")
    caplog.clear()
    again, _ = load_audio_classifier(str(tmp_path / "again"))
    assert torch.equal(logits_of(again, extractor), logits_of(model, extractor))
    assert "swapped" not in caplog.text


@pytest.mark.parametrize("head", SMALL)
def test_our_own_heads(head, tmp_path):
    options = {"n_samples": 3200, "id2label": {0: "bona fide", 1: "spoof"}, "class_weights": [0.9, 0.1]}
    make_detector(head=head, **options).save_pretrained(tmp_path)
    bonafide, spoof = raw_logits(tmp_path)
    model, extractor = load_audio_classifier(str(tmp_path))
    assert logits_of(model, extractor).tolist() == pytest.approx([float(spoof), float(bonafide)], abs=1e-6)
    assert model.config.class_weights == [0.1, 0.9]


BONAFIDE_FIRST = [
    ("bona fide", "spoof"),
    ("Bona-Fide", "Spoof"),
    ("BONAFIDE", "SPOOF"),
    ("authentic", "spoof"),
    ("Real", "Fake"),
    ("human", "AI-generated"),
    ("genuine", "deep fake"),
    ("original", "manipulated"),
    ("natural", "synthetic"),
    ("live", "replay"),
    ("real speech", "fake speech"),
    ("HumanVoice", "AIVoice"),
    ("0_real", "1_fake"),
    ("bona fide (real)", "spoof (fake)"),
    ("real", "LABEL_1"),
    ("not fake", "fake"),
]


@pytest.mark.parametrize("names", BONAFIDE_FIRST)
def test_spellings(names):
    assert output_labels(dict(enumerate(names))) == ("bonafide", "spoof")
    assert output_labels({str(1 - number): name for number, name in enumerate(names)}) == ("spoof", "bonafide")


@pytest.mark.parametrize(
    "names",
    [
        *(("LABEL_0", "LABEL_1"), ("0", "1"), ("real", "human")),
        *(pytest.param(names, marks=pytest.mark.slow) for names in (("a", "b"), ("female", "male"), ("fake", "spoof"))),
    ],
)
def test_inconclusive_names(names, tmp_path):
    with pytest.raises(ValueError, match=f"cannot tell which .*0: {names[0]}, 1: {names[1]}.*--bonafide_label"):
        output_labels(dict(enumerate(names)))
    folder = save(tmp_path, names)
    with pytest.raises(ValueError, match=r"cannot tell which .*--bonafide_label.*--head linear"):
        load_audio_classifier(folder)
    first, second = raw_logits(folder)
    for label, expected in ((names[0], [second, first]), (names[1], [first, second]), ("0", [second, first])):
        if label == "0" and "0" in names:
            continue
        model, extractor = load_audio_classifier(folder, bonafide_label=label)
        assert logits_of(model, extractor).tolist() == pytest.approx([float(x) for x in expected], abs=1e-6)
    with pytest.raises(ValueError, match="the model has no label 'c'; its labels are 0: "):
        load_audio_classifier(folder, bonafide_label="c")


@pytest.mark.parametrize("bonafide_label", [None, "real"])
def test_three_classes(bonafide_label):
    with pytest.raises(ValueError, match="labels are 0: real, 1: tts, 2: vc, and only models with one or two outputs"):
        output_labels({0: "real", 1: "tts", 2: "vc"}, None, bonafide_label)


def test_a_configuration_that_contradicts_itself():
    with pytest.raises(ValueError, match="contradicts itself: id2label says 0: real, 1: fake, and label2id 0: fake"):
        output_labels({0: "real", 1: "fake"}, {"fake": 0, "real": 1})
    assert output_labels({0: "real", 1: "fake"}, {"fake": 0, "real": 1}, "1") == ("spoof", "bonafide")
    assert output_labels({0: "LABEL_0", 1: "LABEL_1"}, {"real": 0, "fake": 1}) == ("bonafide", "spoof")
    assert output_labels({0: "real", 1: "fake"}, {"LABEL_0": 0, "LABEL_1": 1}) == ("bonafide", "spoof")
    with pytest.raises(ValueError, match="both of the model's labels are 'x': pass its number"):
        output_labels({0: "x", 1: "x"}, None, "x")


@pytest.mark.parametrize("family", ["wav2vec2", "audio-spectrogram-transformer"])
@pytest.mark.parametrize(
    ("label", "bonafide_label", "sign"), [("genuine", None, 1), ("fake", None, -1), ("LABEL_0", "none", -1)]
)
def test_one_output_becomes_two(family, label, bonafide_label, sign, tmp_path):
    folder = save(tmp_path, [label], family)
    (output,) = raw_logits(folder)
    model, extractor = load_audio_classifier(folder, bonafide_label=bonafide_label)
    spoof, bonafide = logits_of(model, extractor)
    assert float(bonafide - spoof) == pytest.approx(sign * float(output), abs=1e-6)
    inputs = extractor(CLIP, sampling_rate=16_000, return_tensors="pt")
    assert model(**inputs, labels=torch.tensor([1])).loss.isfinite()
    model.save_pretrained(tmp_path / "again")
    again = AutoModelForAudioClassification.from_pretrained(tmp_path / "again")
    assert torch.equal(logits_of(again, extractor), logits_of(model, extractor))


def test_inconclusive_single_output(tmp_path):
    with pytest.raises(ValueError, match=r"only output.*--bonafide_label LABEL_0 or --bonafide_label none"):
        load_audio_classifier(save(tmp_path, ["LABEL_0"]))
    with pytest.raises(ValueError, match=r"--bonafide_label 'AI voice\?' or --bonafide_label none"):
        output_labels({0: "AI voice?"})


def test_layer_is_found_by_its_effect(tmp_path):
    """Neither by its name nor by its position."""
    torch.manual_seed(0)
    model = AutoModelForAudioClassification.from_config(AutoConfig.for_model("wav2vec2", **PLAIN))
    model.classifier = nn.utils.parametrizations.weight_norm(nn.Linear(8, 2))
    model.an_unused_layer = nn.Linear(8, 2)
    extractor = Wav2Vec2FeatureExtractor()
    before = logits_of(model, extractor)
    state = torch.get_rng_state()
    assert put_in_order(model, extractor, ("bonafide", "spoof")) == "classifier"
    assert torch.equal(torch.get_rng_state(), state)  # later random numbers do not depend on the order of labels
    assert logits_of(model, extractor).tolist() == pytest.approx(before.flip(0).tolist(), abs=1e-6)

    class Probabilities(nn.Linear):
        def forward(self, x):
            return torch.cat([super().forward(x), x[:, :1]], 1)

    model.classifier = Probabilities(8, 1)  # one of its two outputs has no row to swap
    with pytest.raises(
        ValueError, match=r"outputs of this Wav2Vec2ForSequenceClassification are bonafide, spoof.*none"
    ):
        put_in_order(model, extractor, ("bonafide", "spoof"))


def test_one_place_names_the_classes():
    assert tuple(ID2LABEL.values()) == LABEL_NAMES


def test_the_run_and_the_scorer_have_the_option(tmp_path):
    from hf_gradalign.experiment import parse_arguments
    from hf_gradalign.scoring import SpoofScorer

    model_args = parse_arguments(["--align_gradients", "--bonafide_label", "LABEL_0"]).model
    assert model_args.bonafide_label == "LABEL_0"
    with pytest.raises(SystemExit):
        parse_arguments(["--align_gradients", "--bonafide_label", "LABEL_0", "--head", "linear"])
    folder = save(tmp_path, ["fake"])
    (output,) = raw_logits(folder)
    assert SpoofScorer(folder).score([CLIP]) == pytest.approx([-float(output)], abs=1e-5)
    config = json.loads((tmp_path / "config.json").read_text())
    config["id2label"], config["label2id"] = {"0": "x"}, {"x": 0}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert SpoofScorer(folder, bonafide_label="x").score([CLIP]) == pytest.approx([float(output)], abs=1e-5)
    with pytest.raises(ValueError, match="whether the model's only output"):
        SpoofScorer(folder)
