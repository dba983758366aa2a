"""Losses with margins: their formulas, the output layers, and detectors with them."""

import math

import numpy as np
import pytest
import torch
from tiny_detectors import LABELS, SMALL, make_clips, make_detector
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import AutoModelForAudioClassification, pipeline

from hf_gradalign.conversion import ConversionError
from hf_gradalign.conversion.converting import published_state_dict
from hf_gradalign.experiment.model_arguments import ModelArguments
from hf_gradalign.export import export_program
from hf_gradalign.models import HEADS, SpoofDetectorConfig, load_audio_classifier
from hf_gradalign.models.losses import LOSSES, detection_loss, loss_options, make_output_layer
from hf_gradalign.scoring import SpoofScorer

MARGIN_LOSSES = [name for name in LOSSES if name != "cross_entropy"]
CLIP = np.random.default_rng(0).normal(0, 0.1, 3200).astype(np.float32)
WEIGHTS = [None, [0.1, 0.9]]


def weighted_mean(items, weights):
    factors = [1.0 if weights is None else weights[label] for label in LABELS.tolist()]
    return sum(f * item for f, item in zip(factors, items, strict=True)) / sum(factors)


def tensor_or_none(weights):
    return None if weights is None else torch.tensor(weights)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_am_softmax(weights):
    cosines, (m, s) = torch.tensor([[0.3, -0.2], [0.9, 0.8], [-1.0, 0.1]]), (0.35, 30.0)
    items = []
    for row, label in zip(cosines.tolist(), LABELS.tolist(), strict=True):
        true, other = math.exp(s * (row[label] - m)), math.exp(s * row[1 - label])
        items.append(-math.log(true / (true + other)))
    found = detection_loss(s * cosines, LABELS, "am_softmax", class_weights=tensor_or_none(weights))
    assert found.item() == pytest.approx(weighted_mean(items, weights), rel=1e-5)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_oc_softmax(weights):
    cosines = [0.3, 0.7, -0.4]
    logits = torch.tensor([[0.0, cosine] for cosine in cosines])
    items = [
        math.log1p(math.exp(20 * (0.9 - cosine if label else cosine - 0.2)))
        for cosine, label in zip(cosines, LABELS.tolist(), strict=True)
    ]
    found = detection_loss(logits, LABELS, "oc_softmax", class_weights=tensor_or_none(weights))
    assert found.item() == pytest.approx(weighted_mean(items, weights), rel=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_labels_that_are_ignored(loss):
    logits = torch.tensor([[0.1, 0.4], [0.5, -0.2], [0.3, 0.3], [-0.6, 0.2]])
    labels, weights = torch.tensor([0, 1, -100, 1]), torch.tensor([0.3, 0.7])
    kept = labels != -100
    for given in (None, weights):
        found = detection_loss(logits, labels, loss, class_weights=given)
        torch.testing.assert_close(found, detection_loss(logits[kept], labels[kept], loss, class_weights=given))


def test_without_margin_am_softmax_is_the_cross_entropy():
    logits = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    found = detection_loss(logits, LABELS, "am_softmax", {"margin": 0.0, "scale": 30.0})
    torch.testing.assert_close(found, cross_entropy(logits, LABELS))


@pytest.mark.parametrize("loss", MARGIN_LOSSES)
def test_output_layers_give_cosines(loss):
    torch.manual_seed(0)
    layer = make_output_layer(loss, loss_options(loss), nn.Linear(8, 2))
    assert 1 < layer.weight.norm(dim=1).min() <= layer.weight.norm(dim=1).max() < 6  # standard normal
    embedding = torch.randn(5, 8)
    cosines = torch.cosine_similarity(embedding[:, None], layer.weight[None], dim=2)
    logits = layer(embedding)
    if loss == "am_softmax":
        torch.testing.assert_close(logits, 30 * cosines)
    else:
        torch.testing.assert_close(logits[:, 1:], cosines)
        assert (logits[:, 0] == 0).all()
    torch.testing.assert_close(layer(7 * embedding), logits)
    assert layer(torch.zeros(1, 8)).isfinite().all()
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(layer(embedding), logits)


@pytest.mark.parametrize("loss", MARGIN_LOSSES)
@pytest.mark.parametrize("head", SMALL)
def test_every_head(head, loss, tmp_path):
    """The scores and the loss of a detector stay when it is saved and loaded."""
    model, clips = make_detector(head=head, loss=loss, n_samples=3200, class_weights=[0.2, 0.8]), make_clips()
    assert model.has_margin_loss
    output = model(clips, labels=LABELS)
    expected = detection_loss(output.logits, LABELS, loss, model.config.loss_options, torch.tensor([0.2, 0.8]))
    torch.testing.assert_close(output.loss, expected)
    model.zero_grad()
    output.loss.backward()
    assert model.head.classifier.weight.grad.abs().max() > 0
    model.save_pretrained(tmp_path)
    loaded = AutoModelForAudioClassification.from_pretrained(tmp_path)
    assert loaded.config.loss_options == LOSSES[loss]
    again = loaded(clips, labels=LABELS)
    torch.testing.assert_close(again.logits, output.logits)
    torch.testing.assert_close(again.loss, output.loss)


def test_the_score_of_oc_softmax_is_the_cosine(tmp_path):
    model = make_detector(loss="oc_softmax", n_samples=3200)
    model.save_pretrained(tmp_path)
    embeddings = []
    model.head.dropout.register_forward_hook(lambda module, inputs, output: embeddings.append(output))
    model(model.make_feature_extractor()(CLIP, return_tensors="pt").input_values)
    cosine = torch.cosine_similarity(embeddings[0], model.head.classifier.weight).item()
    (score,) = SpoofScorer(tmp_path).score([CLIP])
    assert score == pytest.approx(cosine, abs=1e-6)
    answers = pipeline("audio-classification", str(tmp_path))(
        {"array": CLIP, "sampling_rate": 16_000}, function_to_apply="none"
    )
    found = {answer["label"]: answer["score"] for answer in answers}
    assert found == pytest.approx({"spoof": 0.0, "bonafide": cosine}, abs=1e-6)


@pytest.mark.parametrize("loss", MARGIN_LOSSES)
def test_loaded_to_train_further(loss, tmp_path):
    model = make_detector(loss=loss, n_samples=3200)
    model.save_pretrained(tmp_path)
    loaded, _ = load_audio_classifier(str(tmp_path))
    assert loaded.config.loss == loss
    torch.testing.assert_close(loaded(make_clips()).logits, model(make_clips()).logits)
    with pytest.raises(ConversionError, match=f"no published layout with the output layer of {loss}"):
        published_state_dict(make_detector(head="aasist", loss=loss))


@pytest.mark.parametrize(
    "loss", [loss if loss == "oc_softmax" else pytest.param(loss, marks=pytest.mark.slow) for loss in MARGIN_LOSSES]
)
def test_exported(loss):
    model = make_detector(loss=loss, n_samples=3200, backbone={"num_hidden_layers": 1})
    exported = export_program(model, n_samples=3200).module()
    with torch.no_grad():
        torch.testing.assert_close(exported(make_clips()), model(make_clips()).logits, atol=1e-5, rtol=0)


def test_am_softmax_with_the_classes_in_the_other_order(tmp_path):
    model = make_detector(loss="am_softmax", n_samples=3200, id2label={0: "bonafide", 1: "spoof"})
    model.save_pretrained(tmp_path)
    expected = SpoofScorer(tmp_path).score([CLIP])
    loaded, extractor = load_audio_classifier(str(tmp_path))
    assert loaded.config.id2label == {0: "spoof", 1: "bonafide"}
    np.testing.assert_allclose(SpoofScorer(loaded, extractor).score([CLIP]), expected, atol=1e-5)


def test_detectors_without_them_are_saved_as_before():
    config = make_detector().config
    assert not {"loss", "loss_options"} & config.to_dict().keys()
    assert not {"loss", "loss_options"} & SpoofDetectorConfig(loss="cross_entropy").to_dict().keys()
    assert not make_detector().has_margin_loss


@pytest.mark.parametrize(
    ("loss", "options", "message"),
    [
        ("am_softmaks", {}, "there is no loss 'am_softmaks'; available: cross_entropy, am_softmax, oc_softmax"),
        ("am_softmax", {"margins": 0.2}, "the loss am_softmax has no option margins; it has margin, scale"),
        ("cross_entropy", {"margin": 0.2}, "the loss cross_entropy has no option margin; it has none"),
        ("am_softmax", {"margin": "0.2"}, "margin of am_softmax must be a number, got '0.2'"),
        ("am_softmax", {"margin": -0.1}, "margin of am_softmax must be at least 0 and below 2, got -0.1"),
        ("am_softmax", {"margin": 2}, "margin of am_softmax must be at least 0 and below 2, got 2"),
        ("oc_softmax", {"scale": 0}, "scale of oc_softmax must be positive, got 0"),
        ("oc_softmax", {"scale": math.nan}, "scale of oc_softmax must be a number, got nan"),
        (
            "oc_softmax",
            {"spoof_margin": 0.9},
            "with the spoof margin below the bona fide margin, got spoof_margin 0.9 ",
        ),
    ],
)
def test_mistakes(loss, options, message):
    with pytest.raises(ValueError, match=message):
        loss_options(loss, options)
    with pytest.raises(ValueError, match=message):
        make_detector(loss=loss, loss_options=options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_labels": 1}, "needs a head that ends with a linear layer of two outputs"),
        ({"id2label": {0: "bonafide", 1: "spoof"}}, r"oc_softmax needs the labels spoof \(0\) and bonafide \(1\)"),
        ({"head": "sls", "head_options": {"log_probabilities": True}}, "head that returns log-probabilities"),
    ],
)
def test_unsupported_combinations(options, message, monkeypatch):
    for name, value in options.pop("head_options", {}).items():
        monkeypatch.setitem(SMALL, "sls", SMALL["sls"] | {name: value})
    if "num_labels" in options:
        options |= {"loss": "am_softmax"}
    with pytest.raises(ValueError, match=message):
        make_detector(**{"loss": "oc_softmax", **options})


def test_the_command_line_knows_all_losses():
    field = ModelArguments.__dataclass_fields__["loss"]
    assert field.metadata["choices"] == list(LOSSES)
    assert set(HEADS) == set(SMALL)
