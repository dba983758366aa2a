"""A run that is killed while saving loses nothing, whatever was written so far."""

import shutil

import pytest
import torch
from kill_simulation import Killed, every_kill, killed_before
from toy import ToyViews, make_model, make_trainer, weights_of

from hf_gradalign.training import BestCheckpoints
from hf_gradalign.training.run_checkpoints import RunCheckpoints

LOSSES = {1: 0.5, 2: 0.4, 3: 0.6, 4: 0.3}


def make(folder, **options):
    """Four updates with an evaluation and a checkpoint each. One checkpoint is kept in addition to the best."""
    trainer = make_trainer(
        folder,
        model=make_model(dropout=0.2),
        eval_dataset=[item["clean"] for item in ToyViews(4)],
        max_steps=4,
        align_gradients="gradvac",
        save_strategy="steps",
        save_steps=1,
        save_total_limit=1,
        eval_strategy="steps",
        eval_steps=1,
        logging_steps=3,
        average_best_checkpoints=2,
        metric_for_best_model="score",
        greater_is_better=False,
        **options,
    )
    trainer.compute_metrics = lambda _: {"score": LOSSES[trainer.state.global_step]}
    return trainer


def train_until_killed(trainer, step, change, resume):
    """Train, but get killed while a step's checkpoint is saved or its callbacks run."""
    save = trainer._maybe_log_save_evaluate

    def dying(*args, **kwargs):
        if trainer.state.global_step != step:
            return save(*args, **kwargs)
        with killed_before(change):
            return save(*args, **kwargs)

    trainer._maybe_log_save_evaluate = dying
    try:
        trainer.train(resume_from_checkpoint=resume)
    except Killed:
        return True
    return False


@pytest.mark.parametrize("step", [pytest.param(1, marks=[pytest.mark.slow, pytest.mark.long]), 2])
def test_killed_before_every_change_to_the_disk(tmp_path, step):
    whole = make(tmp_path / "whole")
    whole.train()
    expected = [path.stem for path in BestCheckpoints.paths(whole.args)]
    assert expected == ["step-4", "step-2"]
    before = tmp_path / "before"
    if step > 1:
        assert train_until_killed(make(before), step, 0, None)
    resumed_at = set()

    def attempt(change):
        folder = tmp_path / str(change)
        if step > 1:
            shutil.copytree(before, folder)
        if not train_until_killed(make(folder), step, change, step > 1):
            return True
        checkpoints = RunCheckpoints(folder)
        assert checkpoints.incomplete() == {}  # transformers must not find an incomplete one
        last = checkpoints.last_complete()
        resumed_at.add(None if last is None else int(last.name.split("-")[1]))
        resumed = make(folder)
        resumed.train(resume_from_checkpoint=last is not None)
        assert all(torch.equal(value, weights_of(whole)[name]) for name, value in weights_of(resumed).items())
        assert [path.stem for path in BestCheckpoints.paths(resumed.args)] == expected
        assert resumed.alignment_method.state_dict() == whole.alignment_method.state_dict()
        assert resumed.conflict_counts.state_dict() == whole.conflict_counts.state_dict()
        # The same files are left as by the uninterrupted run.
        left = [sorted(path.relative_to(root) for path in root.rglob("*")) for root in (folder, tmp_path / "whole")]
        assert left[0] == left[1]
        return False

    assert every_kill(attempt) > 20
    # Before the checkpoint was complete, and after.
    assert resumed_at == {None if step == 1 else step - 1, step}


def test_the_killed_half_is_taken_up_by_an_ordinary_start_too(tmp_path):
    train_until_killed(make(tmp_path), 2, 5, None)
    assert RunCheckpoints(tmp_path).unfinished.is_dir()
    make(tmp_path).train()
    assert not RunCheckpoints(tmp_path).unfinished.exists()
