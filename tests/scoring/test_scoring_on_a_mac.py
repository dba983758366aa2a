"""Scores on a Mac: its GPU (MPS), of which these tests have a stand-in, and its way to start workers."""

import multiprocessing

import numpy as np
import pytest
import torch
from apple_gpu import APPLE, apple_gpu
from noise_clips import WINDOW, draw_clip
from tiny_detectors import make_detector

from hf_gradalign.models import SpoofDetectorFeatureExtractor
from hf_gradalign.scoring import SpoofScorer

CLIPS = [draw_clip(seed, length) for seed, length in enumerate([WINDOW, 1000, 3 * WINDOW, 3201])]


@pytest.mark.parametrize(
    "options", [{}, {"windows": "all"}, {"windows": "whole"}, {"raw_scores": True}, {"dtype": "auto"}], ids=str
)
def test_the_same_scores_as_on_the_cpu(monkeypatch, options):
    def scorer(device):
        model = make_detector()
        model.config.calibration = {"method": "pav", "prior": 0.5, "knots": [[-1.0, -2.0], [0.1, 0.0], [0.4, 3.0]]}
        extractor = SpoofDetectorFeatureExtractor(n_samples=WINDOW)
        return SpoofScorer(model, extractor, batch_size=2, device=device, **options)

    expected, timeline = scorer("cpu").score(CLIPS), scorer("cpu").timeline(CLIPS[2])
    with apple_gpu(monkeypatch):
        on_gpu = scorer(None)
        assert on_gpu.device == torch.device("mps")
        assert on_gpu.model.device == APPLE
        np.testing.assert_array_equal(on_gpu.score(CLIPS), expected)
        np.testing.assert_array_equal(on_gpu.timeline(CLIPS[2]).scores, timeline.scores)


@pytest.mark.slow
def test_workers_that_are_not_forked(detector, extractor):
    """As on macOS and Windows."""
    method = multiprocessing.get_start_method()
    multiprocessing.set_start_method("spawn", force=True)
    try:
        scores = SpoofScorer(detector, extractor, windows="all", num_workers=1).score(CLIPS)
    finally:
        multiprocessing.set_start_method(method, force=True)
    np.testing.assert_array_equal(scores, SpoofScorer(detector, extractor, windows="all").score(CLIPS))
