import json

import numpy as np
import pytest
from noise_clips import RATE, WINDOW, draw_clip

from hf_gradalign.score_files import read_timelines
from hf_gradalign.score_files.rttm import read_rttm
from hf_gradalign.scoring import SpoofScorer, draw_timeline, score_corpus, write_timelines
from hf_gradalign.scoring.timeline import Timeline
from hf_gradalign.scoring.timeline_files import file_names, json_lines, read_timeline
from hf_gradalign.utils.file_locks import hold_output


@pytest.fixture
def scorer(detector, extractor):
    return SpoofScorer(detector, extractor, batch_size=4)


def write(scorer, corpus, folder, **options):
    return write_timelines(scorer, corpus, folder, hop_seconds=0.05, progress=False, **options)


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_files_of_a_recording(scorer, make_corpus, tmp_path, monkeypatch):
    corpus = make_corpus(3)
    report = write(scorer, corpus, tmp_path / "timeline")
    assert report.n_written == 3
    assert not report.bad_clips
    names = {f"utt_000{index}.{suffix}" for index in range(3) for suffix in ("jsonl", "rttm", "txt")}
    assert {path.name for path in report.folder.iterdir()} == {*names, "timeline.json"}
    expected = scorer.timeline(corpus[2]["audio"], hop_seconds=0.05)
    rows = [json.loads(line) for line in (report.folder / "utt_0002.jsonl").read_text().splitlines()]
    assert [row["utterance_id"] for row in rows] == ["utt_0002"] * len(expected)
    for name in ("start", "end", "score"):
        np.testing.assert_allclose([row[name] for row in rows], getattr(expected, f"{name}s"), atol=1e-6)
    assert rows[0]["is_calibrated"] is False
    saved = read_timeline(report.folder / "utt_0002.jsonl")
    np.testing.assert_allclose(saved.scores, expected.scores, atol=1e-6)
    assert saved.duration == pytest.approx(expected.duration, abs=1e-6)


@pytest.mark.parametrize(("utterance_id", "name"), [("talks/my talk.wav", "my_talk"), ("talk.v2", "talk.v2")])
def test_segments_are_written_in_the_forms_of_other_programs(
    scorer, make_corpus, tmp_path, monkeypatch, utterance_id, name
):
    score = SpoofScorer.timeline
    monkeypatch.setattr(
        SpoofScorer, "timeline", lambda self, *args, **kw: _with_scores(score(self, *args, **kw), [2, 1, -3, -4, 5])
    )
    corpus = make_corpus(1).map(lambda row: {"utterance_id": utterance_id})
    long = {"array": draw_clip(0, 4 * 800 + WINDOW), "sampling_rate": RATE}
    monkeypatch.setattr("hf_gradalign.scoring.timeline_files.AudioColumn", lambda audio: [long])
    monkeypatch.setattr("hf_gradalign.scoring.timeline_files.describe_scoring", lambda *args, **further: further)
    write(scorer, corpus, tmp_path)
    (labels,) = tmp_path.glob("*.txt")
    rows = [line.split("\t") for line in labels.read_text().splitlines()]
    assert [row[2] for row in rows] == ["bonafide 1.50", "spoof -3.50", "bonafide 5.00"]
    assert rows[0][0] == "0.000000"
    assert rows[0][1] == rows[1][0]
    assert rows[2][1] == "0.400000"
    (rttm,) = tmp_path.glob("*.rttm")
    turns = read_rttm(rttm)[name]
    assert [turn.name for turn in turns] == ["bonafide", "spoof", "bonafide"]
    np.testing.assert_allclose([turn.start for turn in turns], [float(row[0]) for row in rows], atol=5e-4)
    np.testing.assert_allclose([turn.end for turn in turns], [float(row[1]) for row in rows], atol=1e-3)


def _with_scores(timeline, scores):
    return type(timeline)(timeline.starts, timeline.ends, np.array(scores, float), timeline.duration, False)


def test_an_interrupted_run_resumes(scorer, make_corpus, tmp_path, monkeypatch):
    corpus = make_corpus(4, bad=[1])
    whole = write(scorer, corpus, tmp_path / "whole")
    assert [clip.utterance_id for clip in whole.bad_clips] == ["utt_0001"]
    assert "utt_0001" in (tmp_path / "whole" / "bad_audio.tsv").read_text()
    scored = []
    score = SpoofScorer.timeline

    def killed(self, *arguments, **options):
        if len(scored) == 3:
            raise KeyboardInterrupt
        scored.append(arguments)
        return score(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(SpoofScorer, "timeline", killed)
        with pytest.raises(KeyboardInterrupt):
            write(scorer, corpus, tmp_path / "killed")
        scored.clear()
        assert write(scorer, corpus, tmp_path / "killed").n_written == 3
        assert len(scored) == 2  # the bad recording, and the one that was not reached
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


def test_other_settings_are_refused(scorer, make_corpus, tmp_path):
    corpus = make_corpus(2)
    (tmp_path / "timeline").mkdir()
    (tmp_path / "timeline" / ".DS_Store").touch()  # the Finder of macOS adds it
    write(scorer, corpus, tmp_path / "timeline")
    with pytest.raises(ValueError, match=r"timeline_hop_samples was 800 and is now 1600. To start over: --overwrite"):
        write_timelines(scorer, corpus, tmp_path / "timeline", hop_seconds=0.1, progress=False)
    write_timelines(scorer, corpus, tmp_path / "timeline", hop_seconds=0.1, progress=False, overwrite=True)
    assert read_timeline(tmp_path / "timeline" / "utt_0001.jsonl").starts[1:2].tolist() in ([0.1], [])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("Dear")
    with pytest.raises(ValueError, match=r"has files but no timeline\.json"):
        write(scorer, corpus, tmp_path / "mine")


def test_one_writer(scorer, make_corpus, tmp_path):
    with hold_output(tmp_path / "timeline"), pytest.raises(OSError, match="in use by"):
        write(scorer, make_corpus(1), tmp_path / "timeline")


def test_file_names():
    ids = ["a", "A", "../../etc/passwd", "a/b.wav", "a_b.wav", "", ".", "con", "CON.wav", "CON_D_01", "é", "x" * 300]
    names = file_names(ids)
    assert names[0] == "a"
    assert names[4] == "a_b.wav"
    assert names[9] == "CON_D_01"
    assert len({name.lower() for name in names}) == len(ids)
    assert all(name.isascii() and "/" not in name and name[0] != "." and 0 < len(name) < 100 for name in names)
    assert names[1].startswith("A-")
    assert not names[7].lower().startswith("con")


def test_figures(scorer, make_corpus, tmp_path):
    pytest.importorskip("matplotlib")
    corpus = make_corpus(1)
    write(scorer, corpus, tmp_path / "timeline")
    write(scorer, corpus, tmp_path / "timeline", figures=True)  # those of existing timelines
    assert (tmp_path / "timeline" / "utt_0000.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("n_samples", [40, 9000])
def test_contents_of_a_figure(scorer, n_samples):
    pytest.importorskip("matplotlib")
    clip = draw_clip(4, n_samples)
    timeline = scorer.timeline(clip, hop_seconds=0.05)
    figure = draw_timeline(timeline, clip, threshold=timeline.scores.mean() + 1, title="a $b$\n<i>")
    wave, spectrogram, scores = figure.axes
    assert wave.get_title() == "a $b$ <i>"
    assert spectrogram.images[0].get_extent() == [0, timeline.duration, 0, 8]
    np.testing.assert_array_equal(scores.lines[0].get_xdata(), timeline.centers)
    assert "spoof" in scores.get_legend_handles_labels()[1]
    assert scores.get_xlim() == (0, timeline.duration)


def test_score_files_stay_as_they_are(scorer, make_corpus, tmp_path):
    corpus = make_corpus(2)
    score_corpus(scorer, corpus, tmp_path / "scores.txt", progress=False)
    before = content(tmp_path)
    write(scorer, corpus, tmp_path / "scores_timeline")
    after = content_of_files(tmp_path)
    assert after == before


def content_of_files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_name_with_a_line_separator_is_read_back(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json_lines(Timeline(np.zeros(1), np.ones(1), np.full(1, -2.5), 1.0, True), "a\u2028b"), "utf-8")
    assert read_timeline(path).scores == [-2.5]
    assert list(read_timelines(path).recordings) == ["a\u2028b"]
