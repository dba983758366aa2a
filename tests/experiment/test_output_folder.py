import re

import pytest
import torch
from safetensors.torch import save_file

from hf_gradalign.experiment import remove_replaced, resolve_output_folder, set_aside


def make_checkpoint(run, step):
    folder = run / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    save_file({"weight": torch.zeros(2)}, folder / "model.safetensors")
    (folder / "trainer_state.json").write_text("{}")
    return folder


def test_every_run_gets_a_new_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = set()
    for _ in range(3):
        folder, checkpoint = resolve_output_folder(None, None, "pcgrad")
        assert checkpoint is None
        assert folder.startswith("runs/")
        assert "pcgrad" in folder
        assert (tmp_path / folder).is_dir()  # at once: another run may be started in the same second
        folders.add(folder)
    assert len(folders) == 3


def test_a_new_folder_needs_no_quotes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder, _ = resolve_output_folder(None, None, "crmogm(aligned_mtl)")
    assert folder.endswith("_crmogm-aligned_mtl")


def test_a_named_folder_may_exist_but_not_hold_a_run(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    assert resolve_output_folder(str(tmp_path), None, "") == (str(tmp_path), None)
    make_checkpoint(tmp_path, 3)
    with pytest.raises(FileExistsError, match=r"already contains a run \(checkpoint-3\).*--resume_from_checkpoint"):
        resolve_output_folder(str(tmp_path), None, "")


@pytest.mark.parametrize(
    "name", ["README.md", "scores_test.txt", "conflicts.jsonl", "figures", "preprocessor_config.json", "heads.py"]
)
def test_files_of_others_are_not_replaced(tmp_path, name):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / name).symlink_to("nowhere")  # a link that leads nowhere is theirs, too
    for resume_from in (None, "last"):
        with pytest.raises(FileExistsError, match=rf"would replace \({re.escape(name)}\).*--overwrite"):
            resolve_output_folder(str(tmp_path), resume_from, "")
        assert resolve_output_folder(str(tmp_path), resume_from, "", overwrite=True) == (str(tmp_path), None)


def test_leftovers_of_a_run_killed_early_do_not_block_others(tmp_path):
    for name in ("run_arguments.json", "conflicts.jsonl", "run_fingerprint.json"):
        (tmp_path / name).write_text("{}")
    assert resolve_output_folder(str(tmp_path), None, "") == (str(tmp_path), None)
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(FileExistsError, match=r"\(README.md\)"):
        resolve_output_folder(str(tmp_path), None, "")


def test_replaced_files_are_kept_until_the_run_is_complete(tmp_path, caplog):
    for name in ("README.md", "all_results.json", "notes.txt", "_replaced.txt"):
        (tmp_path / name).write_text(f"first {name}")
    make_checkpoint(tmp_path, 3)
    assert resolve_output_folder(str(tmp_path), None, "", overwrite=True) == (str(tmp_path), None)
    set_aside(tmp_path)
    assert "README.md, all_results.json, checkpoint-3 are kept in" in caplog.text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["_replaced", "_replaced.txt", "notes.txt"]
    assert (tmp_path / "_replaced" / "README.md").read_text() == "first README.md"
    (tmp_path / "README.md").write_text("second")
    set_aside(tmp_path)  # the run that was to replace it was killed and started again
    assert (tmp_path / "_replaced" / "README.md").read_text() == "first README.md"
    assert (tmp_path / "_replaced_2" / "README.md").read_text() == "second"
    remove_replaced(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["_replaced.txt", "notes.txt"]
    set_aside(tmp_path)
    assert not (tmp_path / "_replaced").exists()


@pytest.mark.parametrize("name", ["all_results.json", "model.safetensors", "config.json"])
def test_a_finished_run_is_not_overwritten(tmp_path, name):
    (tmp_path / name).write_text("{}")
    with pytest.raises(FileExistsError, match=f"already contains a run .{name}"):
        resolve_output_folder(str(tmp_path), None, "")


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(FileExistsError, match="out is a file"):
        resolve_output_folder(str(tmp_path / "out"), None, "")


def test_checkpoint_to_resume_from(tmp_path):
    run = tmp_path / "run"
    make_checkpoint(run, 2)
    last = make_checkpoint(run, 10)
    assert resolve_output_folder(None, str(run), "") == (str(run), str(last))
    assert resolve_output_folder(str(run), "last", "") == (str(run), str(last))
    assert resolve_output_folder(None, str(run / "checkpoint-2"), "") == (str(run), str(run / "checkpoint-2"))
    other = str(tmp_path / "other")
    assert resolve_output_folder(other, str(run / "checkpoint-2"), "") == (other, str(run / "checkpoint-2"))


def test_another_run_is_not_overwritten_by_a_resumed_one(tmp_path):
    make_checkpoint(tmp_path / "run", 2)
    make_checkpoint(tmp_path / "finished", 9)
    with pytest.raises(FileExistsError, match="finished already contains a run"):
        resolve_output_folder(str(tmp_path / "finished"), str(tmp_path / "run"), "")


def test_nothing_to_resume_from(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"give the run.s folder as --output_dir"):
        resolve_output_folder(None, "last", "")
    with pytest.raises(FileNotFoundError, match="there is no checkpoint at"):
        resolve_output_folder(None, str(tmp_path / "typo"), "")
    with pytest.raises(FileNotFoundError, match="has no checkpoint to resume from"):
        resolve_output_folder(None, str(tmp_path), "")


def test_incomplete_checkpoints_are_passed_over(tmp_path):
    run = tmp_path / "run"
    whole, half = make_checkpoint(run, 2), make_checkpoint(run, 4)
    (half / "trainer_state.json").unlink()
    assert resolve_output_folder(str(run), "last", "") == (str(run), str(whole))
    with pytest.raises(FileNotFoundError, match=r"-4 is not .* trainer_state.json is missing; resume from .*point-2"):
        resolve_output_folder(None, str(half), "")
    (whole / "model.safetensors").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"to resume from \(checkpoint-2: model.safetensors is cut"):
        resolve_output_folder(str(run), "last", "")


def test_one_command_line_for_every_start(tmp_path, caplog):
    run = tmp_path / "run"
    begin_anew = (str(run), None)
    assert resolve_output_folder(str(run), "last", "") == begin_anew  # the first start
    run.mkdir()
    (run / "run_arguments.json").write_text("{}")
    (run / "config.json").write_text("{}")
    (run / "checkpoint-4").mkdir()
    caplog.clear()
    assert resolve_output_folder(str(run), "last", "") == begin_anew  # killed before the first checkpoint was complete
    assert f"{run} has no complete checkpoint to resume from, so the run starts over" in caplog.text
    assert resolve_output_folder(None, str(run), "") == begin_anew
    (run / "all_results.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="has no checkpoint to resume from"):
        resolve_output_folder(str(run), "last", "")  # finished, and its checkpoints deleted


def test_folder_of_another_model_has_no_checkpoint(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="has no checkpoint to resume from"):
        resolve_output_folder(str(tmp_path), "last", "")
    with pytest.raises(FileNotFoundError, match="there is no checkpoint at"):
        resolve_output_folder(str(tmp_path / "config.json"), "last", "")
