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
