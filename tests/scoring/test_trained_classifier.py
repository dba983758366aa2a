import os

import numpy as np
import pytest
import torch
from noise_clips import draw_clip
from tiny_detectors import TINY
from transformers import AutoConfig, Wav2Vec2FeatureExtractor, Wav2Vec2ForSequenceClassification, Wav2Vec2Model

from hf_gradalign.scoring import SpoofScorer
from hf_gradalign.scoring.model_loading import default_worker_count

CLIP = draw_clip(0, 8000)


def test_a_detectors_folder(detector_folder, detector, extractor):
    scorer = SpoofScorer(detector_folder)
    assert scorer.windowing.n_samples == 3200
    np.testing.assert_allclose(scorer.score([CLIP]), SpoofScorer(detector, extractor).score([CLIP]), atol=1e-6)


def test_a_stock_classifiers_folder(tmp_path):
    config = AutoConfig.for_model("wav2vec2", **TINY, classifier_proj_size=8)
    config.id2label = {0: "fake", 1: "real"}
    Wav2Vec2ForSequenceClassification(config).save_pretrained(tmp_path)
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path)
    assert np.isfinite(SpoofScorer(str(tmp_path)).score([CLIP])).all()


def test_an_encoder_that_was_never_trained_to_classify_is_refused(tmp_path):
    Wav2Vec2Model(AutoConfig.for_model("wav2vec2", **TINY)).save_pretrained(tmp_path)
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"lacks \d+ weights .*random weights mean nothing"):
        SpoofScorer(tmp_path)


def test_no_such_model(tmp_path):
    with pytest.raises(OSError, match=r"cannot load the model .*nowhere \(there is no folder /.*nowhere\)"):
        SpoofScorer(tmp_path / "nowhere")
    with pytest.raises(OSError, match=rf"^{tmp_path} is not a model's folder: it has no config\.json"):
        SpoofScorer(tmp_path)


@pytest.mark.parametrize(
    ("cores", "processes", "device", "workers"),
    [(2, 1, "cpu", 2), (1, 1, "cpu", 1), (64, 1, "cpu", 2), (16, 1, "cuda", 12), (8, 1, "cuda", 7), (8, 4, "cuda", 1),
     (1, 1, "cuda", 1), (8, 1, "mps", 2)],
)  # fmt: skip
def test_loader_workers_suit_the_machine(monkeypatch, cores, processes, device, workers):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)), raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert default_worker_count(torch.device(device)) == workers
