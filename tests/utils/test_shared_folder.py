import os
from pathlib import Path

import forked_group
import pytest
from torch import distributed
from toy import ToyViews, make_model, make_trainer

from hf_gradalign.utils import shared_folder
from hf_gradalign.utils.shared_folder import require_shared_folder

BLIND = r"run: process 1 on .* cannot see what process 0 writes there. Choose a folder on a disk that all machines"


def in_each_process(folder):
    shared_folder._WAIT = 0.2
    distributed.init_process_group("gloo")
    require_shared_folder(folder / "shared" / "run")
    if distributed.get_rank() == 0:
        assert [*folder.rglob(".*")] == []
    (folder / "file").touch()
    with pytest.raises(OSError, match="exists") as error:
        require_shared_folder(folder / "file")
    assert error.value.filename == str(folder / "file")
    own = folder / f"machine_{distributed.get_rank()}"
    own.mkdir()
    os.chdir(own)  # a relative path is another folder then, as on disks of two machines
    with pytest.raises(OSError, match=BLIND):
        require_shared_folder("run")
    with pytest.raises(OSError, match=BLIND):
        make_trainer("run", ToyViews(8), make_model(), use_cpu=True, save_strategy="steps").train()
    make_trainer("run", ToyViews(8), make_model(), use_cpu=True, max_steps=1).train()
    distributed.destroy_process_group()


def test_two_processes(tmp_path):
    process = forked_group.start(in_each_process, tmp_path, log=tmp_path / "log.txt", processes=2)
    process.join()
    assert process.exitcode == 0, Path(tmp_path, "log.txt").read_text()


def test_a_single_process_needs_no_folder(tmp_path):
    require_shared_folder(tmp_path / "run")
    assert [*tmp_path.iterdir()] == []
