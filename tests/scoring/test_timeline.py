from itertools import pairwise

import numpy as np
import pytest
from noise_clips import RATE, WINDOW, draw_clip, encode

from hf_gradalign.audio import reading
from hf_gradalign.data import BadAudioError
from hf_gradalign.models import SpoofDetectorFeatureExtractor
from hf_gradalign.scoring import SpoofScorer, Timeline, windowing

CLIP = draw_clip(9, 3 * WINDOW + 500)


@pytest.fixture
def scorer(detector, extractor):
    return SpoofScorer(detector, extractor, batch_size=3)


def by_hand(scorer, clip, starts, length=WINDOW):
    return scorer.score([clip[start : start + length] for start in starts])


def test_a_score_for_every_window(scorer):
    timeline = scorer.timeline(CLIP, hop_seconds=0.1)
    starts = [0, 1600, 3200, 4800, 6400, 2 * WINDOW + 500]
    np.testing.assert_allclose(timeline.starts, np.array(starts) / RATE)
    np.testing.assert_allclose(timeline.ends, (np.array(starts) + WINDOW) / RATE)
    np.testing.assert_allclose(timeline.centers, (np.array(starts) + WINDOW / 2) / RATE)
    np.testing.assert_allclose(timeline.scores, by_hand(scorer, CLIP, starts), atol=1e-6)
    assert timeline.duration == timeline.ends[-1] == len(CLIP) / RATE
    assert not timeline.is_calibrated
    assert len(timeline) == 6


def test_windows_are_those_that_the_scorer_combines(detector, extractor):
    scorer = SpoofScorer(detector, extractor, windows="all", hop_seconds=0.07, combine="min")
    timeline = scorer.timeline(CLIP)
    assert timeline.starts[1] == 0.07
    assert timeline.scores.min() == pytest.approx(scorer.score(CLIP)[0], abs=1e-6)


@pytest.mark.parametrize("n_samples", [40, WINDOW - 1, WINDOW])
def test_a_recording_that_is_no_longer_than_a_window(scorer, n_samples):
    timeline = scorer.timeline(CLIP[:n_samples], hop_seconds=0.05)
    assert timeline.starts.tolist() == [0]
    assert timeline.ends.tolist() == [timeline.duration] == [n_samples / RATE]
    np.testing.assert_allclose(timeline.scores, scorer.score(CLIP[:n_samples]), atol=1e-6)


def test_default_windows_and_hop(detector, extractor, scorer):
    assert scorer.timeline(np.tile(CLIP, 3)).starts[1] == WINDOW / RATE  # half a second is longer than the window
    long = SpoofScorer(detector, SpoofDetectorFeatureExtractor(n_samples=2 * RATE))
    timeline = long.timeline(np.tile(CLIP, 8))
    assert timeline.starts[:3].tolist() == [0, 0.5, 1]
    assert timeline.ends[0] == 2
    assert long.timeline(np.tile(CLIP, 8), window_seconds=1.5).ends[0] == 1.5
    whole = SpoofScorer(detector, SpoofDetectorFeatureExtractor(n_samples=None))
    assert whole.timeline(np.tile(CLIP, 8), hop_seconds=0.3).ends[0] == 66_800 / RATE


def test_every_form_of_a_clip(scorer, tmp_path):
    (tmp_path / "clip.wav").write_bytes(encode(CLIP))
    expected = scorer.timeline(CLIP).scores
    for clip in (tmp_path / "clip.wav", encode(CLIP), CLIP.tolist(), [encode(CLIP)], np.stack([CLIP, CLIP])):
        np.testing.assert_allclose(scorer.timeline(clip).scores, expected, atol=1e-6)
    assert scorer.timeline(CLIP[::2], RATE // 2).duration == len(CLIP) / RATE


def test_progress_and_its_end(scorer):
    told = []
    scorer.timeline(CLIP, hop_seconds=0.02, progress=told.append)
    assert len(told) == 8  # 22 windows, three in a batch
    assert told == sorted(told)
    assert 0 < told[0] < told[-1] == 1

    def cancel(fraction):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scorer.timeline(CLIP, progress=cancel)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hop_seconds": 0}, "hop_seconds must be positive"),
        ({"hop_seconds": 0.21}, r"hop_seconds \(0.21 s\) exceeds the window \(0.2 s\)"),
        ({"window_seconds": 0.05}, "window_seconds must be at least 0.1"),
    ],
    ids=str,
)
def test_invalid_windows(scorer, options, message):
    with pytest.raises(ValueError, match=message):
        scorer.timeline(CLIP, **options)


def test_several_recordings_are_refused(scorer, tmp_path):
    with pytest.raises(ValueError, match="a timeline takes one recording, not 2 clips"):
        scorer.timeline([CLIP, CLIP])
    (tmp_path / "talk.wav").write_text("no audio")
    with pytest.raises(BadAudioError, match=r"the recording cannot be scored: .*talk\.wav") as caught:
        scorer.timeline(tmp_path / "talk.wav")
    assert len(caught.value.bad_clips) == 1


def test_a_score_that_is_not_finite_names_its_window(scorer, monkeypatch):
    scores = scorer.outputs.scores
    monkeypatch.setattr(scorer.outputs, "scores", lambda logits: scores(logits) + np.array([0, np.nan, 0]))
    with pytest.raises(BadAudioError, match=r"a score that is not finite for the window at 0.1 s"):
        scorer.timeline(CLIP, hop_seconds=0.1)


def test_too_little_memory(scorer, monkeypatch):
    def fail(self, batch):
        raise RuntimeError("CUDA out of memory. Tried to allocate 9 GiB")

    monkeypatch.setattr(SpoofScorer, "_forward", fail)
    with pytest.raises(ValueError, match="not have enough memory for 3 windows at once: use a smaller batch size"):
        scorer.timeline(CLIP, hop_seconds=0.1)


def test_loud_samples_are_reported(scorer, caplog, monkeypatch):
    monkeypatch.setattr("hf_gradalign.scoring.timeline.logger.warning", lambda message: caplog.records.append(message))
    scorer.timeline(CLIP * 20)
    assert "samples outside [-1, 1]" in caplog.records[0]


def test_long_recordings_are_cut_on_the_way(detector, extractor, monkeypatch, tmp_path):
    (tmp_path / "clip.wav").write_bytes(encode(CLIP))
    scorer = SpoofScorer(detector, extractor, batch_size=4, rms_level=0.05)
    whole = scorer.timeline(tmp_path / "clip.wav", hop_seconds=0.03)
    monkeypatch.setattr(reading, "_BLOCK", 700)
    monkeypatch.setattr(windowing, "_LONG", 1000)
    streamed = scorer.timeline(tmp_path / "clip.wav", hop_seconds=0.03)
    np.testing.assert_allclose(streamed.scores, whole.scores, atol=1e-6)
    assert streamed.starts.tolist() == whole.starts.tolist()
    assert streamed.duration == whole.duration


@pytest.mark.parametrize("n_samples", [5, 10, 11, 33, 40, 46])
@pytest.mark.parametrize("block", [1, 7, 100])
@pytest.mark.parametrize("n_windows", [1, 4])
def test_stretches_have_the_windows_of_a_windowing(n_samples, block, n_windows):
    samples = np.arange(n_samples, dtype=np.float32)
    blocks = [samples[start : start + block] for start in range(0, n_samples, block)]
    stretches = list(windowing.cut_stretches(blocks, 10, 3, n_windows))
    expected = windowing.Windowing(10, "all", 3).cut(samples)
    np.testing.assert_array_equal([window for each in stretches for window in each.windows(10)], expected)
    assert [int(window[0]) for window in expected] == [start for each in stretches for start in each.starts]
    assert stretches[-1].n_samples == n_samples
    assert all(len(each.starts) == n_windows for each in stretches[:-1])
    assert all(len(each.samples) <= 10 + 3 * (n_windows - 1) for each in stretches)


def make_timeline(scores, window=2.0, hop=0.1, duration=None):
    starts = np.arange(len(scores)) * hop
    ends = starts + window
    return Timeline(starts, ends, np.asarray(scores, float), ends[-1] if duration is None else duration, False)


def halves(boundary, duration=16.0, window=2.0, hop=0.1, response=lambda share: share, noise=0.3):
    """A bona fide part and a spoofed one, as heard by windows whose score depends on the share of bona fide speech."""
    starts = np.arange(0, duration - window + 1e-9, hop)
    share = np.clip((boundary - starts) / window, 0, 1)
    scores = 8 * response(share) - 4 + noise * np.random.default_rng(0).standard_normal(len(starts))
    return make_timeline(scores, window, hop, duration)


RESPONSES = {
    "even": (lambda share: share, 0.2),
    # Where any mixture sounds like one of its parts, the boundary may be anywhere in a window.
    "strict": (lambda share: share**4, 1.9),
    "lenient": (lambda share: share**0.25, 1.9),
    "all or nothing": (lambda share: share >= 0.9, 1.9),
}


@pytest.mark.parametrize("boundary", [4.0, 8.0, 11.3])
@pytest.mark.parametrize("response", RESPONSES)
def test_the_change_is_found_within_the_resolution(boundary, response):
    score, doubt = RESPONSES[response]
    change = halves(boundary, response=score).change_point()
    assert change.time == pytest.approx(boundary, abs=doubt + 1e-6)
    assert change.before > 2 > -2 > change.after
    reverse = halves(boundary, response=lambda share: 1 - score(share)).change_point()
    assert reverse.time == pytest.approx(boundary, abs=doubt + 1e-6)
    assert reverse.before < reverse.after


def test_a_change_without_noise_is_exact():
    assert halves(8.0, noise=0).change_point().time == pytest.approx(8)
    assert halves(8.0, noise=0).segments()[0].end == pytest.approx(8)
    steps = make_timeline([1, 1, -1], window=1, hop=1)
    assert steps.change_point() == (2, 1, -1)


def test_neighboring_times_that_are_as_sharp_share_the_boundary():
    def change(scores):
        return make_timeline(scores, window=1, hop=0.5).change_point().time

    assert change([4, 4, 0, -4, -4]) == pytest.approx(1.5)
    assert change([4, 4, 2, -2, -4, -4]) == pytest.approx(1.75)  # the fall is 6 at 1.5 and at 2 s, and in between
    assert change([-4, -4, -2, 2, 4, 4]) == pytest.approx(1.75)
    # The fall is 2, 7, 6 and 1 at 1, 1.5, 2 and 2.5 s; what is above 0.85 of 7 has its center here.
    assert change([4, 4, 2, -3, -4, -4]) == pytest.approx(1.64, abs=0.01)


def test_a_boundary_between_two_windows_is_found_between_them():
    found = [halves(boundary, hop=0.5, noise=0.01).change_point().time for boundary in np.arange(7, 8, 0.1)]
    np.testing.assert_allclose(found, np.arange(7, 8, 0.1), atol=0.06)


def test_too_few_windows_for_a_change():
    with pytest.raises(ValueError, match=r"a recording of 2 s has 1 of 2 s: use shorter windows \(window_seconds\)"):
        make_timeline([1]).change_point()


def test_segments_cover_the_recording():
    timeline = make_timeline([2, 3, 4, -1, -2, -3, -4, 5, 6], window=1, hop=1)
    segments = timeline.segments()
    assert segments == [(0, 3, "bonafide", 3), (3, 7, "spoof", -2.5), (7, 9, "bonafide", 5.5)]
    assert timeline.segments(3.5) == [
        *[(0, 2, "spoof", 2.5), (2, 3, "bonafide", 4)],
        *[(3, 7, "spoof", -2.5), (7, 9, "bonafide", 5.5)],
    ]
    assert timeline.segments(3)[1].start == 1  # a score at the threshold is bona fide, as in verdicts
    assert timeline.segments(9) == [(0, 9, "spoof", pytest.approx(10 / 9))]
    assert make_timeline([1], duration=0.7).segments() == [(0, 0.7, "bonafide", 1)]


def test_boundaries_of_short_segments_stay_in_order():
    generator = np.random.default_rng(1)
    for _ in range(20):
        segments = make_timeline(generator.standard_normal(60), window=2, hop=0.1).segments()
        edges = [segment.start for segment in segments] + [segments[-1].end]
        assert np.all(np.diff(edges) > 0)
        assert all(first.label != second.label for first, second in pairwise(segments))
