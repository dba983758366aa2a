import contextlib
import copy
import logging

import numpy as np
import pytest
import torch
from noise_clips import RATE, WINDOW, draw_clip, encode
from tiny_detectors import make_detector
from transformers import Wav2Vec2FeatureExtractor

from hf_gradalign.data import BadAudioError, repeat_pad
from hf_gradalign.models import SpoofDetectorFeatureExtractor
from hf_gradalign.scoring import SpoofScorer
from hf_gradalign.scoring.model_loading import resolve_dtype

LENGTHS = [WINDOW, 1000, 5000, 3201, 40]
CLIPS = [draw_clip(seed, length) for seed, length in enumerate(LENGTHS)]


def by_hand(detector, clips):
    """Bona fide logit minus spoof logit, for each clip by itself."""
    with torch.inference_mode():
        inputs = [torch.from_numpy(clip)[None].to(detector.device) for clip in clips]
        logits = torch.cat([detector(each).logits for each in inputs]).double().cpu().numpy()
    return logits[:, 1] - logits[:, 0]


@pytest.fixture
def scorer(detector, extractor):
    return SpoofScorer(detector, extractor, batch_size=2)


def test_scores_use_the_leading_window(scorer, detector):
    expected = by_hand(detector, [repeat_pad(clip[:WINDOW], WINDOW) for clip in CLIPS])
    scores = scorer.score(CLIPS)
    assert scores.shape == (5,)
    assert scores.dtype == np.float64
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    assert np.ptp(scores) > 1e-3


def test_every_form_of_a_clip_gets_the_same_score(scorer, tmp_path):
    clip = CLIPS[2]
    path = tmp_path / "clip.wav"
    path.write_bytes(encode(clip))
    forms = [
        path,
        str(path),
        path.read_bytes(),
        {"bytes": path.read_bytes(), "path": None},
        {"path": str(path)},
        {"array": clip, "sampling_rate": RATE},
        np.stack([clip, clip]),
        np.stack([clip, clip], axis=1),
        torch.from_numpy(clip),
        clip.tolist(),
    ]
    np.testing.assert_allclose(scorer.score(forms), scorer.score(clip)[0], atol=1e-6)
    assert scorer.score(str(path)).shape == (1,)
    assert scorer.score([]).shape == (0,)


@pytest.mark.parametrize("make", [np.asarray, torch.from_numpy, np.ndarray.tolist])
def test_an_array_of_several_channels_is_one_clip(scorer, make):
    clip = CLIPS[2]
    expected = scorer.score(clip)
    channels_last = np.stack([clip, clip], axis=1)
    np.testing.assert_allclose(scorer.score(make(channels_last)), expected, atol=1e-6)
    if make is not np.ndarray.tolist:  # a list of two long lists is two clips
        np.testing.assert_allclose(scorer.score(make(channels_last.T.copy())), expected, atol=1e-6)
    with pytest.raises(BadAudioError, match=r"an array of shape \(5, 6, 7\) is not a clip"):
        scorer.score(np.zeros((5, 6, 7)))


def test_lists_of_clips_and_of_numbers(scorer):
    clip = CLIPS[2]
    expected = scorer.score(clip)[0]
    np.testing.assert_allclose(scorer.score(clip.tolist()), [expected], atol=1e-6)
    several = ([clip, clip], (clip, clip.tolist()), iter([clip, clip]), np.array([encode(clip)] * 2, object))
    for clips in several:
        np.testing.assert_allclose(scorer.score(clips), [expected] * 2, atol=1e-6)
    np.testing.assert_allclose(scorer.score((clip * 2**15).astype(np.int16)), [expected], atol=1e-3)
    np.testing.assert_allclose(scorer.score(bytearray(encode(clip))), [expected], atol=1e-6)


@pytest.mark.parametrize("pair", [(CLIPS[2], RATE), (RATE, CLIPS[2])])
def test_a_rate_among_the_clips_is_refused(scorer, pair):
    with pytest.raises(ValueError, match=r"clip \d is the number 16000. Pass a waveform's rate as sampling_rate=..."):
        scorer.score(pair)


def test_samples_outside_the_range_are_reported(scorer, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("hf_gradalign"), "propagate", True)
    scorer.score([CLIPS[0], encode(CLIPS[1])])
    assert "outside" not in caplog.text
    scorer.score([CLIPS[0], {"path": "a.wav", "bytes": encode(CLIPS[2] * 2**15)}, CLIPS[1] * 20])
    peak = np.abs(CLIPS[2] * 2**15).max()
    assert (
        f"2 of 3 clips have samples outside [-1, 1]: up to {peak:.6g}, in a.wav. They look like 16-bit" in caplog.text
    )


def test_other_rates_are_resampled(detector, extractor):
    whole = SpoofScorer(detector, extractor, windows="whole")
    time = np.arange(RATE) / RATE
    tone = np.sin(2 * np.pi * 440 * time).astype(np.float32)
    at_8k = np.ascontiguousarray(tone[::2])
    assert abs(whole.score([at_8k], sampling_rate=8000)[0] - whole.score([tone])[0]) < 1e-3
    assert abs(whole.score([at_8k])[0] - whole.score([tone])[0]) > 1e-3


@pytest.mark.parametrize("rate", [8000.0, np.int64(8000), np.float32(8000)])
def test_whole_numbers_of_any_type_are_rates(scorer, rate):
    expected = scorer.score(CLIPS[2], 8000)
    assert scorer.score(CLIPS[2], rate) == expected
    assert scorer.score({"array": CLIPS[2], "sampling_rate": rate}) == expected
    assert scorer.score([{"array": CLIPS[2]}], rate) == expected
    assert scorer.timeline(CLIPS[2], rate).scores[0] == pytest.approx(expected[0], abs=1e-6)


@pytest.mark.parametrize("rate", [0, -8000, 8000.5, float("nan"), float("inf"), True, "8000", [8000], (8000,)])
def test_invalid_rates(scorer, rate):
    for arguments in ((CLIPS[2], rate), ({"array": CLIPS[2], "sampling_rate": rate},), ("a.wav", rate)):
        for score in (scorer.score, scorer.predict, scorer.timeline):
            with pytest.raises(ValueError, match="sampling_rate must be a positive whole number, in Hz, such as 16000"):
                score(*arguments)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
@pytest.mark.parametrize("windows", ["first", "all", "whole"])
def test_scores_depend_on_neither_batch_nor_loader_workers(detector, extractor, windows, batch_size):
    reference = SpoofScorer(detector, extractor, windows=windows, batch_size=2).score(CLIPS)
    scorer = SpoofScorer(detector, extractor, windows=windows, batch_size=batch_size)
    np.testing.assert_allclose(scorer.score(CLIPS), reference, atol=1e-5)


def test_loader_workers(detector, extractor):
    scores = SpoofScorer(detector, extractor, batch_size=2, num_workers=2).score(CLIPS)
    np.testing.assert_array_equal(scores, SpoofScorer(detector, extractor, batch_size=2).score(CLIPS))


def test_all_windows(detector, extractor):
    clip = draw_clip(9, 2 * WINDOW + 500)
    windows = [clip[:WINDOW], clip[WINDOW : 2 * WINDOW], clip[-WINDOW:]]
    alone = by_hand(detector, windows)
    for combine, expected in [("mean", alone.mean()), ("min", alone.min()), ("max", alone.max())]:
        scorer = SpoofScorer(detector, extractor, windows="all", combine=combine, batch_size=2)
        assert scorer.score([clip, CLIPS[0]])[0] == pytest.approx(expected, abs=1e-6)
    hop = SpoofScorer(detector, extractor, windows="all", hop_seconds=WINDOW / 2 / RATE)
    assert hop.score([clip])[0] == pytest.approx(
        by_hand(detector, [clip[s : s + WINDOW] for s in (0, 1600, 3200, 3700)]).mean(), abs=1e-6
    )


def test_whole_clips_share_padded_batches_only_if_harmless():
    group = make_detector(backbone={"feat_extract_norm": "group", "conv_bias": False})
    for model, sizes in [(make_detector(), [5]), (group, [2, 1, 1, 1])]:
        scorer = SpoofScorer(model, SpoofDetectorFeatureExtractor(n_samples=None), batch_size=8)
        assert scorer.windowing.mode == "whole"
        chunk = next(scorer.chunks([{"array": clip} for clip in CLIPS]).pieces(0))
        assert [len(batch["input_values"]) for batch in chunk.batches] == sizes
        as_heard = [repeat_pad(clip, 1600) if len(clip) < 1600 else clip for clip in CLIPS]
        np.testing.assert_allclose(scorer.score(CLIPS), by_hand(model, as_heard), atol=1e-5)


def test_level(detector, extractor):
    loud = [3 * clip for clip in CLIPS]
    assert not np.allclose(SpoofScorer(detector, extractor).score(loud), SpoofScorer(detector, extractor).score(CLIPS))
    leveled = SpoofScorer(detector, extractor, rms_level=0.1)
    np.testing.assert_allclose(leveled.score(loud), leveled.score(CLIPS), atol=1e-5)


def test_labels_are_found_by_name(detector, extractor):
    expected = SpoofScorer(detector, extractor).score(CLIPS)
    before = detector.config.id2label
    try:
        detector.config.id2label = {0: "real", 1: "fake"}
        np.testing.assert_allclose(SpoofScorer(detector, extractor).score(CLIPS), -expected)
        detector.config.id2label = {0: "LABEL_0", 1: "LABEL_1"}
        with pytest.raises(ValueError, match=r"0: LABEL_0, 1: LABEL_1.*--bonafide_label"):
            SpoofScorer(detector, extractor)
        named = SpoofScorer(detector, extractor, bonafide_label="LABEL_1")
        np.testing.assert_allclose(named.score(CLIPS), expected)
        with pytest.raises(ValueError, match="no label 'LABEL_2'"):
            SpoofScorer(detector, extractor, bonafide_label="LABEL_2")
    finally:
        detector.config.id2label = before


BAD = [
    b"",
    b"RIFF?",
    "/no/such.wav",
    np.array([0.0, np.nan]),
    np.zeros(0, np.float32),
    np.arange(9),
    np.zeros((2, 2, 2)),
]


def test_bad_audio_is_never_silently_scored(scorer, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("hf_gradalign"), "propagate", True)
    with pytest.raises(BadAudioError, match=r"7 of 8 clips cannot be scored") as caught:
        scorer.score([CLIPS[0], *BAD])
    assert len(caught.value.bad_clips) == 7
    assert caught.value.bad_clips[2].utterance_id == "/no/such.wav"
    scores = scorer.score([CLIPS[0], *BAD], on_bad_audio="nan")
    assert np.isnan(scores).tolist() == [False] + [True] * 7
    assert scores[0] == pytest.approx(scorer.score(CLIPS[:1])[0], abs=1e-6)


def test_a_score_that_is_not_finite_is_bad_audio(detector, extractor):
    model = make_detector()
    with torch.no_grad():
        model.config.id2label = detector.config.id2label
        next(iter(model.head.parameters())).fill_(float("nan"))
    with pytest.raises(BadAudioError, match="not finite"):
        SpoofScorer(model, extractor).score(CLIPS)


@pytest.mark.parametrize(("second", "dtype"), [(True, "bfloat16"), (False, "float32")])
def test_dtype_auto_asks_the_gpu_that_is_used(second, dtype, monkeypatch):
    """torch answers for the current one."""
    current = [0]

    @contextlib.contextmanager
    def make_current(device):
        current.append(device.index)
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "device", make_current)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: second == (current[-1] == 1))
    assert resolve_dtype("auto", torch.device("cuda:1")) == dtype


def test_half_precision(detector, extractor):
    reference = SpoofScorer(detector, extractor).score(CLIPS)
    half = SpoofScorer(detector, extractor, dtype="bfloat16")
    scores = half.score(CLIPS)
    assert 0 < np.abs(scores - reference).max() < 0.05
    assert SpoofScorer(detector, extractor, dtype="auto", device="cpu").dtype == "float32"
    with pytest.raises(ValueError, match="float16 needs an accelerator"):
        SpoofScorer(detector, extractor, dtype="float16", device="cpu")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dtype": "int8"}, "float32, bfloat16"),
        ({"batch_size": 0}, "batch_size"),
        ({"num_workers": -1}, "num_workers"),
        ({"window_seconds": 0.0}, "window_seconds must be at least 0.1, not 0.0"),
        ({"window_seconds": 0.001}, "window_seconds must be at least 0.1, not 0.001"),
        ({"window_seconds": float("nan")}, "window_seconds must be at least 0.1, not nan"),
        ({"windows": "all", "hop_seconds": -1.0}, "hop_seconds must be positive"),
        ({"hop_seconds": 1.0}, "apply only to windows 'all'.*not to 'first'"),
        ({"windows": "whole", "combine": "min"}, "apply only to windows 'all'.*not to 'whole'"),
        ({"windows": "whole", "window_seconds": 1.0}, "does not apply to windows 'whole'"),
        ({"rms_level": 0}, "rms_level must be above 0"),
        ({"rms_level": float("nan")}, "rms_level must be above 0"),
        ({"device": "banana"}, "cannot compute on the device 'banana': Expected one of cpu"),
        ({"windows": "last"}, "first, all, whole"),
    ],
)
def test_refusals(detector, extractor, arguments, message):
    with pytest.raises(ValueError, match=message):
        SpoofScorer(detector, extractor, **arguments)


def test_a_model_of_another_type_is_refused(detector, extractor):
    for kind, message in (
        (torch.bfloat16, r"bfloat16: pass model\.float\(\), or dtype='bf.*"),
        (torch.float64, "float64: .*"),
    ):
        with pytest.raises(ValueError, match=rf"the model has weights in {message}"):
            SpoofScorer(copy.deepcopy(detector).to(kind), extractor)
    SpoofScorer(copy.deepcopy(detector).bfloat16(), extractor, dtype="bfloat16").score(CLIPS[:1])
    with pytest.raises(ValueError, match="a DataParallel has no config: pass the transformers model that it contains"):
        SpoofScorer(torch.nn.DataParallel(detector), extractor)


def test_model_object_needs_its_extractor(detector):
    with pytest.raises(ValueError, match="feature_extractor"):
        SpoofScorer(detector)


def test_window_of_other_peoples_models(detector):
    plain = Wav2Vec2FeatureExtractor(sampling_rate=16_000)
    assert SpoofScorer(detector, plain).windowing.n_samples == 66_800
    assert SpoofScorer(detector, plain, window_seconds=1.5).windowing.n_samples == 24_000
    plain.n_scored_samples = 32_000
    assert SpoofScorer(detector, plain).windowing.n_samples == 32_000
