"""Long recordings are cut while they are decoded, with the same scores as when decoding them first."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile
from noise_clips import RATE, WINDOW, draw_clip

from hf_gradalign.audio import reading, resampling
from hf_gradalign.data import BadAudioError, decoding
from hf_gradalign.models import SpoofDetectorFeatureExtractor
from hf_gradalign.scoring import SpoofScorer, chunks, corpus_scoring, list_audio_files, score_corpus, windowing

LOADER = SpoofScorer._loader


def write(folder, name, seconds, rate=RATE, channels=1):
    samples = draw_clip(len(name), channels * round(seconds * rate)).reshape(-1, channels)
    soundfile.write(folder / name, samples, rate)


@pytest.fixture
def recordings(tmp_path):
    """Short and long recordings of several rates and formats. One is truncated, which only shows at its end."""
    for name, *what in [
        ("a.wav", 0.7),
        ("b.flac", 9.3, 8000),
        ("c.wav", 0.05),
        ("d.wav", 12.1, 44_100, 2),
        ("e.ogg", 8.0),
        ("f.wav", 0.2),
        ("g.flac", 7.77),
        ("h.wav", 3 * WINDOW / RATE),
        ("i.flac", 11.0),
    ]:
        write(tmp_path, name, *what)
    whole = (tmp_path / "g.flac").read_bytes()
    (tmp_path / "g.flac").write_bytes(whole[: len(whole) * 9 // 10])
    return list_audio_files([tmp_path])


@pytest.fixture
def small_blocks(monkeypatch):
    def shrink():
        monkeypatch.setattr(reading, "_BLOCK", 10_000)
        monkeypatch.setattr(resampling, "_PART", 20_000)
        monkeypatch.setattr(windowing, "_LONG", 60_000)
        monkeypatch.setattr(chunks, "_PIECE", 5 * WINDOW)

    return shrink


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 4},
        pytest.param(
            {"batch_size": 3, "hop_seconds": 0.07, "combine": "min"}, marks=[pytest.mark.slow, pytest.mark.long]
        ),
        pytest.param({"batch_size": 1, "hop_seconds": 0.5}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_scores_match_scoring_all_windows_together(
    detector, extractor, recordings, small_blocks, monkeypatch, tmp_path, options
):
    scorers = [SpoofScorer(detector, extractor, windows="all", num_workers=n, **options) for n in (0, 2)]
    whole = score_corpus(scorers[0], recordings, tmp_path / "whole.txt", progress=False)
    small_blocks()
    for scorer in scorers:
        monkeypatch.setattr(SpoofScorer, "_loader", spy := Spy(LOADER))
        streamed = score_corpus(scorer, recordings, tmp_path / f"{scorer.num_workers}.txt", progress=False)
        if options["batch_size"] > 1:  # a single window shares its batch with none
            assert any(not piece.is_last for piece in spy.pieces)
        assert max(sum(len(owners) for owners in piece.owners) for piece in spy.pieces) <= 5 + 2 * options["batch_size"]
        assert (tmp_path / f"{scorer.num_workers}.txt").read_text() == (tmp_path / "whole.txt").read_text()
        assert [clip.utterance_id for clip in streamed.bad_clips] == ["g.flac"]
        assert streamed.bad_clips == whole.bad_clips


@pytest.mark.parametrize("other_size", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_resumption_within_a_recording(
    detector, extractor, recordings, small_blocks, monkeypatch, tmp_path, other_size
):
    small_blocks()
    monkeypatch.setattr(corpus_scoring, "ThreadPoolExecutor", AtOnce)  # otherwise parts may wait for the settings
    scorer = SpoofScorer(detector, extractor, windows="all", batch_size=4, combine="median")
    forward = SpoofScorer._forward
    n_forwards, last = [], None

    def counted(self, batch):
        n_forwards.append(len(n_forwards))
        if len(n_forwards) == last:
            raise KeyboardInterrupt
        return forward(self, batch)

    monkeypatch.setattr(SpoofScorer, "_forward", counted)
    whole = score_corpus(scorer, recordings, tmp_path / "whole.txt", progress=False)
    needed = len(n_forwards)
    for last in (4, 14) if other_size else (1, 4, 9, 14):
        killed = tmp_path / f"killed_{last}.txt"
        n_forwards.clear()
        with pytest.raises(KeyboardInterrupt):
            score_corpus(scorer, recordings, killed, progress=False)
        with monkeypatch.context() as patch:
            if other_size:  # as by another version
                patch.setattr(chunks, "_PIECE", 9 * WINDOW)
            report = score_corpus(scorer, recordings, killed, progress=False)
        assert killed.read_text() == (tmp_path / "whole.txt").read_text()
        assert report.bad_clips == whole.bad_clips
        if not other_size:
            assert len(n_forwards) <= needed + 3  # only the last piece is scored again
        assert last < 9 or len(n_forwards) < needed + last - 2


class AtOnce(ThreadPoolExecutor):
    def submit(self, *arguments, **options):
        future = super().submit(*arguments, **options)
        future.result()
        return future


class Spy:
    def __init__(self, loader):
        self.loader = loader
        self.pieces = []

    def __get__(self, scorer, _):
        def load(*arguments):
            for piece in self.loader(scorer, *arguments):
                self.pieces.append(piece)
                yield piece

        return load


def test_level_is_measured_over_the_whole_recording(detector, extractor, recordings, small_blocks):
    scorer = SpoofScorer(detector, extractor, windows="all", rms_level=0.05, batch_size=4)
    paths = [audio["path"] for audio in recordings["audio"]]
    whole = scorer.score(paths, on_bad_audio="nan")
    small_blocks()
    np.testing.assert_allclose(scorer.score(paths, on_bad_audio="nan"), whole, rtol=0, atol=1e-6)


def test_the_first_window_of_another_rate_is_decoded_alone(detector, extractor, tmp_path, monkeypatch):
    for name, rate in [("a.wav", 8000), ("b.flac", 44_100)]:
        write(tmp_path, name, 60, rate)
    n_read = []
    read = soundfile.SoundFile.read
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda *args, **kw: n_read.append(args[1]) or read(*args, **kw))
    scorer = SpoofScorer(detector, extractor)
    scores = scorer.score([tmp_path / "a.wav", tmp_path / "b.flac"])
    assert max(n_read) < 60 * 8000 / 5
    monkeypatch.setattr(reading.SoundReader, "window", lambda *_: None)
    monkeypatch.setattr(decoding.ClipStream, "leading", lambda clip, n_samples: np.concatenate(list(clip))[:n_samples])
    np.testing.assert_array_equal(scorer.score([tmp_path / "a.wav", tmp_path / "b.flac"]), scores)


def test_too_long_recordings_get_advice(detector, extractor, tmp_path, monkeypatch):
    monkeypatch.setattr(windowing, "MAX_WHOLE_SECONDS", 2)
    for name, seconds in [("a.wav", 1.9), ("b.wav", 30)]:
        write(tmp_path, name, seconds)
    scorer = SpoofScorer(detector, extractor, windows="whole")
    report = score_corpus(scorer, list_audio_files([tmp_path]), tmp_path / "scores.txt", progress=False)
    assert report.n_scored == 1
    assert "is longer than 2 s, too long for windows 'whole': use windows 'all'" in report.bad_clips[0].reason


def test_whole_clips_that_are_long_share_no_batch(detector, tmp_path, monkeypatch):
    scorer = SpoofScorer(detector, SpoofDetectorFeatureExtractor(n_samples=None), batch_size=8)
    clips = [draw_clip(seed, length) for seed, length in enumerate([2000, 30_000, 2000, 2100, 31_000])]
    scores = scorer.score(clips)
    monkeypatch.setattr(chunks, "_MAX_BATCH_SAMPLES", 40_000)
    monkeypatch.setattr(chunks, "_PIECE", 33_000)
    pieces = scorer.chunks([{"array": clip} for clip in clips]).pieces(0)
    sizes = [len(owners) for piece in pieces for owners in piece.owners]
    assert sizes == [2, 1, 1, 1]
    np.testing.assert_allclose(scorer.score(clips), scores, atol=1e-5)


@pytest.mark.parametrize("windows", ["first", "all", "whole"])
def test_a_recording_that_does_not_fit_in_memory_is_bad_audio(detector, extractor, tmp_path, monkeypatch, windows):
    for name in ("a.wav", "b.wav", "c.wav"):
        write(tmp_path, name, 1)
    audio = list_audio_files([tmp_path])
    read = soundfile.SoundFile.read

    def fail(file, *arguments, **options):
        if file.name.endswith("b.wav"):
            raise MemoryError
        return read(file, *arguments, **options)

    monkeypatch.setattr(soundfile.SoundFile, "read", fail)
    scorer = SpoofScorer(detector, extractor, windows=windows)
    report = score_corpus(scorer, audio, tmp_path / "scores.txt", progress=False)
    assert report.n_scored == 2
    assert "does not fit in memory" in report.bad_clips[0].reason


@pytest.mark.parametrize("message", ["CUDA out of memory. Tried to", "DefaultCPUAllocator: can't allocate memory: you"])
def test_the_model_runs_out_of_memory(detector, extractor, monkeypatch, message):
    clips = [draw_clip(seed, length) for seed, length in enumerate([2000, 2000, 50_000, 2100])]

    def limited(self, batch, forward=SpoofScorer._forward):
        if batch["input_values"].numel() > 3000:
            raise RuntimeError(f"{message} allocate 9 GiB")
        return forward(self, batch)

    scorer = SpoofScorer(detector, SpoofDetectorFeatureExtractor(n_samples=None), batch_size=8)
    scores = scorer.score(clips)
    monkeypatch.setattr(SpoofScorer, "_forward", limited)
    with pytest.raises(BadAudioError, match="not have enough memory for the whole clip: use windows 'all'"):
        scorer.score(clips)
    found = scorer.score([clip for clip in clips if len(clip) < 50_000])
    np.testing.assert_allclose(found, scores[[0, 1, 3]], atol=1e-5)
    with pytest.raises(ValueError, match="not have enough memory for 4 windows at once: use a smaller batch size"):
        SpoofScorer(detector, extractor).score(clips)


def test_progress_within_a_recording(detector, extractor, tmp_path, small_blocks, capsys):
    write(tmp_path, "talk.wav", 200)
    small_blocks()
    scorer = SpoofScorer(detector, extractor, windows="all", batch_size=4)
    score_corpus(scorer, list_audio_files([tmp_path]), tmp_path / "scores.txt")
    assert "talk.wav: 2 of 3 min" in capsys.readouterr().err


@pytest.mark.parametrize("rate", [1, 4_000_000_000])
def test_an_invalid_rate_is_bad_audio(detector, extractor, tmp_path, rate):
    write(tmp_path, "a.wav", 1)
    damaged = bytearray((tmp_path / "a.wav").read_bytes())
    damaged[24:28] = rate.to_bytes(4, "little")
    for windows in ("first", "all", "whole"):
        scores = SpoofScorer(detector, extractor, windows=windows).score(
            [bytes(damaged), tmp_path / "a.wav", {"array": np.zeros(9, np.float32), "sampling_rate": 1}],
            on_bad_audio="nan",
        )
        np.testing.assert_array_equal(np.isnan(scores), [True, False, True])
