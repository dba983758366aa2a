import errno
import re
import sys

import pytest
from torch.utils.data import DataLoader, Dataset

from hf_gradalign.utils import messages
from hf_gradalign.utils.messages import error_line, is_disk_full, is_outside_fault, join_command, require_space


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a/b"), "a/b: No space left on device ("),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device; free some space"),
        (PermissionError(errno.EACCES, "Permission denied", "a"), "a: Permission denied; change its permissions"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "a"), "a: Not a directory; a file is where a folder"),
        (OSError("said in words"), "said in words"),
        (ValueError("\x1b[31mred"), "red"),
    ],
)
def test_a_line_has_the_path_and_the_next_step(error, line):
    assert error_line(error).startswith(f"error: {line}")


def test_libraries_words_for_a_full_disk(tmp_path):
    error = RuntimeError("I/O error: No space left on device (os error 28)")
    assert is_disk_full(error)
    assert re.fullmatch(
        rf"error: {tmp_path}/new/folder: No space left on device \([\d,]+ bytes are free\); free some space.*",
        error_line(error, tmp_path / "new" / "folder"),
    )
    assert not is_disk_full(ValueError("no file"))


@pytest.mark.parametrize(
    "text",
    [
        "[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534",
        "basic_ios::clear: iostream error",
    ],
)
def test_a_failed_torch_save_has_lost_the_reason(tmp_path, text):
    assert is_outside_fault(RuntimeError(text))
    assert re.fullmatch(
        rf"error: {tmp_path}: a file could not be written \([\d,]+ bytes are free\); if the disk or your quota is "
        "full, free some space.*",
        error_line(RuntimeError(text), tmp_path),
    )


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.EIO, "Input/output error", "a"), "a: Input/output error; the disk failed"),
        (RuntimeError("I/O error: Input/output error (os error 5) at path 'a'"), "Input/output error; the disk failed"),
        (OSError(errno.ESTALE, "Stale file handle", "a"), "a: Stale file handle; the network file system lost it"),
        (OSError(errno.EMFILE, "Too many open files", "a"), "too many files are open: raise the limit (ulimit -n"),
        (RuntimeError("Too many open files. Communication with ..."), "too many files are open: raise the limit"),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "no more processes or threads can be"),
        (
            RuntimeError("[... at inline_container.cc:747] . open file failed with strerror: Permission denied"),
            "a file could not be written: Permission denied; if the disk",
        ),
        (
            RuntimeError("Parent directory runs/a does not exist."),
            "a file could not be written: Parent directory runs/a does not exist; if the disk",
        ),
        (RuntimeError("can't start new thread"), "no more processes or threads can be started"),
        (RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: ..."), "shared memory (/dev/shm) is"),
        (RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly"), "a data loader worker was killed"),
    ],
)
def test_faults_and_limits_of_the_machine(error, line):
    assert is_outside_fault(error)
    assert error_line(error).startswith(f"error: {line}")
    assert error_line(error).endswith("run the same command again")


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError('I/O error: No such file or directory (os error 2) at path "a/model.safetensors"'),
        ValueError("a/model.safetensors cannot be read: I/O error: Permission denied (os error 13)"),
        BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable", "a/model.safetensors"),
    ],
)
def test_the_file_in_a_message_is_kept(error):
    assert "a/model.safetensors" in error_line(error)


def test_a_system_error_of_a_loader_worker():
    class Clips(Dataset):
        def __getitem__(self, index):
            raise OSError(errno.ESTALE, "Stale file handle", "a b.wav")

        def __len__(self):
            return 1

    with pytest.raises(OSError, match="DataLoader worker") as caught:
        list(DataLoader(Clips(), num_workers=1))
    assert is_outside_fault(caught.value)
    assert error_line(caught.value).startswith("error: a b.wav: Stale file handle; the network file system lost it")


def test_a_full_shared_memory_is_not_a_full_disk(monkeypatch):
    """Semaphores of loader workers are files in it, whose error has no name."""
    monkeypatch.setattr(messages, "_LEAST_SHARED_MEMORY", 2**62)
    assert "shared memory (/dev/shm) is full" in error_line(OSError(errno.ENOSPC, "No space left on device"), "out")
    assert error_line(OSError(errno.ENOSPC, "No space left on device", "a")).startswith("error: a: No space left")


def test_an_endless_message_is_cut():
    line = error_line(ValueError("a" + "x" * 19_998 + "z"))
    assert len(line) < 2100
    assert line.startswith("error: ax")
    assert "x... (18,000 more characters) ...x" in line
    assert line.endswith("xz")


def test_room_is_looked_for_before_the_work(tmp_path):
    require_space(tmp_path / "a" / "b", 1000)
    assert not (tmp_path / "a").exists()
    with pytest.raises(OSError, match=r"c: about 1,000,000,000,000\.0 MB are needed, but [\d,.]+ MB are free"):
        require_space(tmp_path / "c", 10**18)
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="file"):
        require_space(tmp_path / "file" / "below", 1)


def test_a_command_can_be_typed_in_the_systems_shell(monkeypatch):
    words = ["train", "--output_dir", r"C:\my runs", "--exclude", r"C:\x"]
    monkeypatch.setattr(sys, "platform", "linux")
    assert join_command(words) == r"train --output_dir 'C:\my runs' --exclude 'C:\x'"
    monkeypatch.setattr(sys, "platform", "win32")
    assert join_command(words) == r'train --output_dir "C:\my runs" --exclude C:\x'
