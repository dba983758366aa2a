"""A model that is trained further is no longer calibrated."""

import json
import logging

import numpy as np
import pytest
import torch
from noise_clips import WINDOW, draw_clip
from tiny_detectors import make_classifier, make_detector, noise_trainer

from hf_gradalign.models import small_feature_extractor
from hf_gradalign.models.lora import add_lora
from hf_gradalign.models.stored_calibration import fold_calibration
from hf_gradalign.scoring import SpoofScorer

CALIBRATION = {"method": "affine", "prior": 0.5, "slope": 3.0, "offset": -0.7}
CLIPS = [draw_clip(seed, WINDOW) for seed in range(2)]


def make_calibrated(kind):
    if kind == "transformers":
        model = make_classifier()
        note = fold_calibration(model, small_feature_extractor(), ("spoof", "bonafide"), 3.0, -0.7)
        model.config.calibration = {**CALIBRATION, **note}
        return model, small_feature_extractor()
    model = make_detector(n_samples=WINDOW)
    model.config.calibration = dict(CALIBRATION)
    return model, model.make_feature_extractor()


def configs(folder):
    return [json.loads(path.read_text()) for path in folder.rglob("config.json")]


@pytest.mark.parametrize("kind", ["detector", "transformers"])
def test_checkpoints_and_model_are_not_calibrated(kind, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("hf_gradalign"), "propagate", True)
    model, extractor = make_calibrated(kind)
    trainer = noise_trainer(
        model, tmp_path, processing_class=extractor, max_steps=1, save_strategy="steps", save_steps=1
    )
    trainer.train()
    trainer.save_model(tmp_path / "final")
    assert caplog.text.count("the trained model has no calibration") == 1
    assert len(configs(tmp_path)) == 2
    assert not any("calibration" in config for config in configs(tmp_path))
    assert SpoofScorer(tmp_path / "final").calibration is None


@pytest.mark.parametrize("merges", [True, False])
def test_adapters(merges, tmp_path):
    pytest.importorskip("peft")
    model, extractor = make_calibrated("detector")
    model.save_pretrained(tmp_path / "base")
    model.name_or_path = model.config.name_or_path = str(tmp_path / "base")
    adapted = add_lora(model, extractor, 2)
    trainer = noise_trainer(
        adapted, tmp_path / "run", processing_class=extractor, max_steps=1, merge_adapters=merges, save_strategy="no"
    )
    trainer.train()
    trainer.save_model(tmp_path / "final")
    assert not any("calibration" in config for config in configs(tmp_path / "final"))
    assert SpoofScorer(tmp_path / "final").calibration is None


def test_adapters_without_their_own_configuration(tmp_path, caplog, monkeypatch):
    """As PEFT saves them. The base model is calibrated, and its scores with adapters are others."""
    peft = pytest.importorskip("peft")
    monkeypatch.setattr(logging.getLogger("hf_gradalign"), "propagate", True)
    model, _ = make_calibrated("detector")
    model.save_pretrained(tmp_path / "base")
    model.name_or_path = model.config.name_or_path = str(tmp_path / "base")
    torch.manual_seed(0)
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapter")
    scorer = SpoofScorer(tmp_path / "adapter")
    assert scorer.calibration is None
    assert "has no calibration" in caplog.text
    # The adapted model in memory still has the calibration of its base, and says so.
    in_memory = SpoofScorer(adapted, scorer.feature_extractor)
    assert in_memory.calibration is not None
    np.testing.assert_allclose(in_memory.score(CLIPS), 3 * scorer.score(CLIPS) - 0.7, atol=1e-5)
