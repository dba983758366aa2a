import os
from pathlib import PurePath

import pytest

from hf_gradalign.utils import folder_listing
from hf_gradalign.utils.folder_listing import is_audio, list_folder, similar_path


@pytest.fixture
def make(tmp_path):
    """Make empty files; return their folder."""

    def make(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return tmp_path

    return make


def names(paths, folder):
    return [path.relative_to(folder).as_posix() for path in paths]


@pytest.mark.parametrize(
    "name",
    [
        "a.wav",
        "a.FLAC",
        "a.m4a",
        "a.Mp4",
        "a.aac",
        "a.webm",
        "a.amr",
        "a.wma",
        "a.mkv",
        "a.mov",
        "a.3gp",
        "a.opus",
        "a.oga",
        "a.sph",
        "a.wv",
        "a.caf",
        "a.au",
        "a.aif",
        "a.wv1",
    ],
)
def test_audio_of_any_format_and_case(name):
    assert is_audio(name)


@pytest.mark.parametrize("name", ["wav", "a.txt", "a.wav.txt", "flac", "a.parquet", "README"])
def test_what_is_no_audio(name):
    assert not is_audio(name)


def test_what_lies_in_a_folder(make):
    folder = make("b/x.wav", "b.wav", "a.MP3", "notes.txt", "b/README", "b/._x.wav", ".git/x.wav", "c.wav/y.flac")
    found = list_folder(folder)
    # In pathlib's order, folder by folder.
    assert names(found.audio, folder) == ["a.MP3", "b/x.wav", "b.wav", "c.wav/y.flac"]
    assert names(found.others, folder) == ["b/README", "notes.txt"]
    assert found.n_hidden == 2
    assert found.unreadable == []


def test_a_hidden_folder_that_is_named_is_read(make):
    assert len(list_folder(make(".cache/x.wav") / ".cache").audio) == 1


def test_links_are_followed_and_real_folders_listed_once(make, tmp_path):
    outside = make("elsewhere/deep/z.wav") / "elsewhere"
    folder = make("set/real/x.wav") / "set"
    (folder / "a_link").symlink_to(folder / "real")  # comes first, but does not replace it
    (folder / "linked").symlink_to(outside)
    (folder / "linked_again").symlink_to(outside / "deep")
    (outside / "back").symlink_to(folder)
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    (folder / "file_link.wav").symlink_to(folder / "real" / "x.wav")
    found = list_folder(folder)
    assert names(found.audio, folder) == ["file_link.wav", "gone.wav", "linked/deep/z.wav", "real/x.wav"]
    assert names(found.others, folder) == ["loop"]


def test_thousands_of_linked_folders_are_not_compared_with_each_other(make, tmp_path, monkeypatch):
    # Speakers on another disk are often linked one by one.
    n_links, n_compared = 200, 0
    root = make("corpus/a.wav") / "corpus"
    for index in range(n_links):
        folder = tmp_path / "elsewhere" / str(index)
        folder.mkdir(parents=True)
        (root / str(index)).symlink_to(folder)
    is_before = PurePath.__lt__

    def counted(self, other):
        nonlocal n_compared
        n_compared += 1
        return is_before(self, other)

    monkeypatch.setattr(PurePath, "__lt__", counted)
    list_folder(root)
    assert n_links < n_compared < 20 * n_links


def test_a_pipe_is_no_audio(make):
    folder = make("x.wav")
    os.mkfifo(folder / "pipe.wav")
    (folder / "link.wav").symlink_to(folder / "pipe.wav")
    found = list_folder(folder)
    assert names(found.audio, folder) == ["x.wav"]
    assert names(found.others, folder) == ["link.wav", "pipe.wav"]


def test_a_link_as_the_folder(make, tmp_path):
    make("set/x.wav")
    (tmp_path / "link").symlink_to(tmp_path / "set")
    assert names(list_folder(tmp_path / "link").audio, tmp_path) == ["link/x.wav"]


def test_a_folder_that_cannot_be_opened_is_reported(make, monkeypatch, caplog):
    folder = make("a/x.wav", "locked/y.wav")
    scandir = os.scandir

    def refuse(path):
        if os.fspath(path).endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(folder_listing.os, "scandir", refuse)
    found = list_folder(folder)
    found.log_left_out()
    assert names(found.unreadable, folder) == ["locked"]
    assert f"{folder}: 1 audio file. Left out: 1 folder that cannot be opened ({folder / 'locked'})." in caplog.text


def test_what_is_left_out_is_told_once(make, caplog):
    found = list_folder(make("x.wav", "y.wav", "a.txt", "b.TXT", "README", "c.pdf", "._x.wav"))
    found.log_left_out()
    found.log_left_out()
    [record] = caplog.records
    assert record.getMessage() == (
        f"{found.folder}: 2 audio files. Left out: 1 hidden file or folder, 4 files that are not audio (2 .txt, 1 "
        "without an extension, 1 .pdf)."
    )


def test_nothing_is_told_where_nothing_is_left_out(make, caplog):
    found = list_folder(make("x.wav", "metadata.csv"))
    found.log_left_out([found.folder / "metadata.csv"])
    assert not caplog.records


def test_a_similar_path(make):
    folder = make("scores.txt", ".scores.text.lock", "runs/dev/a.txt")
    assert similar_path(folder / "scores.text") == f" Did you mean {folder / 'scores.txt'}?"  # not the hidden file
    assert similar_path(folder / "runs\\dev\\a.txt") == f" Did you mean {folder / 'runs/dev/a.txt'}?"
    assert similar_path(folder / "other") == similar_path(folder / "absent" / "scores.txt") == ""
