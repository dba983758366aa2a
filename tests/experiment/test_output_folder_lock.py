"""One run at a time in a folder."""

import os
import socket
import threading

import pytest
from lock_holder import other_process_holding

from hf_gradalign.experiment import hold_output_folder, output_folder
from hf_gradalign.utils.file_locks import LockHeldError


@pytest.fixture
def other_run(tmp_path):
    """Another process with a run in `tmp_path/run`."""
    with other_process_holding(lambda: hold_output_folder(str(tmp_path / "run"), None, "")) as process:
        yield process


def entries(folder):
    return sorted((str(path), path.stat().st_mtime_ns) for path in folder.rglob("*"))


@pytest.mark.parametrize("resume_from", [None, "run", "checkpoint"])
def test_second_run_names_the_first_and_changes_nothing(tmp_path, other_run, resume_from):
    checkpoint = tmp_path / "run" / "checkpoint-3"
    checkpoint.mkdir()
    before = entries(tmp_path)
    resume_from = {None: None, "run": str(tmp_path / "run"), "checkpoint": str(checkpoint)}[resume_from]
    for output_dir in [str(tmp_path / "run"), f"{tmp_path}/x/../run"] if resume_from is None else [None]:
        with pytest.raises(LockHeldError) as told, hold_output_folder(output_dir, resume_from, ""):
            pass
        assert f"is in use by process {other_run.pid} on {socket.gethostname()} since 20" in str(told.value)
    assert [path for path in entries(tmp_path) if not path[0].endswith("/x")] == before


def test_a_dead_run_does_not_block(tmp_path, other_run):
    other_run.kill()
    other_run.join()
    assert (tmp_path / "run" / "_running.lock.holder").is_file()
    with hold_output_folder(str(tmp_path / "run"), None, "") as (folder, waited):
        assert (folder, waited) == (str(tmp_path / "run"), False)


def test_a_preemptible_job_waits_for_its_other_start(tmp_path, other_run, monkeypatch, caplog):
    monkeypatch.setattr(output_folder.time, "sleep", lambda seconds: (other_run.kill(), other_run.join()))
    with hold_output_folder(str(tmp_path / "run"), "last", "") as (_, waited):
        assert waited
    assert f"is in use by process {other_run.pid} on" in caplog.text
    assert "Waiting for it to end" in caplog.text


def test_only_empty_folders_are_removed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for output_dir in (None, str(tmp_path / "a" / "b")):
        with hold_output_folder(output_dir, None, "pcgrad") as (folder, _):
            assert os.path.isdir(folder)
        assert not list(tmp_path.iterdir())
    mine = tmp_path / "mine"
    mine.mkdir()
    with hold_output_folder(str(mine), None, ""):
        pass
    assert mine.is_dir()
    with hold_output_folder(str(tmp_path / "new"), None, ""):
        (tmp_path / "new" / "file").touch()
    assert (tmp_path / "new" / "file").is_file()


def test_dry_run_creates_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for output_dir in (None, "named"):
        with hold_output_folder(output_dir, None, "", dry_run=True):
            assert not list(tmp_path.iterdir())


def test_folders_of_others_get_no_files(tmp_path):
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(FileExistsError, match=r"README\.md"), hold_output_folder(str(tmp_path), None, ""):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


def test_a_lock_is_not_written_through_a_link(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "_running.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionError, match="elsewhere"), hold_output_folder(str(tmp_path / "run"), None, ""):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_runs_started_in_the_same_second(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    barrier, folders = threading.Barrier(8), []

    def start():
        barrier.wait()
        with hold_output_folder(None, None, "pcgrad") as (folder, _):
            folders.append(folder)
            barrier.wait()

    threads = [threading.Thread(target=start) for _ in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(set(folders)) == 8
