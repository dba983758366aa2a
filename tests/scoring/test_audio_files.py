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


@pytest.mark.parametrize(("path", "said"), [("empty", "no audio files"), ("nowhere", "no file or folder nowhere")])
def test_refusals(tree, path, said):
    with pytest.raises(CorpusError, match=said):
        list_audio_files([path])


def test_whatever_sounds_is_handed_to_the_scorer(tmp_path, caplog):
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
    # Before, the last of them took the place of the others.
    Path("x.wav").touch()
    assert list_audio_files(["x.wav", "b"])["utterance_id"][:] == ["x.wav", "b/x.wav"]
    Path("other/b").mkdir(parents=True)
    Path("other/b/x.wav").touch()
    assert list_audio_files(["b", "other/b"])["utterance_id"][:] == ["b/x.wav", "other/b/x.wav"]


def test_names_are_in_one_unicode_form(tmp_path):
    (tmp_path / "gro\u0308\u00dfe.wav").touch()
    clips = list_audio_files([tmp_path])
    assert clips["utterance_id"][:] == ["gr\u00f6\u00dfe.wav"]
    assert clips[0]["audio"]["path"] == str(tmp_path / "gro\u0308\u00dfe.wav")
