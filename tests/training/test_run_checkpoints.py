import shutil

import pytest
import torch
from kill_simulation import Killed, every_kill, killed_before
from safetensors.torch import load_file, save_file

from hf_gradalign.training import run_checkpoints
from hf_gradalign.training.checkpoint_integrity import MANIFEST_NAME, read_manifest
from hf_gradalign.training.run_checkpoints import RunCheckpoints, require_complete, require_intact_model


def write(checkpoints, step, value=0.0):
    draft = checkpoints.unfinished / f"checkpoint-{step}"
    draft.mkdir(parents=True)
    save_file({"weight": torch.tensor([value])}, draft / "model.safetensors")
    (draft / "trainer_state.json").write_text("{}")
    return draft


def finish(run, *steps):
    checkpoints = RunCheckpoints(run)
    for step in steps:
        write(checkpoints, step)
        checkpoints.finish(step)
    return checkpoints


def names(paths):
    return [path.name for path in paths]


def test_checkpoints_appear_only_when_complete(tmp_path):
    checkpoints = RunCheckpoints(tmp_path)
    draft = write(checkpoints, 3)
    assert checkpoints.all() == []
    place = checkpoints.finish(3)
    assert checkpoints.all() == [place] == [tmp_path / "checkpoint-3"]
    assert checkpoints.last_complete() == place
    assert not draft.parent.exists()
    assert read_manifest(place)["files"] == {"model.safetensors": 76, "trainer_state.json": 2}


def test_last_complete_checkpoint(tmp_path, caplog):
    assert RunCheckpoints(tmp_path / "nothing").last_complete() is None
    checkpoints = finish(tmp_path, 2, 10, 9)
    (tmp_path / "checkpoint-x").mkdir()
    (tmp_path / "checkpoint-11").write_text("")
    assert names(checkpoints.all()) == ["checkpoint-2", "checkpoint-9", "checkpoint-10"]
    (tmp_path / "checkpoint-10" / "model.safetensors").unlink()
    assert checkpoints.last_complete().name == "checkpoint-9"
    assert "checkpoint-10 is not complete and is skipped: model.safetensors is missing" in caplog.text
    assert checkpoints.incomplete() == {tmp_path / "checkpoint-10": ["model.safetensors is missing"]}


def test_complete_draft_counts_as_a_checkpoint(tmp_path):
    checkpoints = finish(tmp_path, 2)
    shutil.copytree(tmp_path / "checkpoint-2", checkpoints.unfinished / "checkpoint-4")
    write(checkpoints, 6)
    assert checkpoints.last_complete().name == "checkpoint-4"
    # If both are complete, the one in place stays.
    write(checkpoints, 2, value=1.0)
    shutil.copy(tmp_path / "checkpoint-2" / MANIFEST_NAME, checkpoints.unfinished / "checkpoint-2")
    before = (tmp_path / "checkpoint-2" / "model.safetensors").read_bytes()
    assert names(checkpoints.complete()) == ["checkpoint-2", "checkpoint-4"]
    assert (tmp_path / "checkpoint-2" / "model.safetensors").read_bytes() == before


def test_a_step_written_again_is_replaced(tmp_path):
    checkpoints = finish(tmp_path, 2)
    before = (tmp_path / "checkpoint-2" / "model.safetensors").read_bytes()
    write(checkpoints, 2, value=1.0)
    checkpoints.finish(2)
    assert (tmp_path / "checkpoint-2" / "model.safetensors").read_bytes() != before
    assert names(tmp_path.iterdir()) == ["checkpoint-2"]


@pytest.mark.parametrize(
    ("limit", "keep", "left"),
    [
        (None, [], [2, 3, 4, 9]),
        (0, [], [2, 3, 4, 9]),
        (5, [], [2, 3, 4, 9]),
        (3, [], [2, 3, 9]),
        (2, [], [2, 3]),
        (1, [], [3]),
        (2, [4], [3, 4]),
        (1, [4], [3, 4]),
        (1, [9, 4], [3, 4, 9]),
    ],
)
def test_oldest_checkpoints_are_deleted_first(tmp_path, limit, keep, left):
    # As after resuming from an earlier checkpoint: fewer steps does not mean older.
    checkpoints = finish(tmp_path, 4, 9, 2, 3)
    checkpoints.remove_oldest(limit, [None, *(tmp_path / f"checkpoint-{step}" for step in keep)])
    assert checkpoints.all() == [tmp_path / f"checkpoint-{step}" for step in left]
    assert not checkpoints.unfinished.exists()


def test_checkpoints_without_a_manifest_are_the_oldest(tmp_path):
    checkpoints = finish(tmp_path, 4, 9, 2)
    (tmp_path / "checkpoint-9" / MANIFEST_NAME).unlink()
    checkpoints.remove_oldest(2)
    assert names(checkpoints.all()) == ["checkpoint-2", "checkpoint-4"]


def test_only_leftovers_are_deleted(tmp_path):
    checkpoints = finish(tmp_path, 2)
    write(checkpoints, 4)
    write(checkpoints, 2).rename(checkpoints.unfinished / "removed-checkpoint-2")
    checkpoints.clear_unfinished()
    assert names(tmp_path.iterdir()) == ["checkpoint-2"]
    checkpoints.unfinished.mkdir()
    (checkpoints.unfinished / "checkpoint-4.txt").write_text("mine")
    checkpoints.clear_unfinished()
    assert names(checkpoints.unfinished.iterdir()) == ["checkpoint-4.txt"]


def test_path_to_an_incomplete_checkpoint(tmp_path):
    finish(tmp_path, 2, 4, 6)
    require_complete(str(tmp_path / "checkpoint-6"))
    (tmp_path / "checkpoint-6" / "model.safetensors").write_bytes(b"half")
    message = (
        r"-6 is not a complete checkpoint: model.safetensors has 4 bytes instead of 76; resume from .*-4 instead \(if"
    )
    with pytest.raises(FileNotFoundError, match=message):
        require_complete(tmp_path / "checkpoint-6")
    with pytest.raises(FileNotFoundError, match=r"the folder is missing; resume from .*checkpoint-4 instead"):
        require_complete(tmp_path / "checkpoint-5")
    for step in (2, 4):
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").unlink()
    with pytest.raises(FileNotFoundError, match="its folder has no complete checkpoint"):
        require_complete(tmp_path / "checkpoint-6")


def test_killed_while_the_only_checkpoint_is_replaced(tmp_path):
    found = set()

    def attempt(change):
        checkpoints = finish(tmp_path / str(change), 2)
        write(checkpoints, 2, value=1.0)
        try:
            with killed_before(change):
                checkpoints.finish(2)
        except Killed:
            found.add(float(load_file(checkpoints.last_complete() / "model.safetensors")["weight"]))
            return False
        return True

    assert every_kill(attempt) > 5
    assert found == {0.0, 1.0}


def test_killed_while_one_is_deleted(tmp_path):
    def attempt(change):
        checkpoints = finish(tmp_path / str(change), 2, 4)
        try:
            with killed_before(change):
                checkpoints.remove_oldest(1)
        except Killed:
            assert checkpoints.incomplete() == {}
            assert checkpoints.last_complete().name == "checkpoint-4"
            checkpoints.clear_unfinished()
            assert not checkpoints.unfinished.exists()
            return False
        return True

    assert every_kill(attempt) > 4


@pytest.mark.parametrize("replaced", [False, True])
def test_another_process_looks_for_the_last_one_while_it_is_finished(tmp_path, monkeypatch, replaced):
    """As a run that starts from the last checkpoint of an active run in another folder."""
    checkpoints = finish(tmp_path, *[2] * replaced)
    write(checkpoints, 2, value=1.0)
    write_it, move_aside = run_checkpoints.write_manifest, checkpoints._move_aside
    look = RunCheckpoints(tmp_path).last_complete
    monkeypatch.setattr(
        run_checkpoints, "write_manifest", lambda *args, **options: (write_it(*args, **options), look())
    )
    monkeypatch.setattr(checkpoints, "_move_aside", lambda path: (move_aside(path), look())[0])
    place = checkpoints.finish(2)
    assert checkpoints.last_complete() == place
    assert float(load_file(place / "model.safetensors")["weight"]) == 1.0
    assert names(tmp_path.iterdir()) == ["checkpoint-2"]


def test_file_deleted_while_it_is_read(tmp_path, monkeypatch):
    place = finish(tmp_path, 2).path(2)
    (place / "model.safetensors").unlink()
    monkeypatch.setattr(type(place), "is_file", lambda path: True)
    monkeypatch.setattr(type(place), "is_dir", lambda path: True)
    assert RunCheckpoints(tmp_path).incomplete() == {place: ["model.safetensors is missing"]}
    assert RunCheckpoints(tmp_path).last_complete() is None  # nor does the folder of unfinished ones exist


def test_a_model_from_a_damaged_checkpoint_is_refused(tmp_path, caplog):
    require_intact_model("some/model")
    checkpoints = RunCheckpoints(tmp_path)
    draft = write(checkpoints, 2)
    for name in ("config.json", "optimizer.pt"):
        (draft / name).write_text("{}")
    place = checkpoints.finish(2)
    (place / "optimizer.pt").write_text("[]")  # only needed for training
    require_intact_model(place)
    assert not caplog.text
    (place / "config.json").write_text('{"n_samples": 3}')
    require_intact_model(str(place))
    assert f"{place}: config.json has changed since the run saved it" in caplog.text
    content = bytearray((place / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (place / "model.safetensors").write_bytes(content)
    with pytest.raises(
        FileNotFoundError, match=r"-2 has changed since the run saved it: model\.safetensors is damaged"
    ):
        require_intact_model(place)
