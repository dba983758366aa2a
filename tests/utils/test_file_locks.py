import errno
import os
import socket
import stat

import pytest
from filelock import FileLock, Timeout
from lock_holder import other_process_holding

from hf_gradalign.utils import file_locks
from hf_gradalign.utils.file_locks import LockHeldError, hold_lock, hold_output


@pytest.fixture
def other_process(tmp_path):
    with other_process_holding(lambda: hold_lock(tmp_path / "a.lock", "it")) as process:
        yield process


def test_the_second_process_reads_who_holds_it_and_a_dead_one_does_not_block(tmp_path, other_process):
    for _ in range(2):  # the refused attempt keeps the holder's name
        with pytest.raises(LockHeldError) as told, hold_lock(tmp_path / "a.lock", "the study in x"):
            pass
        message = str(told.value)
        assert f"the study in x is in use by process {other_process.pid} on {socket.gethostname()} since 20" in message
    other_process.kill()
    other_process.join()
    assert (tmp_path / "a.lock.holder").is_file()  # left by the dead process
    with hold_lock(tmp_path / "a.lock", "it"):
        assert f"process {os.getpid()} on" in (tmp_path / "a.lock.holder").read_text()
    assert not (tmp_path / "a.lock.holder").exists()


def test_one_may_wait(tmp_path, other_process):
    waited = []

    def on_wait(holder):
        waited.append(holder)
        other_process.kill()

    with hold_lock(tmp_path / "a.lock", "it", on_wait):
        pass
    assert str(other_process.pid) in waited[0]


def test_files_have_the_umask(tmp_path):
    before = os.umask(0o002)
    try:
        with hold_lock(tmp_path / "a.lock", "it"):
            modes = [stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()]
    finally:
        os.umask(before)
    assert modes == [0o664, 0o664]


def test_a_folder_in_its_place_is_named(tmp_path):
    (tmp_path / "a.lock").mkdir()
    with pytest.raises(OSError, match=r"a\.lock"), hold_lock(tmp_path / "a.lock", "it"):
        pass


def test_an_output_has_one_writer_and_keeps_no_lock(tmp_path):
    path = tmp_path / "new" / "scores.json"
    with hold_output(path):
        (tmp_path / "new" / "other.json").touch()
        with pytest.raises(LockHeldError, match=r"scores\.json is in use by process"), hold_output(path):
            pass
        with hold_output(path.with_name("other.json")):
            pass
    assert [each.name for each in path.parent.iterdir()] == ["other.json"]
    with hold_output(path.parent):
        pass


def test_a_lock_whose_file_was_taken_away_keeps_nobody_out_and_is_not_enough(tmp_path, monkeypatch):
    """The previous writer ends between opening and locking the file."""

    class LateLock(FileLock):
        late = True

        def acquire(self, *args, **options):
            proxy = super().acquire(*args, **options)
            if LateLock.late:
                LateLock.late = False
                os.unlink(self.lock_file)
            return proxy

    monkeypatch.setattr(file_locks, "FileLock", LateLock)
    with hold_output(tmp_path / "scores.json"), pytest.raises(Timeout):
        FileLock(tmp_path / ".scores.json.lock").acquire(timeout=0)
    assert not list(tmp_path.iterdir())


def test_a_new_folder_that_stays_empty_is_removed(tmp_path):
    (tmp_path / "old").mkdir()
    path = tmp_path / "old" / "new" / "newer" / "scores.json"
    with pytest.raises(ValueError, match="refused"), hold_output(path):
        raise ValueError("refused")
    assert list((tmp_path / "old").iterdir()) == []
    with hold_output(tmp_path / "old" / "file"):
        pass
    assert (tmp_path / "old").is_dir()  # it was there before
    with hold_output(path):
        path.write_text("kept")
    assert [file.name for file in path.parent.iterdir()] == ["scores.json"]


def test_a_folder_that_another_process_removes_is_made_again(tmp_path, monkeypatch):
    path, touch = tmp_path / "new" / "scores.json", file_locks.Path.touch

    def too_late(self, *arguments):
        monkeypatch.undo()
        self.parent.rmdir()
        touch(self, *arguments)

    monkeypatch.setattr(file_locks.Path, "touch", too_late)
    with hold_output(path):
        path.write_text("written")
    assert path.is_file()


def test_a_lock_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / ".scores.json.lock").symlink_to(tmp_path / "nowhere" / "file")
    with pytest.raises(FileNotFoundError), hold_output(tmp_path / "scores.json"):
        pass


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_used_with_a_warning(tmp_path, monkeypatch, caplog, number):
    def flock(*arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(pytest.importorskip("fcntl"), "flock", flock)
    for _ in range(2):  # no file keeps the next process out
        with hold_output(tmp_path / "scores.json"):
            (tmp_path / "scores.json").write_text("written")
    assert [path.name for path in tmp_path.iterdir()] == ["scores.json"]
    assert caplog.text.count(f"{tmp_path} has no file locks ({os.strerror(number)})") == 1
