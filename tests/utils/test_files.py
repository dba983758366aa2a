import errno
import os
import sys
import time

import pytest

from hf_gradalign.utils.file_locks import hold_outputs
from hf_gradalign.utils.files import (
    link_or_copy,
    patiently,
    refuse_device,
    replace_atomically,
    require_free,
    write_text_atomically,
)


def test_old_or_new(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    write_text_atomically(path, "old ä")
    assert path.read_text(encoding="utf-8") == "old ä"

    def killed(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            write_text_atomically(path, "new")
    assert path.read_text(encoding="utf-8") == "old ä"
    write_text_atomically(path, "new\n")
    assert path.read_bytes() == b"new\n"  # on Windows too
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_text_atomically(path, "text"),
        lambda path: require_free(path, overwrite=True),
        lambda path: replace_atomically(path).__enter__(),
        lambda path: hold_outputs([path]).__enter__(),
    ],
    ids=["text", "free", "draft", "lock"],
)
def test_devices_and_pipes_are_not_replaced(tmp_path, write):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        with pytest.raises(OSError, match=f"{name} is a device or a pipe, not a file: choose another output"):
            write(tmp_path / name)
    assert (tmp_path / "pipe").is_fifo()
    assert len(list(tmp_path.iterdir())) == 2
    with pytest.raises(OSError, match="/dev/stdout is a device"):
        refuse_device("/dev/stdout")
    refuse_device("/dev")


def test_a_folder_is_written_to_a_draft_first(tmp_path):
    folder = tmp_path / "deep" / "model"
    with replace_atomically(folder) as draft:
        draft.mkdir()
        (draft / "a").write_text("1")
        assert not folder.exists()
    assert (folder / "a").read_text() == "1"
    (folder / "own").write_text("mine")

    def fail():
        with replace_atomically(folder) as draft:
            draft.mkdir()
            (draft / "a").write_text("2")
            (draft / "nowhere" / "b").write_text("3")

    with pytest.raises(FileNotFoundError):
        fail()
    assert (folder / "a").read_text() == "1"
    with replace_atomically(folder) as draft:
        (draft / "sub").mkdir(parents=True)
        (draft / "a").write_text("2")
        (draft / "sub" / "b").write_text("3")
    assert {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()} == {
        "a": "2",
        "own": "mine",
        "sub/b": "3",
    }
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_a_file_is_written_to_a_draft_first(tmp_path):
    path = tmp_path / "a.pth"
    for content in ("1", "2"):
        with replace_atomically(path) as draft:
            draft.write_text(content)
        assert path.read_text() == content
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_there_is_named(tmp_path):
    require_free(tmp_path / "new")
    (tmp_path / ".DS_Store").touch()  # the Finder of macOS adds it
    require_free(tmp_path)
    for name in "abcde":
        (tmp_path / name).touch()
    with pytest.raises(FileExistsError, match=r"already contains files \(a, b, c, d, ...\): choose another"):
        require_free(tmp_path)
    with pytest.raises(
        FileExistsError, match="a already exists: choose another file, or pass --overwrite to replace it"
    ):
        require_free(tmp_path / "a")
    require_free(tmp_path, overwrite=True)


def test_a_file_is_copied_where_links_are_not_allowed(tmp_path, monkeypatch):
    source = tmp_path / "model.bin"
    source.write_bytes(b"weights")
    with monkeypatch.context() as patch:
        patch.setattr(os, "symlink", refuse_links)
        link_or_copy(source, tmp_path / "copy.bin")
    assert (tmp_path / "copy.bin").read_bytes() == b"weights"
    assert not (tmp_path / "copy.bin").is_symlink()


def refuse_links(*args, **kwargs):
    raise OSError(errno.EPERM, "A required privilege is not held by the client")


def test_windows_waits_for_programs_that_look_at_new_files(monkeypatch):
    waits = []
    monkeypatch.setattr(time, "sleep", waits.append)

    def rename(source, target):
        if len(waits) < needed:
            raise PermissionError(errno.EACCES, "Access is denied")

    needed = 2
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(PermissionError):
        patiently(rename, "a", "b")
    assert waits == []
    monkeypatch.setattr(sys, "platform", "win32")
    patiently(rename, "a", "b")
    assert len(waits) == needed
    needed = 100
    with pytest.raises(PermissionError):
        patiently(rename, "a", "b")
    assert 3 < sum(waits) < 4
