"""`score --timeline`, from the command line to its files."""

import json
import sys

import numpy as np
import pytest
import soundfile
from noise_clips import RATE, draw_clip
from tiny_detectors import make_detector

from hf_gradalign.models import SpoofDetectorFeatureExtractor
from hf_gradalign.scoring import SpoofScorer

WINDOW = 1600


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    make_detector(n_samples=WINDOW).save_pretrained(folder)
    SpoofDetectorFeatureExtractor(n_samples=WINDOW).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def script(load_script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    soundfile.write("my talk.wav", draw_clip(1, 6000), RATE)
    soundfile.write("b.wav", draw_clip(2, 2000), RATE)
    (tmp_path / "c.wav").write_text("no audio")
    return load_script("score_audio_spoof")


def run(script, *words):
    return script.main([*map(str, words), "--no_progress", "--num_workers", "0"])


def scores(path):
    return [json.loads(line)["score"] for line in path.read_text().splitlines()]


def test_timelines_next_to_the_score_file(script, model, tmp_path, capsys):
    words = [model, "--audio", "my talk.wav", "b.wav", "c.wav", "--hop_seconds", "0.02"]
    assert run(script, *words, "--timeline", "--output_file", "scores.txt") == 0
    assert "2 of 3 timelines: scores_timeline" in capsys.readouterr().out
    folder = tmp_path / "scores_timeline"
    assert "c.wav" in (folder / "bad_audio.tsv").read_text()
    (talk,) = folder.glob("my_talk*.jsonl")
    timeline = SpoofScorer(model).timeline("my talk.wav", hop_seconds=0.02)
    np.testing.assert_allclose(scores(talk), timeline.scores, atol=1e-5)
    # The score file is that of the first window, as without timelines.
    assert run(script, *words[:-2], "--output_file", "plain.txt") == 0
    assert (tmp_path / "plain.txt").read_bytes() == (tmp_path / "scores.txt").read_bytes()


def test_the_windows_that_a_score_file_combines(script, model, tmp_path):
    words = ["--windows", "all", "--combine", "min", "--hop_seconds", "0.02", "--timeline", "--output_file", "all.txt"]
    assert run(script, model, "--audio", "b.wav", *words) == 0
    lowest = min(scores(tmp_path / "all_timeline" / "b.wav.jsonl"))
    assert float((tmp_path / "all.txt").read_text().split()[1]) == pytest.approx(lowest, abs=1e-5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--timeline", "--hop_seconds", "1"], r"hop_seconds (1 s) exceeds the window (0.1 s)"),
        (["--share_encoder"], "--share_encoder is for --timeline"),
    ],
    ids=str,
)
def test_what_cannot_be(script, model, words, message, capsys, tmp_path):
    try:
        status = run(script, model, "--audio", "b.wav", *words)
    except SystemExit as ended:
        status = ended.code
    assert status == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "scores").exists()


def test_figures_without_matplotlib(script, model, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert run(script, model, "--audio", "b.wav", "--timeline_figures") == 2
    assert "figures need matplotlib, which is not installed: `pip install matplotlib`" in capsys.readouterr().err
