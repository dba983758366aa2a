import json
import shutil
import signal

import pytest
from safetensors.torch import load_file
from toy import ToyViews, largest_difference, make_trainer, weights_of
from transformers import EarlyStoppingCallback, TrainerCallback

from hf_gradalign.training import BestCheckpoints, SaveOnInterrupt, average_checkpoints

NAN = float("nan")
LOSSES = [0.5, 0.3, 0.9, 0.2, 0.4, 0.8, 0.7, 0.6]


def make(tmp_path, count, losses=LOSSES, **options):
    losses = dict(enumerate(losses, start=1))
    options = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1} | options
    trainer = make_trainer(
        tmp_path,
        eval_dataset=[item["clean"] for item in ToyViews(4)],
        average_best_checkpoints=count,
        metric_for_best_model="score",
        load_best_model_at_end=False,
        **{"save_total_limit": 1, "greater_is_better": False, **options},
    )
    trainer.compute_metrics = lambda _: {"score": losses[trainer.state.global_step]}
    return trainer


@pytest.mark.parametrize(("greater", "best"), [(False, [4, 2, 5]), (True, [3, 6, 7])])
def test_best_checkpoints_survive_the_trainers_deletions(tmp_path, greater, best):
    seen = {}
    trainer = make(tmp_path, 3, greater_is_better=greater)
    save = trainer._save_checkpoint
    trainer._save_checkpoint = lambda *args: (
        seen.update({trainer.state.global_step: weights_of(trainer)}),
        save(*args),
    )
    trainer.train()
    paths = BestCheckpoints.paths(trainer.args)
    assert [path.name for path in paths] == [f"step-{step}.safetensors" for step in best]
    assert len(list((tmp_path / "best_checkpoints").glob("*.safetensors"))) == 3
    for path, step in zip(paths, best, strict=True):
        assert all((value == seen[step][name]).all() for name, value in load_file(path).items())
    assert trainer.averaged_checkpoints == 3
    assert largest_difference(weights_of(trainer), average_checkpoints(paths)) == 0


def test_resumed_run_continues_its_record(tmp_path):
    make(tmp_path, 2, max_steps=5).train()
    record = json.loads((tmp_path / "best_checkpoints" / "best_checkpoints.json").read_text())
    assert [entry["step"] for entry in record] == [4, 2]
    resumed = make(tmp_path, 2)
    resumed.train(resume_from_checkpoint=True)
    assert [path.stem for path in BestCheckpoints.paths(resumed.args)] == ["step-4", "step-2"]


def test_record_moves_to_the_folder_of_a_resumed_run(tmp_path):
    options = {"eval_steps": 2, "save_steps": 1}  # some checkpoints are not evaluated
    make(tmp_path / "a", 2, max_steps=5, save_total_limit=None, **options).train()
    resumed = make(tmp_path / "b", 2, **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-5"))
    paths = BestCheckpoints.paths(resumed.args)
    assert paths == [tmp_path / "b" / "best_checkpoints" / f"step-{step}.safetensors" for step in (4, 2)]
    outside = tmp_path / "outside.safetensors"
    (tmp_path / "a" / "best_checkpoints" / "step-4.safetensors").rename(outside)
    (tmp_path / "a" / "best_checkpoints" / "step-4.safetensors").symlink_to(outside)
    with pytest.raises(PermissionError, match=r"step-4.safetensors is a link out"):
        make(tmp_path / "c", 2).train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-5"))


def test_entries_after_the_checkpoint_are_dropped(tmp_path):
    make(tmp_path, 2, save_total_limit=None).train()  # the best are those of steps 4 and 2
    make(tmp_path, 2, max_steps=3, save_total_limit=None).train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert [path.stem for path in BestCheckpoints.paths(make(tmp_path, 2).args)] == ["step-2", "step-3"]


def test_checkpoint_deleted_immediately_is_skipped(tmp_path):
    # The Trainer deletes by age of the folder: after a resume, it may delete one that it has just overwritten.
    trainer = make(tmp_path, 2, max_steps=3, save_total_limit=None)
    save = trainer._save_checkpoint

    def save_and_lose(*args):
        save(*args)
        shutil.rmtree(tmp_path / "checkpoint-2", ignore_errors=True)

    trainer._save_checkpoint = save_and_lose
    trainer.train()
    assert [path.stem for path in BestCheckpoints.paths(trainer.args)] == ["step-1", "step-3"]


def test_a_diverged_model_is_not_among_the_best(tmp_path):
    trainer = make(tmp_path, 3, losses=[0.5, NAN, 0.4, NAN, 0.3, 0.7, NAN, NAN])
    trainer.train()
    assert [path.stem for path in BestCheckpoints.paths(trainer.args)] == ["step-5", "step-3", "step-1"]
    always = make(tmp_path / "always", 3, losses=[NAN, NAN], max_steps=2)
    always.train()
    assert always.averaged_checkpoints == 0


def test_early_stopping_continues_after_a_resume(tmp_path):
    def run(folder, **options):
        return make(tmp_path / folder, 1, early_stopping_patience=3, **options)

    whole = run("whole")
    whole.train()
    assert whole.state.global_step == 7  # step 4 is the best, and three more are not better
    whole.train()
    assert whole.state.global_step == 7  # a new run counts from zero
    run("parts", max_steps=6).train()
    parts = run("parts")
    parts.train(resume_from_checkpoint=True)
    assert parts.state.global_step == 7
    # Once stopped, it stays stopped.
    stopped = run("parts")
    stopped.train(resume_from_checkpoint=True)
    assert stopped.state.global_step == 7


def test_callbacks_of_the_user_replace_those_of_the_trainer(tmp_path):
    callbacks = [EarlyStoppingCallback(1), BestCheckpoints(2)]
    trainer = make(tmp_path, 3, callbacks=callbacks, early_stopping_patience=3)
    trainer.train()
    assert trainer.state.global_step == 3
    assert trainer.averaged_checkpoints == 2


class InterruptAtOnce(TrainerCallback):
    def on_step_begin(self, *args, **kwargs):
        signal.raise_signal(signal.SIGINT)


def test_an_interrupted_run_is_not_averaged(tmp_path):
    trainer = make(tmp_path, 2, callbacks=[SaveOnInterrupt(), InterruptAtOnce()])
    trainer.train()
    assert trainer.state.global_step == 1
    assert trainer.averaged_checkpoints == 0


def damage(path):
    content = bytearray(path.read_bytes())
    content[-8:] = bytes(8)
    path.write_bytes(content)


def test_damaged_weights_are_not_averaged(tmp_path, caplog):
    trainer = make(tmp_path, 3)
    trainer.train()
    best, *others = BestCheckpoints.paths(trainer.args)
    damage(best)
    others[0].unlink()
    assert BestCheckpoints.paths(trainer.args) == others[1:]
    assert f"{best} is damaged" in caplog.text
    assert f"{others[0]} is missing" in caplog.text
    damage(others[1])
    with pytest.raises(FileNotFoundError, match=r"All best checkpoints .* --average_best_checkpoints 1 to keep"):
        BestCheckpoints.paths(trainer.args)


def test_a_damaged_checkpoint_is_not_averaged(tmp_path):
    make(tmp_path, 2, save_total_limit=None, max_steps=3).train()
    average_checkpoints([tmp_path / "checkpoint-2", tmp_path / "checkpoint-3"])
    damage(tmp_path / "checkpoint-2" / "model.safetensors")
    with pytest.raises(ValueError, match=r"checkpoint-2/model.safetensors is damaged: .*; average without it"):
        average_checkpoints([tmp_path / "checkpoint-2", tmp_path / "checkpoint-3"])


@pytest.mark.parametrize(
    "damage", [lambda text: text[:40], lambda text: text.replace("0.2", "0.7"), lambda text: "[1]"]
)
def test_damaged_record_is_rebuilt(tmp_path, caplog, damage):
    make(tmp_path, 2, max_steps=5).train()
    path = tmp_path / "best_checkpoints" / "best_checkpoints.json"
    sound = path.read_text()
    path.write_text(damage(sound))
    resumed = make(tmp_path, 2)
    resumed.train(resume_from_checkpoint=True)
    assert f"{path} is damaged" in caplog.text
    assert [each.stem for each in BestCheckpoints.paths(resumed.args)] == ["step-4", "step-2"]
    assert path.read_text() == sound
