"""Calibrations of models of transformers, which are folded into the layer that computes the logits."""

import pytest
import torch
from tiny_detectors import make_classifier, make_clips, make_detector

from hf_gradalign.models import output_labels, put_in_order, small_feature_extractor
from hf_gradalign.models.label_order import score_of
from hf_gradalign.models.stored_calibration import calibration_of, fold_calibration, raw_logits

CLIPS = make_clips()
LABELS = {
    "usual": {0: "spoof", 1: "bonafide"},
    "reversed": {0: "bonafide", 1: "spoof"},
    "single": {0: "bonafide"},
    "single spoof": {0: "spoof"},
}


def scores_of(model, order):
    with torch.no_grad():
        return score_of(model(CLIPS).logits, order)


def fold(model, order, slope=2.5, offset=-1.0):
    note = fold_calibration(model, small_feature_extractor(), order, slope, offset)
    return {"method": "affine", "prior": 0.5, "slope": slope, "offset": offset, **note}


@pytest.mark.parametrize("id2label", LABELS.values(), ids=LABELS)
def test_scores_become_ratios_and_can_be_had_back(id2label):
    model = make_classifier(id2label=id2label, label2id={name: index for index, name in id2label.items()})
    order = output_labels(id2label)
    before = scores_of(model, order)
    model.config.calibration = fold(model, order)
    assert torch.allclose(scores_of(model, order), 2.5 * before - 1, atol=1e-5)
    calibration = calibration_of(model)
    with torch.no_grad():
        raw = raw_logits(model, {"input_values": CLIPS}, calibration, order)
    assert raw.shape == (len(CLIPS), len(id2label))
    assert torch.allclose(score_of(raw, order), before, atol=1e-5)


def test_changed_weights_are_not_calibrated(caplog):
    model = make_classifier()
    model.config.calibration = fold(model, ("spoof", "bonafide"))
    with torch.no_grad():
        model.classifier.bias.add_(1e-3)
    assert calibration_of(model) is None
    assert "does not belong to these weights" in caplog.text


@pytest.mark.parametrize("labels", ["reversed", "single", "single spoof"])
def test_reordering_the_labels_keeps_the_calibration(labels):
    id2label = LABELS[labels]
    model = make_classifier(id2label=id2label, label2id={name: index for index, name in id2label.items()})
    order, usual = output_labels(id2label), ("spoof", "bonafide")
    raw = scores_of(model, order)
    model.config.calibration = fold(model, order)
    before = scores_of(model, order)
    put_in_order(model, small_feature_extractor(), order)
    torch.testing.assert_close(scores_of(model, usual), before)
    calibration = calibration_of(model)
    assert calibration["slope"] == 2.5
    assert calibration["outputs"] == list(usual)
    with torch.no_grad():
        undone = raw_logits(model, {"input_values": CLIPS}, calibration, tuple(calibration["outputs"]))
    torch.testing.assert_close(score_of(undone, usual), raw, atol=1e-5, rtol=0)


def test_a_layer_without_a_bias_is_refused():
    model = make_classifier()
    model.classifier.register_parameter("bias", None)
    with pytest.raises(ValueError, match="layers that fit: none"):
        fold(model, ("spoof", "bonafide"))


def test_detectors_apply_theirs_unless_their_code_is_older(caplog, monkeypatch):
    model = make_detector()
    assert calibration_of(model) is None
    model.config.calibration = {"method": "affine", "prior": 0.5, "slope": 2.0, "offset": 1.0}
    assert calibration_of(model) == model.config.calibration
    monkeypatch.setattr(type(model), "forward", lambda self, input_values: None)
    assert calibration_of(model) is None
    assert "does not apply it" in caplog.text
