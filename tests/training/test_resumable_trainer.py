import json
import shutil
import signal

import pytest
import torch
from toy import ToyViews, make_trainer, weights_of
from transformers import Trainer

from hf_gradalign.training.checkpoint_integrity import MANIFEST_NAME

SAVING = {"save_strategy": "steps", "save_steps": 1, "max_steps": 6, "align_gradients": "gradvac", "logging_steps": 4}


def make(folder, **options):
    return make_trainer(folder, **{**SAVING, **options})


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    trainer = make(tmp_path_factory.mktemp("whole"))
    trainer.train()
    return trainer


@pytest.fixture
def run(whole, tmp_path):
    """A copy of the run's folder after five updates, with an incomplete last checkpoint."""
    folder = shutil.copytree(whole.args.output_dir, tmp_path / "run")
    shutil.rmtree(folder / "checkpoint-6")
    path = folder / "checkpoint-5" / "optimizer.pt"
    path.write_bytes(path.read_bytes()[:-100])
    return folder


def assert_same_end(first, second):
    assert all(torch.equal(value, weights_of(second)[name]) for name, value in weights_of(first).items())
    assert first.alignment_method.state_dict() == second.alignment_method.state_dict()


@pytest.mark.parametrize("has_manifest", [True, False])
def test_resumes_from_the_last_complete_checkpoint(run, whole, caplog, has_manifest):
    if not has_manifest:
        for path in run.glob(f"checkpoint-*/{MANIFEST_NAME}"):
            path.unlink()
    resumed = make(run)
    resumed.train(resume_from_checkpoint=True)
    assert f"{run}/checkpoint-5 is not complete and is skipped: optimizer.pt" in caplog.text
    assert_same_end(resumed, whole)
    # Once rewritten, the checkpoint is complete.
    make(run).train(resume_from_checkpoint=str(run / "checkpoint-5"))


DAMAGED = ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "alignment_state.json"]


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_checkpoint_is_skipped(run, whole, caplog, name):
    shutil.rmtree(run / "checkpoint-5")
    path = run / "checkpoint-4" / name
    size = path.stat().st_size
    with path.open("rb+") as file:
        file.seek(size // 2)
        file.write(b"7" * min(40, size // 3))
    assert path.stat().st_size == size
    with pytest.raises(FileNotFoundError, match=rf"-4 is not .*: {name} is damaged: .*; resume from .*-3 instead"):
        make(run).train(resume_from_checkpoint=str(run / "checkpoint-4"))
    resumed = make(run)
    resumed.train(resume_from_checkpoint=True)
    assert f"{run}/checkpoint-4 is not complete and is skipped: {name} is damaged" in caplog.text
    assert_same_end(resumed, whole)


@pytest.mark.parametrize(("name", "is_refused"), [("model.safetensors", True), ("optimizer.pt", False)])
def test_a_damaged_best_checkpoint_is_not_loaded(tmp_path, name, is_refused):
    def trainer(**options):
        made = make(
            tmp_path,
            eval_dataset=[item["clean"] for item in ToyViews(4)],
            eval_strategy="steps",
            eval_steps=1,
            greater_is_better=False,
            **{"metric_for_best_model": "score", "load_best_model_at_end": True, **options},
        )
        made.compute_metrics = lambda _: {"score": abs(made.state.global_step - 2)}
        return made

    first = trainer()
    save = first._save_checkpoint

    def save_and_damage(*args):
        save(*args)
        if first.state.global_step == 2:
            path = tmp_path / "checkpoint-2" / name
            content = bytearray(path.read_bytes())
            content[-40:] = bytes(40)
            path.write_bytes(content)

    first._save_checkpoint = save_and_damage
    if not is_refused:
        first.train()
        return
    with pytest.raises(FileNotFoundError, match=r"best checkpoint, .*-2, cannot be loaded: model.safetensors is dam"):
        first.train()
    trainer(load_best_model_at_end=False).train(resume_from_checkpoint=True)  # as the message says


@pytest.mark.parametrize("copied", [False, True])
def test_a_run_that_was_moved_or_copied_ends_with_its_best_checkpoint(tmp_path, caplog, copied):
    def trainer(folder):
        made = make(
            tmp_path / folder,
            eval_dataset=[item["clean"] for item in ToyViews(4)],
            **{"eval_strategy": "steps", "eval_steps": 1, "greater_is_better": False},
            **{"metric_for_best_model": "score", "load_best_model_at_end": True},
        )
        made.compute_metrics = lambda _: {"score": abs(made.state.global_step - 2)}
        return made

    whole = trainer("run")
    whole.train()
    (shutil.copytree if copied else shutil.move)(tmp_path / "run", tmp_path / "other")
    if copied:  # the original folder belongs to another run now
        shutil.rmtree(tmp_path / "run" / "checkpoint-2")
        shutil.copytree(tmp_path / "run" / "checkpoint-5", tmp_path / "run" / "checkpoint-2")
    resumed = trainer("other")
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.best_model_checkpoint == str(tmp_path / "other" / "checkpoint-2")
    assert_same_end(resumed, whole)
    assert "does not exist anymore" not in caplog.text
    if not copied:
        shutil.rmtree(tmp_path / "other" / "checkpoint-2")
        trainer("other").train(resume_from_checkpoint=True)
        assert "The best checkpoint so far, checkpoint-2, is no longer in" in caplog.text


def test_incomplete_checkpoint_by_name_is_refused(run):
    with pytest.raises(FileNotFoundError, match=r"-5 is not a complete .*: optimizer.pt .*; resume from .*-4 in"):
        make(run).train(resume_from_checkpoint=str(run / "checkpoint-5"))


def test_no_complete_checkpoint_to_resume_from(run, tmp_path):
    for step in (1, 2, 3, 4):
        shutil.rmtree(run / f"checkpoint-{step}")
    with pytest.raises(ValueError, match=r"No valid checkpoint found .* incomplete ones \(checkpoint-5: optimizer"):
        make(run).train(resume_from_checkpoint=True)
    with pytest.raises(ValueError, match=r"No valid checkpoint found .*empty\); to start over, train without"):
        make(tmp_path / "empty").train(resume_from_checkpoint=True)


def test_ordinary_trainers_run_can_be_resumed(tmp_path):
    items = [item["clean"] for item in ToyViews()]
    options = {"dataset": items, "align_gradients": "none"}
    make(tmp_path, trainer_class=Trainer, max_steps=3, **options).train()
    resumed = make(tmp_path, **options)
    resumed.train(resume_from_checkpoint=True)
    whole = make(tmp_path / "whole", trainer_class=Trainer, **options)
    whole.train()
    assert all(torch.equal(value, weights_of(whole)[name]) for name, value in weights_of(resumed).items())


@pytest.mark.parametrize("limit", [1, 2])
def test_the_best_checkpoint_stays_under_its_name(tmp_path, limit):
    losses = {1: 0.5, 2: 0.3, 3: 0.4, 4: 0.6, 5: 0.7, 6: 0.8}

    def trainer(steps):
        made = make(
            tmp_path,
            max_steps=steps,
            eval_dataset=[item["clean"] for item in ToyViews(4)],
            eval_strategy="steps",
            eval_steps=1,
            save_total_limit=limit,
            metric_for_best_model="score",
            greater_is_better=False,
            load_best_model_at_end=True,
        )
        made.compute_metrics = lambda _: {"score": losses[made.state.global_step]}
        return made

    first = trainer(5)
    first.train()
    assert first.state.best_model_checkpoint == f"{tmp_path}/checkpoint-2"
    state = json.loads((tmp_path / "checkpoint-2" / "trainer_state.json").read_text())
    assert state["best_model_checkpoint"] == f"{tmp_path}/checkpoint-2"
    # With a limit of 1, the base class only keeps the best when training ends.
    left = {"checkpoint-2"} if limit == 1 else {"checkpoint-2", "checkpoint-5"}
    assert {path.name for path in tmp_path.iterdir()} == left


def test_pushes_checkpoints_from_their_final_place(tmp_path, monkeypatch):
    pushed = []
    trainer = make(tmp_path, max_steps=2)
    trainer.args.push_to_hub = True
    monkeypatch.setattr(
        Trainer,
        "_push_from_checkpoint",
        lambda self, folder: pushed.append((folder, sorted(p.name for p in tmp_path.glob("checkpoint-*")))),
    )
    trainer.train()
    places = [f"{tmp_path}/checkpoint-{step}" for step in (1, 2)]
    assert pushed == [(places[0], ["checkpoint-1"]), (places[1], ["checkpoint-1", "checkpoint-2"])]


def test_saving_in_the_middle_of_an_update_is_refused(tmp_path):
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(ValueError, match=r"--enable_jit_checkpoint saves in the middle .* SaveOnInterrupt"):
            make(tmp_path, enable_jit_checkpoint=True)
    finally:
        signal.signal(signal.SIGTERM, handler)
