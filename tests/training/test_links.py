"""Links out of a run's folder: nothing outside is written, truncated or deleted."""

import os

import pytest
from toy import ToyViews, make_trainer

from hf_gradalign.experiment import resolve_output_folder
from hf_gradalign.training import RunCheckpoints
from hf_gradalign.training.conflicts.record import ConflictRecord
from hf_gradalign.training.run_checkpoints import refuse_outside_links
from hf_gradalign.utils.files import write_text_atomically

ROW = {"step": 1, "epoch": 0.5, "conflict": False, "grad_norm_clean": 1.0}


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


@pytest.fixture
def outside(tmp_path):
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "mine.safetensors").write_text("mine")
    (folder / "mine.jsonl").write_text("mine\n")
    (folder / "checkpoint-1").mkdir()
    (folder / "checkpoint-1" / "mine.txt").write_text("mine")
    yield folder
    assert sorted(path.name for path in folder.rglob("*")) == [
        "checkpoint-1",
        "mine.jsonl",
        "mine.safetensors",
        "mine.txt",
    ]
    assert (folder / "mine.jsonl").read_text() == "mine\n"


def train(run, **options):
    options = {"save_strategy": "steps", "save_steps": 1, "max_steps": 3, "save_total_limit": 1, **options}
    trainer = make_trainer(
        run,
        eval_dataset=[item["clean"] for item in ToyViews(4)],
        average_best_checkpoints=2,
        metric_for_best_model="loss",
        eval_strategy="steps",
        eval_steps=1,
        conflict_record="jsonl",
        **options,
    )
    trainer.train()


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("best_checkpoints", ""),
        ("_unfinished_checkpoints", ""),
        ("checkpoint-1", "checkpoint-1"),
        ("conflicts.jsonl", "mine.jsonl"),
        ("conflicts.jsonl", "not there.jsonl"),
        ("conflicts.parquet", "mine.jsonl"),
        ("_conflicts.jsonl", "mine.jsonl"),
        ("model.safetensors", "mine.safetensors"),
        ("trainer_state.json", "mine.jsonl"),
        ("training_args.bin", "mine.jsonl"),
        ("README.md", "mine.jsonl"),
        ("scores_test.txt", "mine.jsonl"),
        ("best_checkpoints/step-1.safetensors", "mine.safetensors"),
        ("best_checkpoints/best_checkpoints.json", "mine.jsonl"),
        ("checkpoint-1/model.safetensors", "mine.safetensors"),
        ("checkpoint-1/deeper/still", ""),
        ("_unfinished_checkpoints/checkpoint-2", "checkpoint-1"),
    ],
)
@pytest.mark.parametrize("is_relative", [False, True])
def test_links_are_refused_before_training(run, outside, name, target, is_relative):
    link = run / name
    link.parent.mkdir(parents=True, exist_ok=True)
    path = outside / target
    link.symlink_to(os.path.relpath(path, link.parent) if is_relative else path)
    message = rf"{name} is a link out of the run's folder, to {path}, so nothing .*: remove the link"
    with pytest.raises(PermissionError, match=message):
        train(run)
    (run / "run_arguments.json").write_text("{}")
    with pytest.raises(PermissionError, match=message):
        resolve_output_folder(str(run), "last", "pcgrad")
    assert link.is_symlink()


def test_other_links_are_allowed(run, outside, tmp_path):
    (run / "data").symlink_to(outside)  # not written by a run
    (run / "best.safetensors").symlink_to("checkpoint-2/model.safetensors")  # stays within the folder
    alias = tmp_path / "alias"
    alias.symlink_to(run)
    train(alias)
    assert (run / "checkpoint-3" / "model.safetensors").is_file()


def test_links_created_during_training(run, outside):
    train(run)
    checkpoints = RunCheckpoints(run)
    (run / "checkpoint-1").symlink_to(outside / "checkpoint-1")
    checkpoints.remove(run / "checkpoint-1")  # deletes the link, not its target
    assert not (run / "checkpoint-1").is_symlink()
    assert not checkpoints.unfinished.exists()
    checkpoints.unfinished.symlink_to(outside)
    for deletion in (checkpoints.clear_unfinished, lambda: checkpoints.remove(run / "checkpoint-3")):
        with pytest.raises(PermissionError, match="_unfinished_checkpoints is a link out of"):
            deletion()
    checkpoints.unfinished.unlink()

    checkpoints.unfinished.mkdir()
    (checkpoints.unfinished / "checkpoint-9").symlink_to(outside / "checkpoint-1")
    checkpoints.clear_unfinished()
    assert not checkpoints.unfinished.exists()
    refuse_outside_links(run)


@pytest.mark.parametrize("target", ["mine.jsonl", "not there.jsonl"])
def test_a_record_that_becomes_a_link(run, outside, target):
    record = ConflictRecord(run, "parquet")
    record.begin(0)
    (run / "conflicts.jsonl").symlink_to(outside / target)
    for use in (lambda: record.append([ROW]), lambda: record.begin(1), lambda: record.begin(0)):
        with pytest.raises(PermissionError, match=r"conflicts.jsonl is a link out of"):
            use()
    (run / "conflicts.jsonl").unlink()
    record.append([ROW])
    (run / "_conflicts.parquet").symlink_to(outside / target)
    record.finish()
    (run / "_conflicts.jsonl").symlink_to(outside / target)
    assert record.begin(1) == 1


def test_a_draft_that_is_a_link(run, outside):
    (run / "results.json.draft").symlink_to(outside / "mine.jsonl")
    write_text_atomically(run / "results.json", "{}")
    assert (run / "results.json").read_text() == "{}"
    assert not (run / "results.json").is_symlink()
