"""Detectors with a calibration in their configuration return the logits of log-likelihood ratios."""

import json
import math

import numpy as np
import pytest
import torch
from tiny_detectors import LABELS, make_classifier, make_clips, make_config, make_detector
from transformers import AutoModelForAudioClassification, Trainer, TrainingArguments, pipeline

from hf_gradalign.metrics import Calibration
from hf_gradalign.models import SpoofDetectorConfig, load_audio_classifier, output_labels, put_in_order
from hf_gradalign.models.score_calibration import apply_calibration, drop_calibration

AFFINE = {"method": "affine", "prior": 0.5, "slope": 3.0, "offset": -0.7}
PAV = {"method": "pav", "prior": 0.5, "knots": [[-0.2, -2.0], [0.0, -2.0], [0.01, 0.5], [0.4, 3.0]]}
CALIBRATIONS = pytest.mark.parametrize("calibration", [AFFINE, PAV], ids=["affine", "pav"])
CLIPS = make_clips()


def ratios_of(model, **options):
    """Log-likelihood ratios of the clips, by the names of the outputs."""
    with torch.no_grad():
        logits = model(CLIPS, **options).logits
    columns = {name: logits[:, index] for index, name in model.config.id2label.items()}
    return columns.get("bonafide", 0) - columns.get("spoof", 0)


@CALIBRATIONS
@pytest.mark.parametrize("scores", [torch.linspace(-1, 1, 101).double(), torch.tensor([[0.0], [0.3]]).double()])
def test_map_matches_the_metrics(calibration, scores):
    expected = Calibration.from_dict(calibration)(scores.numpy())
    np.testing.assert_allclose(apply_calibration(scores, calibration).numpy(), expected, atol=1e-12)


@CALIBRATIONS
@pytest.mark.parametrize(
    "id2label", [{0: "spoof", 1: "bonafide"}, {0: "bonafide", 1: "spoof"}, {0: "bonafide"}, {0: "spoof"}]
)
def test_logits_give_the_ratio_in_any_order_of_labels(calibration, id2label):
    model = make_detector(id2label=id2label)
    raw = ratios_of(model)
    model.config.calibration = calibration
    assert torch.equal(ratios_of(model, raw_logits=True), raw)
    expected = Calibration.from_dict(calibration)(raw.double().numpy())
    np.testing.assert_allclose(ratios_of(model).numpy(), expected, atol=1e-5)
    with torch.no_grad():
        logits = model(CLIPS).logits
    if len(id2label) == 2:
        assert torch.equal(logits[:, 0], -logits[:, 1])


@pytest.mark.parametrize("loss", ["am_softmax", "oc_softmax"])
def test_losses_with_margins(loss):
    model = make_detector(loss=loss)
    raw = ratios_of(model)
    model.config.calibration = AFFINE
    assert torch.allclose(ratios_of(model), 3 * raw - 0.7, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"num_labels": 1}])
def test_loss_uses_the_raw_logits(options):
    model = make_detector(**options)
    before = model(CLIPS, labels=LABELS).loss
    model.config.calibration = AFFINE
    assert model(CLIPS, labels=LABELS).loss == before


def test_half_precision_does_not_round_the_ratio():
    model = make_detector()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        raw = model(CLIPS).logits.float()
        model.config.calibration = AFFINE
        logits = model(CLIPS).logits
    assert logits.dtype == torch.float32
    assert torch.allclose(logits[:, 1] - logits[:, 0], 3 * (raw[:, 1] - raw[:, 0]) - 0.7, atol=1e-6)


def test_an_uncalibrated_configuration_is_as_before(tmp_path):
    make_config().save_pretrained(tmp_path)
    assert "calibration" not in json.loads((tmp_path / "config.json").read_text())


@CALIBRATIONS
def test_is_saved_and_honored_by_transformers(calibration, tmp_path):
    model = make_detector(n_samples=3200)
    model.config.calibration = calibration
    model.save_pretrained(tmp_path)
    loaded = AutoModelForAudioClassification.from_pretrained(tmp_path)
    assert torch.equal(ratios_of(loaded), ratios_of(model))
    (clip,) = CLIPS[:1].numpy()
    found = {one["label"]: one["score"] for one in pipeline("audio-classification", model=str(tmp_path))(clip)}
    assert found["bonafide"] == pytest.approx(1 / (1 + math.exp(-ratios_of(model)[0])), abs=1e-6)


@pytest.mark.parametrize(
    "calibration",
    [
        {},
        "affine",
        {"method": "affine", "slope": 1.0},
        {**AFFINE, "slope": -1.0},
        {**AFFINE, "slope": "3"},
        {**AFFINE, "offset": math.nan},
        {**PAV, "knots": [[0.0, 0.0]]},
        {**PAV, "knots": [[0.0, 0.0], [0.0, 1.0]]},
        {**PAV, "knots": [[0.0, 1.0], [1.0, 0.0]]},
        {**PAV, "knots": [[0.0, 1.0], None]},
        {**PAV, "method": "platt"},
    ],
)
def test_damaged_calibrations_are_refused(calibration):
    with pytest.raises(ValueError, match="calibration in the model's configuration is damaged"):
        SpoofDetectorConfig(calibration=calibration)


def test_outputs_need_names():
    model = make_detector(id2label={0: "fake", 1: "real"})
    model.config.calibration = AFFINE
    with pytest.raises(ValueError, match="outputs named spoof and bonafide, not fake, real"):
        model(CLIPS)


def test_reordering_the_labels_keeps_the_calibration():
    model = make_detector(id2label={0: "bonafide", 1: "spoof"}, n_samples=3200)
    model.config.calibration = AFFINE
    before = ratios_of(model)
    order = output_labels(model.config.id2label)
    assert put_in_order(model, model.make_feature_extractor(), order) == "head.classifier"
    assert model.config.calibration == AFFINE
    assert torch.allclose(ratios_of(model), before, atol=1e-6)


def test_model_loaded_for_training_has_no_calibration(tmp_path, caplog):
    model = make_detector(n_samples=3200)
    model.config.calibration = AFFINE
    model.save_pretrained(tmp_path / "calibrated")
    loaded, _ = load_audio_classifier(str(tmp_path / "calibrated"))
    assert caplog.text.count("the trained model has no calibration") == 1
    loaded.save_pretrained(tmp_path / "again")
    assert "calibration" not in json.loads((tmp_path / "again" / "config.json").read_text())
    assert torch.equal(ratios_of(loaded), ratios_of(model, raw_logits=True))


def test_any_training_drops_the_calibration(tmp_path, caplog):
    model = make_detector()
    model.config.calibration = AFFINE
    arguments = TrainingArguments(
        str(tmp_path), max_steps=2, per_device_train_batch_size=2, report_to="none", use_cpu=True
    )
    clips = [{"input_values": clip, "labels": label} for clip, label in zip(CLIPS, LABELS, strict=True)]
    Trainer(model, arguments, train_dataset=clips).train()
    assert caplog.text.count("the trained model has no calibration") == 1
    model.save_pretrained(tmp_path / "trained")
    assert "calibration" not in json.loads((tmp_path / "trained" / "config.json").read_text())


@pytest.mark.parametrize("labels", [None, LABELS])
def test_an_evaluation_keeps_the_calibration(labels):
    model = make_detector()
    model.config.calibration = AFFINE
    model.eval()(CLIPS, labels=labels)
    with torch.no_grad():
        model.train()(CLIPS, labels=labels)
    assert model.config.calibration == AFFINE


def test_other_models_keep_an_attribute_of_that_name():
    config = make_classifier().config
    config.calibration = "of something else"
    drop_calibration(config)
    assert config.calibration == "of something else"
