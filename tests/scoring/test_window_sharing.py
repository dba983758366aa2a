"""What overlapping windows share changes scores only where the documentation says so."""

import logging
from concurrent.futures import ThreadPoolExecutor
from threading import Event, current_thread, main_thread

import numpy as np
import pytest
import torch
from noise_clips import RATE, WINDOW, draw_clip
from tiny_detectors import FAMILIES, SMALL, make_classifier, make_detector
from torch import nn
from transformers import Wav2Vec2FeatureExtractor

from hf_gradalign.models import SpoofDetectorFeatureExtractor
from hf_gradalign.scoring import SpoofScorer, Timeline, window_sharing
from hf_gradalign.scoring.window_sharing import SeparateWindows, _divert_forward, window_scoring

CLIP = draw_clip(3, 4 * WINDOW + 123)
HOP = 0.05  # ten frames of the tiny encoders
BARE = SpoofDetectorFeatureExtractor(n_samples=WINDOW)
NORMALIZED = Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=False)


@pytest.fixture
def separate(monkeypatch):
    """The timeline of separate windows."""

    def timeline(scorer, **options):
        with monkeypatch.context() as patch:
            patch.setattr("hf_gradalign.scoring.timeline.window_scoring", lambda *args: SeparateWindows(*args[:2]))
            return scorer.timeline(CLIP, **options)

    return timeline


def check_same(scorer, separate, **options):
    shared = scorer.timeline(CLIP, **options)
    assert shared.shared == "convolutions"
    expected = separate(scorer, **options)
    assert expected.shared == "nothing"
    np.testing.assert_array_equal(shared.starts, expected.starts)
    # Convolutions of other sizes are summed in another order, and a GPU has more of them to choose from.
    atol = 1e-5 if torch.accelerator.is_available() else 2e-6
    np.testing.assert_allclose(shared.scores, expected.scores, atol=atol)
    assert np.ptp(expected.scores) > 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_shared_convolutions_give_the_same_scores(family, separate):
    check_same(SpoofScorer(make_detector(family), BARE, batch_size=4), separate, hop_seconds=HOP)


@pytest.mark.parametrize("head", SMALL)
def test_every_head_takes_shared_convolutions(head, separate):
    check_same(SpoofScorer(make_detector(head=head), BARE, batch_size=4), separate, hop_seconds=HOP)


def test_filters_of_the_waveform_are_shared_at_any_hop(separate):
    check_same(SpoofScorer(make_detector("sinc"), BARE, batch_size=4), separate, hop_seconds=0.0123)


def test_layer_merging_and_a_classifier_of_transformers(separate):
    check_same(SpoofScorer(make_detector(layer_merging="sea"), BARE, batch_size=4), separate, hop_seconds=HOP)
    bare = Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True)
    for model in (make_classifier(), make_classifier("hubert", use_weighted_layer_sum=True)):
        scorer = SpoofScorer(model, bare, batch_size=4, window_seconds=WINDOW / RATE)
        check_same(scorer, separate, hop_seconds=HOP)


@pytest.mark.parametrize("hop_samples", [840, 336])
def test_hops_between_frames(separate, hop_samples):
    scorer = SpoofScorer(make_detector(), BARE, batch_size=4)
    check_same(scorer, separate, hop_seconds=hop_samples / RATE)


def shared_by(model, extractor=BARE, hop=800, **options):
    scorer = SpoofScorer(model, extractor, batch_size=4, window_seconds=WINDOW / RATE)
    return window_scoring(scorer, WINDOW, hop, **options).shared


def test_which_parts_are_shared(monkeypatch):
    detector = make_detector()
    assert shared_by(detector) == "convolutions"
    assert shared_by(detector, hop=801) == "nothing"  # 80 phases cost more than they save
    assert shared_by(detector, hop=WINDOW) == "nothing"
    assert shared_by(detector, NORMALIZED) == "nothing"
    assert shared_by(detector, NORMALIZED, share_encoder=True) == "encoder"
    group = make_detector(backbone={"feat_extract_norm": "group", "conv_bias": False})
    assert shared_by(group) == "nothing"
    assert shared_by(group, share_encoder=True) == "encoder"
    adapter = make_detector(backbone={"add_adapter": True, "output_hidden_size": 32})
    assert shared_by(adapter, share_encoder=True) == "nothing"
    assert shared_by(make_detector("sinc"), share_encoder=True) == "convolutions"


def test_convolutions_run_once(monkeypatch):
    model = make_detector()
    sizes = []
    model.backbone.feature_extractor.conv_layers[0].register_forward_hook(lambda *args: sizes.append(args[1][0].shape))
    SpoofScorer(model, BARE, batch_size=4).timeline(CLIP, hop_seconds=HOP)
    assert [tuple(size) for size in sizes] == [(1, 1, 4 * WINDOW), (1, 1, WINDOW)]  # on the grid, and the last window


def test_shared_encoder_sees_the_surroundings_of_a_window(separate):
    scorer = SpoofScorer(make_detector(), BARE, batch_size=4)
    shared = scorer.timeline(CLIP, hop_seconds=HOP, share_encoder=True)
    expected = separate(scorer, hop_seconds=HOP)
    assert shared.shared == "encoder"
    np.testing.assert_array_equal(shared.starts, expected.starts)
    assert 1e-5 < np.abs(shared.scores - expected.scores).max() < 1
    # Without anything around it, a window gets its own score.
    alone = scorer.timeline(CLIP[:WINDOW], hop_seconds=HOP, share_encoder=True)
    np.testing.assert_allclose(alone.scores, scorer.score(CLIP[:WINDOW]), atol=2e-6)


def test_a_shared_encoder_gets_limited_batches(monkeypatch):
    monkeypatch.setattr(window_sharing, "_STRETCH_SECONDS", 0.4)
    monkeypatch.setattr(window_sharing, "_CONTEXT_SECONDS", 0.05)
    model = make_detector()
    lengths = []
    model.backbone.feature_extractor.register_forward_pre_hook(lambda part, args: lengths.append(args[0].shape[1]))
    scorer = SpoofScorer(model, BARE, batch_size=4)
    timeline = scorer.timeline(np.tile(CLIP, 3), hop_seconds=HOP, share_encoder=True)
    assert lengths[:2] == [7 * 800 + WINDOW + 800, 7 * 800 + WINDOW + 1600]
    assert max(lengths) == lengths[1]
    assert len(timeline) == len(scorer.timeline(np.tile(CLIP, 3), hop_seconds=HOP))


@pytest.mark.parametrize("share_encoder", [False, True])
def test_other_threads_can_use_the_model(share_encoder):
    model = make_detector()
    scorer = SpoofScorer(model, BARE, batch_size=4)
    options = {"hop_seconds": HOP, "share_encoder": share_encoder}
    alone, timeline = scorer.score(CLIP), scorer.timeline(CLIP, **options)
    results = []

    def meanwhile(head, inputs):
        if current_thread() is main_thread() and not results:
            with ThreadPoolExecutor() as pool:
                futures = [pool.submit(scorer.score, CLIP), pool.submit(scorer.timeline, CLIP, **options)]
            results.extend(future.result() for future in futures)

    hook = model.head.register_forward_pre_hook(meanwhile)
    np.testing.assert_array_equal(scorer.timeline(CLIP, **options).scores, timeline.scores)
    hook.remove()
    np.testing.assert_array_equal(results[0], alone)
    np.testing.assert_array_equal(results[1].scores, timeline.scores)
    for part in (model.backbone, model.backbone.feature_extractor):
        assert "forward" not in vars(part)


def test_a_part_that_another_thread_diverts():
    inner = nn.Linear(1, 1)
    outer = nn.Sequential(inner)
    x = torch.ones(1, 1)
    expected = outer(x) + 1
    begun, done = Event(), Event()

    def divert_inner():
        with _divert_forward(inner, lambda own, x: own(x) * 0):
            begun.set()
            done.wait()

    with ThreadPoolExecutor() as pool, _divert_forward(outer, lambda own, x: own(x) + 1):
        pool.submit(divert_inner)
        begun.wait()
        found = outer(x)
        done.set()
    torch.testing.assert_close(found, expected)
    assert "forward" not in {**vars(inner), **vars(outer)}


def test_the_models_forward_is_put_back_after_an_error(monkeypatch):
    model = make_detector()
    scorer = SpoofScorer(model, BARE, batch_size=4)
    monkeypatch.setattr(model.head, "forward", lambda *args: 1 / 0)
    own = model.backbone.feature_extractor.forward
    for hooked in (False, True):  # as Accelerate does
        if hooked:
            monkeypatch.setattr(model.backbone.feature_extractor, "forward", own)
        with pytest.raises(ZeroDivisionError):
            scorer.timeline(CLIP, hop_seconds=HOP)
        assert ("forward" in vars(model.backbone.feature_extractor)) is hooked


def test_shared_layers_of_all_heads():
    for head in ("mhfa", "sls"):  # they take the frames of all layers
        scorer = SpoofScorer(make_detector(head=head), BARE, batch_size=4)
        shared = scorer.timeline(CLIP, hop_seconds=HOP, share_encoder=True)
        assert shared.shared == "encoder"
        assert np.isfinite(shared.scores).all()


AFFINE = {"method": "affine", "prior": 0.5, "slope": 3.0, "offset": -0.7}
PAV = {"method": "pav", "prior": 0.5, "knots": [[-0.2, -2.0], [0.0, -2.0], [0.4, 3.0]]}


@pytest.mark.parametrize("share_encoder", [False, True])
@pytest.mark.parametrize("calibration", [AFFINE, PAV], ids=["affine", "pav"])
def test_calibrated_scores_of_shared_frames(calibration, share_encoder):
    model = make_detector()
    raw = SpoofScorer(model, BARE, batch_size=4).timeline(CLIP, hop_seconds=HOP, share_encoder=share_encoder)
    assert not raw.is_calibrated
    model.config.calibration = calibration
    scorer = SpoofScorer(model, BARE, batch_size=4)
    timeline = scorer.timeline(CLIP, hop_seconds=HOP, share_encoder=share_encoder)
    assert timeline.is_calibrated
    assert timeline.shared == raw.shared != "nothing"
    np.testing.assert_allclose(timeline.scores, scorer.calibration(raw.scores), atol=1e-5)
    with_raw = SpoofScorer(model, BARE, batch_size=4, raw_scores=True)
    again = with_raw.timeline(CLIP, hop_seconds=HOP, share_encoder=share_encoder)
    assert not again.is_calibrated
    np.testing.assert_allclose(again.scores, raw.scores, atol=1e-6)


def test_segments_of_calibrated_scores_use_the_threshold_of_verdicts():
    starts = np.arange(4.0)
    scores = np.array([1.0, -0.5, -0.7, -3.0])
    for is_calibrated, edge in [(True, 2), (False, 1)]:
        timeline = Timeline(starts, starts + 1, scores, 4.0, is_calibrated)
        assert timeline.segments()[0].end == edge
    assert timeline.segments(-1)[0].end == 3


def test_other_windows_than_those_of_the_calibration(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("hf_gradalign"), "propagate", True)
    windowing = {"windows": "first", "window_samples": WINDOW, "hop_samples": None, "combine": None, "rms_level": None}
    model = make_detector()
    model.config.calibration = {**AFFINE, "windowing": windowing}
    scorer = SpoofScorer(model, BARE, batch_size=4)
    scorer.timeline(CLIP)
    assert "other windows" not in caplog.text
    scorer.timeline(CLIP, window_seconds=0.1, hop_seconds=0.1)
    assert (
        "fitted with other windows and may be wrong for these: window_samples was 3200 and is now 1600" in caplog.text
    )
