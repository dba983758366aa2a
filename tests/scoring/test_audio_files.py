import os
from pathlib import Path

import pytest

from hf_gradalign.data import CorpusError
from hf_gradalign.scoring import list_audio_files


@pytest.fixture
def tree(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a/x.wav", "a/deep/y.FLAC", "a/notes.txt", "b/x.wav", "single.mp3"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "empty").mkdir()


@pytest.mark.parametrize(
    ("paths", "ids"),
    [
        (["a"], ["deep/y.FLAC", "x.wav"]),
        (["a", "b"], ["a/deep/y.FLAC", "a/x.wav", "b/x.wav"]),
        (["single.mp3", "b"], ["single.mp3", "x.wav"]),
        (["a/x.wav", "a"], ["a/x.wav", "deep/y.FLAC"]),
    ],
)
def test_files_and_folders(tree, paths, ids):
    found = list_audio_files(paths)
    assert found["utterance_id"][:] == ids
    assert all(audio["path"] for audio in found["audio"])


@pytest.mark.parametrize(("path", "message"), [("empty", "no audio files"), ("nowhere", "nowhere does not exist")])
def test_missing_paths_and_folders_without_audio_are_refused(tree, path, message):
    with pytest.raises(CorpusError, match=message):
        list_audio_files([path])


def test_every_audio_extension_is_listed(tmp_path, caplog):
    names = ["a.M4A", "b.mp4", "c.webm", "d.amr", "e.sph", "f.wma", "g.wav"]
    for name in [*names, "cover.jpg", "._g.wav"]:
        (tmp_path / name).touch()
    assert list_audio_files([tmp_path])["utterance_id"][:] == names
    assert "7 audio files. Left out: 1 hidden file or folder, 1 file that is not audio (1 .jpg)" in caplog.text


def test_linked_folders(tree):
    Path("linked").mkdir()
    Path("linked", "to_a").symlink_to(Path("a").absolute())
    assert list_audio_files(["linked"])["utterance_id"][:] == ["to_a/deep/y.FLAC", "to_a/x.wav"]


def test_files_that_would_share_an_id_keep_their_paths(tree):
    # Once, the last of them replaced the others.
    Path("x.wav").touch()
    assert list_audio_files(["x.wav", "b"])["utterance_id"][:] == ["x.wav", "b/x.wav"]
    Path("other/b").mkdir(parents=True)
    Path("other/b/x.wav").touch()
    assert list_audio_files(["b", "other/b"])["utterance_id"][:] == ["b/x.wav", "other/b/x.wav"]


def test_no_recording_is_lost_where_folders_share_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a/rec/1.wav", "b/rec/1.wav", "b/rec/2.wav", "d/e/y.wav", "z/d/e/y.wav", "w/e/y.wav"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    assert list_audio_files(["a/rec", "b/rec"])["utterance_id"][:] == ["a/rec/1.wav", "b/rec/1.wav", "rec/2.wav"]
    # The whole path of the first is the short name of the second. Once, this was refused.
    clips = list_audio_files(["d/e", "z/d", "w/e"])
    assert clips["utterance_id"][:] == ["d/e/y.wav", "z/d/e/y.wav", "w/e/y.wav"]
    assert [audio["path"] for audio in clips["audio"]] == clips["utterance_id"][:]


def test_a_recording_and_its_copy_in_another_format_are_two(tmp_path):
    for name in ("rec.wav", "rec.flac", "rec.WAV"):
        (tmp_path / name).touch()
    assert list_audio_files([tmp_path])["utterance_id"][:] == ["rec.WAV", "rec.flac", "rec.wav"]


def test_each_file_is_scored_once_for_any_spelling_of_its_path(tree):
    Path("link").symlink_to("a")
    for paths in (["b", "./b", Path("b").absolute(), "a/../b", "b/x.wav"], ["link/../b/x.wav", "b/x.wav"]):
        assert len(list_audio_files(paths)) == 1
    assert len(list_audio_files(["link/x.wav", "b/x.wav"])) == 2


def test_names_that_differ_only_in_blanks_keep_their_paths(tmp_path):
    for name in (" a.wav", "a.wav", "b .wav"):
        (tmp_path / name).touch()
    assert list_audio_files([tmp_path])["utterance_id"][:] == [f"{tmp_path}/ a.wav", f"{tmp_path}/a.wav", "b .wav"]


def test_names_that_are_not_utf8_are_reported(tmp_path, caplog):
    bad = os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff.wav")
    for name in ("a.wav", bad):
        (tmp_path / name).touch()
    assert list_audio_files([tmp_path])["utterance_id"][:] == ["a.wav"]
    assert rf"a name that is not UTF-8 ({tmp_path}/bad\xff.wav): rename them" in caplog.text
    with pytest.raises(CorpusError, match=r"bad\\xff.wav: the name is not UTF-8"):
        list_audio_files([tmp_path / "a.wav", bad])


def test_names_are_in_one_unicode_form(tmp_path):
    (tmp_path / "gro\u0308\u00dfe.wav").touch()
    clips = list_audio_files([tmp_path])
    assert clips["utterance_id"][:] == ["gr\u00f6\u00dfe.wav"]
    assert clips[0]["audio"]["path"] == str(tmp_path / "gro\u0308\u00dfe.wav")
