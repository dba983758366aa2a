"""A folder with one of everything: every file in it is scored or trained on, or the log or a list says why not."""

import logging
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from transformers import AutoModelForAudioClassification, Wav2Vec2FeatureExtractor

from hf_gradalign.models import small_wav2vec2_config

SPLITS = ("train", "validation", "test")
BAD = {
    "page.wav": b"<!DOCTYPE html><title>404</title>",
    "empty.flac": b"",
    "noise.mp3": bytes(300),
    "call.amr": b"#!AMR\n" + bytes(64),
    "note.m4a": b"\x00\x00\x00\x20ftypM4A \x00\x00\x02\x00" + bytes(64),
}
OTHERS = ("notes.txt", "cover.jpg", "README", ".DS_Store", "._train_0.flac", "below/._train_1.wav")


@pytest.fixture
def folder(tmp_path):
    """Good clips of every split, with capitals and at two depths; bad ones; a cut one; what is no audio or hidden."""
    folder = tmp_path / "everything"
    (folder / "below").mkdir(parents=True)
    rows = ["file_name,label,split"]
    generator = np.random.default_rng(0)
    for split in SPLITS:
        for index, label in enumerate(("real", "fake", "Bona fide", "spoof")):
            name = f"below/{split}_{index}.WAV" if index % 2 else f"{split}_{index}.flac"
            soundfile.write(folder / name, generator.normal(0, 0.1, 12_000), 16_000)
            rows.append(f"{name},{label},{split}")
    for name, content in BAD.items():
        (folder / name).write_bytes(content)
        rows.append(f"{name},fake,train")
    content = (folder / "train_0.flac").read_bytes()
    (folder / "cut.flac").write_bytes(content[: len(content) // 2])
    rows.append("cut.flac,real,test")
    (folder / "below" / "unlabeled.wav").write_bytes(content)
    for name in OTHERS:
        (folder / name).write_bytes(b"something else")
    rows.append("gone.wav,real,validation")
    (folder / "metadata.csv").write_text("\n".join(rows))
    return folder


def files_of(folder, *, audio):
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {"metadata.csv"}
    return names - set(OTHERS) if audio else names & set(OTHERS)


LEFT_OUT = (
    r"Left out: 3 hidden files or folders, 3 files that are not audio \(1 \.jpg, 1 \.txt, 1 without an extension\)"
)


def sorted_kinds(text):
    """The kinds of files in the order of the alphabet, whichever order the disk has them in."""
    return re.sub(r"(?<=not audio \()[^)]*", lambda kinds: ", ".join(sorted(kinds[0].split(", "))), text)


def test_scoring_accounts_for_every_file(load_script, folder, tmp_path, caplog):
    (folder / "metadata.csv").unlink()
    config = small_wav2vec2_config(num_hidden_layers=1, id2label={0: "spoof", 1: "bonafide"})
    AutoModelForAudioClassification.from_config(config).save_pretrained(tmp_path / "model")
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path / "model")
    words = [tmp_path / "model", "--audio", folder, "--output_dir", tmp_path / "scores", "--num_workers", "0"]
    with caplog.at_level(logging.WARNING):
        assert load_script("score_audio_spoof").main([str(word) for word in words]) == 0
    lines = (tmp_path / "scores" / "audio.txt").read_text().splitlines()
    scored = {line.split()[0] for line in lines}
    rows = (tmp_path / "scores" / "audio_bad_audio.tsv").read_text().splitlines()[1:]
    reasons = {row.split("\t")[0]: row.split("\t")[2] for row in rows}
    assert set(reasons) == {*BAD, "cut.flac"}
    assert all(reasons.values())
    assert not scored & set(reasons)
    assert scored | set(reasons) == files_of(folder, audio=True)
    assert len(files_of(folder, audio=False)) == 6
    assert re.search(f"19 audio files. {LEFT_OUT}", sorted_kinds(caplog.text))


def test_a_run_accounts_for_every_file(run_script, folder, tmp_path, monkeypatch, caplog):
    used = {}

    def note(preparation, *arguments):
        for split, clips in preparation.corpus.items():
            used[split] = {str(Path(audio["path"]).relative_to(folder)) for audio in clips["audio"][:]}

    monkeypatch.setattr("hf_gradalign.experiment.runner.rehearse", note)
    words = ["--on_missing_audio", "skip", "--on_bad_audio", "skip"]
    options = {"output_dir": tmp_path / "out", "dataset_name": folder, "conflict_record": "none"}
    with caplog.at_level(logging.WARNING):
        assert run_script(*words, **options) == 0
    log = sorted_kinds(caplog.text)
    assert {split: len(names) for split, names in used.items()} == dict.fromkeys(SPLITS, 4)
    left_out = files_of(folder, audio=True) - set().union(*used.values())
    assert left_out == {*BAD, "cut.flac", "below/unlabeled.wav"}
    for name in (*left_out, "gone.wav"):
        assert str(folder / name) in log, name
    for split in ("validation", "test"):
        lines = (tmp_path / "out" / f"scores_{split}.txt").read_text().splitlines()
        assert len(lines) == len(used[split])
    assert re.search(f"19 audio files. {LEFT_OUT}", log)
