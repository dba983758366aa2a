import io

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from tiny_detectors import OWN_EXTRACTORS, make_detector
from transformers import (
    ASTFeatureExtractor,
    SeamlessM4TFeatureExtractor,
    Wav2Vec2FeatureExtractor,
    WhisperFeatureExtractor,
)

from hf_gradalign.audio import AudioDecodingError
from hf_gradalign.models import SpoofDetectorFeatureExtractor
from hf_gradalign.scoring import SpoofScorer, Windowing
from hf_gradalign.scoring.windowing import ClipWindows, choose_windowing


@given(st.integers(1, 60), st.integers(1, 20), st.one_of(st.none(), st.integers(1, 25)))
def test_windows_cover_the_clip_from_start_to_end(total, length, hop):
    clip = np.arange(total, dtype=np.float32)
    windows = Windowing(length, "all", hop).cut(clip)
    assert {len(window) for window in windows} == {length}
    starts = [int(window[0]) for window in windows]
    assert starts == sorted(set(starts))
    assert starts[0] == 0
    assert windows[-1][-1] == clip[-1] or total < length
    if hop is None or hop <= length:
        assert {float(x) for window in windows for x in window} == set(clip.tolist())
    if len(starts) > 2:
        assert set(np.diff(starts)[:-1]) == {hop or length}


@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=8), st.integers(1, 20), st.one_of(st.none(), st.integers(1, 50))
)
def test_windows_of_blocks_match_the_clips(blocks, length, hop):
    clip = np.arange(sum(blocks), dtype=np.float32)
    windowing = Windowing(length, "all", hop)
    windows = list(windowing.cut_blocks(np.split(clip, np.cumsum(blocks)[:-1])))
    np.testing.assert_array_equal(windows, windowing.cut(clip))


def test_first_window_is_the_leading_one_repeated_where_the_clip_is_shorter():
    windowing = Windowing(4)
    assert [w.tolist() for w in windowing.cut(np.arange(9.0))] == [[0, 1, 2, 3]]
    assert [w.tolist() for w in windowing.cut(np.arange(3.0))] == [[0, 1, 2, 0]]


def test_whole_is_the_clip():
    clip = np.arange(9.0)
    assert Windowing(4, "whole").cut(clip)[0] is clip


@pytest.mark.parametrize(("combine", "score"), [("mean", 2.0), ("median", 1.0), ("min", 0.0), ("max", 5.0)])
def test_combination(combine, score):
    assert Windowing(4, "all", combine=combine).combined(np.array([1.0, 0.0, 5.0])) == score


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_samples": 0}, "at least one sample"),
        ({"n_samples": 4, "mode": "last"}, "first, all, whole"),
        ({"n_samples": 4, "hop_samples": 0}, "hop"),
        ({"n_samples": 4, "combine": "sum"}, "mean, median"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        Windowing(**arguments)


@pytest.mark.parametrize(
    ("extractor", "limit"),
    [
        (ASTFeatureExtractor(max_length=250), 40_240),  # 250 frames of 400 samples, every 160
        pytest.param(ASTFeatureExtractor(), 164_080, marks=pytest.mark.slow),
        pytest.param(WhisperFeatureExtractor(), 480_000, marks=pytest.mark.slow),
        (WhisperFeatureExtractor(chunk_length=5), 80_000),
        (SpoofDetectorFeatureExtractor(encoder_extractor=OWN_EXTRACTORS["whisper"].to_dict()), 480_000),
        (SpoofDetectorFeatureExtractor(), None),
        (Wav2Vec2FeatureExtractor(), None),
        (SeamlessM4TFeatureExtractor(), None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_windows_fit_the_extractor(extractor, limit):
    whole = choose_windowing(extractor, "whole").max_samples
    assert choose_windowing(extractor, "first", 2.0).n_samples == 32_000
    if limit is None:
        assert whole is None
        return
    assert whole == pytest.approx(limit, abs=160)
    with pytest.raises(ValueError, match=r"the model accepts at most .* would cut windows of 40 s: use shorter ones"):
        choose_windowing(extractor, "all", 40.0)
    assert choose_windowing(extractor, "all", limit / 16_000).n_samples == limit


def test_default_window_is_the_extractors():
    assert choose_windowing(ASTFeatureExtractor(max_length=100)).n_samples == pytest.approx(16_240, abs=160)
    assert choose_windowing(ASTFeatureExtractor()).n_samples == 66_800


def test_whole_clips_that_the_extractor_would_cut_are_not_scored():
    extractor = WhisperFeatureExtractor(chunk_length=1, feature_size=20)
    windowing = choose_windowing(extractor, "whole")
    for clip in ({"array": np.ones(32_000, np.float32), "sampling_rate": 16_000}, encoded(np.ones(32_000, np.float32))):
        with pytest.raises(AudioDecodingError, match=r"longer than the 1 s that the model accepts: use windows 'all'"):
            list(ClipWindows(clip, 16_000, windowing))
        clip = {"array": np.ones(16_000, np.float32), "sampling_rate": 16_000}
        assert [len(window) for window in ClipWindows(clip, 16_000, windowing)] == [16_000]


def encoded(samples):
    file = io.BytesIO()
    soundfile.write(file, samples, 16_000, format="WAV")
    return file.getvalue()


def test_whole_clips_share_batches_of_a_detector_on_raw_waveforms():
    detector = make_detector("sinc", n_samples=None)
    scorer = SpoofScorer(detector, detector.make_feature_extractor(), batch_size=3)
    clips = [np.random.default_rng(n).normal(0, 0.1, n).astype(np.float32) for n in (4000, 2500, 3100)]
    batches = []
    detector.register_forward_pre_hook(lambda *_: batches.append(1))
    together = scorer.score(clips)
    assert len(batches) == 1
    alone = [scorer.score([clip])[0] for clip in clips]
    np.testing.assert_allclose(together, alone, atol=1e-5)
