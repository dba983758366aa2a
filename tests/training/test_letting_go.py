"""A trainer without references is freed at once, with the workers of its loaders; no workers are left.

Processes are counted, not seconds: a worker that waits for the cyclic collector is still there.
"""

import contextlib
import gc
import multiprocessing
import weakref

import pytest
import torch
from toy import ToyViews, collate, make_arguments, make_model, make_trainer

from hf_gradalign.training import GradientAlignmentTrainer

WORKERS = {"dataloader_num_workers": 2, "dataloader_persistent_workers": True}
EVALUATED = {"eval_strategy": "steps", "eval_steps": 2}


@pytest.fixture(autouse=True)
def _no_cyclic_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()
    gc.collect()


def count_workers():
    return len(multiprocessing.active_children())


def trainer_with_workers(folder, **options):
    evaluated = ToyViews(12, ["clean"])
    evaluated_items = [evaluated[i]["clean"] for i in range(12)]
    options = {"max_steps": 4, "eval_dataset": evaluated_items, **WORKERS, **options}
    return make_trainer(folder, **options)


@pytest.fixture(autouse=True)
def _collects_by_itself(monkeypatch):
    # accelerate collects garbage at the start of every training, which would hide leftovers.
    monkeypatch.setattr("accelerate.utils.memory.gc.collect", lambda *args: 0)


@pytest.mark.parametrize(
    "options",
    [
        {},
        EVALUATED,
        pytest.param({"conflict_record": "jsonl", "conflict_record_modules": True}, marks=pytest.mark.slow),
        pytest.param({"auto_find_batch_size": True}, marks=pytest.mark.slow),
        pytest.param({"bf16": True}, marks=pytest.mark.slow),
    ],
    ids=lambda options: " ".join(options) or "plain",
)
def test_a_trainer_is_released_with_its_workers(tmp_path, options):
    trainer = trainer_with_workers(tmp_path, **options)
    trainer.train()
    assert count_workers() == (4 if "eval_strategy" in options else 2)
    alive = weakref.ref(trainer)
    del trainer
    assert alive() is None
    assert count_workers() == 0


@pytest.mark.slow
def test_a_second_training_has_one_set_of_workers(tmp_path):
    trainer = trainer_with_workers(tmp_path, **EVALUATED)
    for _ in range(3):
        trainer.train()
        assert count_workers() == 4
    del trainer
    assert count_workers() == 0


def test_two_trainers_in_a_row(tmp_path):
    losses = []
    trainer = None
    for folder in ("first", "second"):
        trainer = trainer_with_workers(tmp_path / folder, **EVALUATED)  # replaces the previous trainer
        losses.append(trainer.train().training_loss)
        assert count_workers() == 4
    assert losses[0] == losses[1]


def test_predicting_leaves_no_workers(tmp_path):
    trainer = trainer_with_workers(tmp_path)
    items = trainer.eval_dataset
    assert len(trainer.predict(items).predictions) == 12
    assert count_workers() == 0
    trainer.evaluate()
    assert count_workers() == 2  # these persist, for the next evaluation
    trainer.predict(items)
    assert count_workers() == 2


@pytest.mark.slow
def test_each_evaluation_set_has_its_own_workers(tmp_path):
    trainer = trainer_with_workers(tmp_path)
    other = [{**item, "labels": 1 - item["labels"]} for item in trainer.eval_dataset]
    own, swapped = trainer.evaluate()["eval_loss"], trainer.evaluate(other)["eval_loss"]
    assert count_workers() == 2
    without = make_trainer(tmp_path / "plain")
    assert own == without.evaluate(trainer.eval_dataset)["eval_loss"]
    assert swapped == without.evaluate(other)["eval_loss"] != own
    assert trainer.evaluate()["eval_loss"] == own


def test_several_data_sets_keep_their_workers(tmp_path):
    items = [ToyViews(12)[i]["clean"] for i in range(12)]
    trainer = trainer_with_workers(tmp_path, eval_dataset={"first": items[:6], "second": items[6:]})
    first = trainer.evaluate()
    assert trainer.evaluate()["eval_first_loss"] == first["eval_first_loss"] != first["eval_second_loss"]
    assert count_workers() == 4
    given = trainer.evaluate({"a": items[:6], "b": items[6:]})
    assert [given["eval_a_loss"], given["eval_b_loss"]] == [first["eval_first_loss"], first["eval_second_loss"]]


def test_failed_training_leaves_no_workers(tmp_path):
    dataset = ToyViews()
    dataset.clean[40] = torch.nan

    def fail(inputs):
        if any(view["x"].isnan().any() for view in inputs.values()):
            raise FloatingPointError("nan")
        return inputs

    trainer = GradientAlignmentTrainer(
        make_model(),
        make_arguments(tmp_path, **WORKERS),
        train_dataset=dataset,
        data_collator=collate,
        batch_transform=fail,
    )
    with contextlib.suppress(FloatingPointError):  # pytest.raises would keep the traceback, and with it the trainer
        trainer.train()
        pytest.fail("did not raise")
    del trainer
    assert count_workers() == 0
