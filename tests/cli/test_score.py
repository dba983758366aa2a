"""`hf-gradalign score`: its command line, and how it names odd files."""

import errno
import json
import os

import pytest
import soundfile
from noise_clips import RATE, WINDOW, draw_clip
from tiny_detectors import make_detector

from hf_gradalign.cli.score import file_stem, main
from hf_gradalign.data import parse_corpus
from hf_gradalign.models import SpoofDetectorFeatureExtractor


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    make_detector(n_samples=WINDOW).save_pretrained(folder)
    SpoofDetectorFeatureExtractor(n_samples=WINDOW).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--audio", "a", "--split", "test", "--subset", "eval"], "--split, --subset: only for a corpus"),
        (["--audio", "a", "--label_map", "0=spoof", "--columns", "label"], "--label_map, --columns: only for a corpus"),
        (["--audio", "a", "--on_missing_audio", "stop"], "--on_missing_audio: only for a corpus, not with --audio"),
        (["--audio", "a", "--audio_column_name", "b", "--id_column_name", "c"], "_name, --id_column_name: only for a"),
        (["--output_dir", "a", "--output_file", "b"], "pass --output_file or --output_dir, not both"),
        (["--audio", "a.wav", "bad\udcff.wav"], r"bad\xff.wav: the name is not UTF-8. Rename it"),
        (["--output_file", "bad\udcff.txt"], r"bad\xff.txt: the name is not UTF-8. Rename it"),
    ],
)
def test_options_that_do_not_fit(words, message, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["model", *words])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_every_clip_keeps_its_name(model, tmp_path, capsys):
    folder = tmp_path / "clips"
    folder.mkdir()
    names = [" a.wav", "a.wav", "Icon\r.wav", "new\nline.wav", "tab\t.wav", "a,b.wav", "\u2028.wav", "silent.wav"]
    for number, name in enumerate(names):
        clip = draw_clip(number, 2000) * (name != "silent.wav")
        soundfile.write(folder / name, clip, RATE)
    (folder / "a.wav").with_name(os.fsdecode(b"bad\xff.wav")).touch()
    words = [model, "--audio", str(folder), "--output_file", str(tmp_path / "scores.txt"), "--verdict"]
    for _ in range(2):
        assert main([*words, "--no_progress", "--num_workers", "0"]) == 0
        assert "8 of 8 clips" in capsys.readouterr().out
    verdicts = [json.loads(line) for line in (tmp_path / "scores_verdicts.jsonl").read_text().splitlines()]
    whole = {f"{folder}/{name}" for name in names[:2]}
    assert {verdict["utterance_id"] for verdict in verdicts} == whole | {*names[2:]}
    undecided = [verdict["utterance_id"] for verdict in verdicts if verdict["label"] == "undecided"]
    assert undecided == ["silent.wav"]


def test_score_files_of_corpora_without_a_name_of_their_own(tmp_path, monkeypatch):
    (tmp_path / "mine" / "audio").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "mine" / "audio")
    assert [file_stem(name) for name in (".", "..", "../", "../*.tar", ".hidden")] == [
        *("audio", "mine", "mine", "tar", "hidden"),
    ]
    assert [parse_corpus(name).name for name in (".", "..")] == ["audio", "mine"]


def test_a_full_disk_is_told_with_the_output(model, tmp_path, monkeypatch, capsys):
    def fail(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")  # as from a write, without a name

    monkeypatch.setattr("hf_gradalign.scoring.corpus_scoring.write_text_atomically", fail)
    output = tmp_path / "scores" / "a.txt"
    soundfile.write(tmp_path / "a.wav", draw_clip(0, 2000), RATE)
    words = [model, "--audio", str(tmp_path / "a.wav"), "--output_file", str(output), "--num_workers", "0"]
    assert main(words) == 2
    assert f"error: {output}: No space left on device (" in capsys.readouterr().err
