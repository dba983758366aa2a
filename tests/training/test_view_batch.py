import pickle
import random

import numpy as np
import pytest
import torch
from datasets import Dataset
from toy import ToyViews, collate, make_arguments, make_model
from transformers import BatchEncoding, DefaultDataCollator, default_data_collator

from hf_gradalign.training import GradientAlignmentTrainer, ViewBatchCollator
from hf_gradalign.training.dataset_checks import check_datasets
from hf_gradalign.training.view_batch import check_same_views, wrap_longest_views


def item(value, label=1):
    return {"x": torch.full((2,), value), "label": label}


def test_each_view_is_collated_separately():
    items = [{"clean": item(1.0, 0), "augmented": item(2.0, 0)}, {"clean": item(3.0), "augmented": item(4.0)}]
    batch = ViewBatchCollator()(items)
    assert list(batch) == ["clean", "augmented"]
    assert batch["clean"]["x"].tolist() == [[1, 1], [3, 3]]
    assert batch["augmented"]["x"].tolist() == [[2, 2], [4, 4]]
    assert batch["augmented"]["labels"].tolist() == [0, 1]


def test_items_without_views_go_to_the_collator():
    batch = ViewBatchCollator()([item(1.0), item(2.0)])
    assert batch["x"].tolist() == [[1, 1], [2, 2]]
    assert batch["labels"].tolist() == [1, 1]


def test_any_collator_and_any_mapping():
    collator = ViewBatchCollator(lambda items: len(items))
    assert collator([{"clean": BatchEncoding({"input_ids": [1]})}] * 3) == {"clean": 3}
    assert collator([object()] * 2) == 2


def test_default_collator_fails_without_it():
    # If this no longer fails, ViewBatchCollator is less necessary.
    with pytest.raises(Exception, match="dict"):
        default_data_collator([{"clean": item(1.0)}])


@pytest.mark.parametrize("other", [{}, {"clean": item(1.0)}, {"clean": item(1.0), "noisy": item(1.0)}])
def test_items_with_other_views_are_refused(other):
    first = {"clean": item(1.0), "augmented": item(2.0)}
    with pytest.raises(ValueError, match="every item needs the same views, got clean, augmented and"):
        ViewBatchCollator()([first, other])


def test_it_can_be_sent_to_a_spawned_worker():
    collator = pickle.loads(pickle.dumps(ViewBatchCollator()))
    assert collator([{"clean": item(1.0)}])["clean"]["x"].tolist() == [[1, 1]]


def test_inputs_next_to_views():
    mixed = {"clean": {"x": torch.ones(2)}, "augmented": {"x": torch.ones(2)}, "labels": 1}
    with pytest.raises(
        ValueError, match=r"has labels next to mappings \(clean, augmented\)\. If the mappings are views, each needs"
    ):
        ViewBatchCollator()([mixed])
    # Such items are fine if the collator takes them, as boxes in detection.
    assert ViewBatchCollator(len)([mixed]) == 1


def test_data_sets_that_samplers_can_use_unchanged():
    ordinary, stream = [{"x": [1, 2]}], iter([])
    table = Dataset.from_list([{"clean": {"x": [1, 2]}, "length": 2}])
    for dataset in (ordinary, stream, table):
        assert wrap_longest_views(dataset, "length") is dataset
    views = {"clean": {"x": [3], "label": 1}, "augmented": {"x": [1, 2], "label": 1}}
    (longest,) = wrap_longest_views([views], "length")
    assert longest == {"x": [1, 2], "label": 1}


def trainer_of(tmp_path, **options):
    training = {"eval_strategy": "steps", "eval_steps": 1} if "eval_dataset" in options else {}
    arguments = make_arguments(tmp_path, max_steps=1, align_gradients="pcgrad", **training)
    return GradientAlignmentTrainer(make_model(), arguments, train_dataset=ToyViews(), **options)


@pytest.mark.parametrize("collator", [default_data_collator, DefaultDataCollator()])
def test_trainer_applies_transformers_collators_to_each_view(tmp_path, collator):
    trainer = trainer_of(tmp_path, data_collator=collator)
    trainer.train()
    assert list(trainer.last_update.losses) == ["clean", "augmented"]


def test_an_evaluation_of_views_is_refused_before_training(tmp_path):
    class Drawing(ToyViews):
        def __getitem__(self, index):
            random.random(), np.random.random(), torch.rand(1)
            return super().__getitem__(index)

    views = Drawing(4)
    for dataset, name in ((views, "set"), ({"la": views}, "set la")):
        trainer = trainer_of(tmp_path, eval_dataset=dataset)
        before = random.getstate(), np.random.get_state()[2], torch.get_rng_state()
        with pytest.raises(
            ValueError, match=rf"evaluation {name} has views \(clean, augmented\), .* use one view, as in"
        ):
            check_datasets(trainer)
        assert before[:2] == (random.getstate(), np.random.get_state()[2])
        assert torch.equal(before[2], torch.get_rng_state())
        with pytest.raises(ValueError, match="has views"):
            trainer.train()
        assert trainer.state.global_step == 0
    with pytest.raises(
        ValueError, match=r"the data set has views \(clean, augmented\), but an evaluation takes ordinary"
    ):
        trainer_of(tmp_path).predict(views)
    # A collator may choose one view.
    trainer = trainer_of(tmp_path, eval_dataset=views, data_collator=lambda items: collate([x["clean"] for x in items]))
    trainer.train()
    assert "eval_loss" in trainer.state.log_history[0]


def of_ordinary_items(items):
    return {"x": torch.stack([item["x"] for item in items]), "labels": torch.stack([item["labels"] for item in items])}


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_collator_that_does_not_know_views_says_so(tmp_path, workers):
    arguments = make_arguments(tmp_path, dataloader_num_workers=workers)
    trainer = GradientAlignmentTrainer(
        make_model(), arguments, train_dataset=ToyViews(), data_collator=of_ordinary_items
    )
    with pytest.raises(
        ValueError, match=r"views \(clean, augmented\): KeyError: 'x'. To apply .*=ViewBatchCollator\(collator\)"
    ):
        trainer.train()


def test_the_error_of_a_data_set_is_not_that_of_its_collator(tmp_path):
    class Broken(ToyViews):
        def __getitem__(self, index):
            if index:
                raise KeyError("no such clip")
            return super().__getitem__(index)

    trainer = GradientAlignmentTrainer(
        make_model(), make_arguments(tmp_path), train_dataset=Broken(), data_collator=collate
    )
    with pytest.raises(KeyError, match="no such clip"):
        trainer.train()


def test_processes_need_the_same_views_in_the_same_order(monkeypatch):
    def gathered(mine):
        return [*mine, ["augmented", "clean"]]

    check_same_views(["clean", "augmented"])
    monkeypatch.setattr("hf_gradalign.training.view_batch.gather_object", gathered)
    check_same_views(["augmented", "clean"])
    with pytest.raises(ValueError, match="same order, got process 0: clean, augmented; process 1: augmented, clean"):
        check_same_views(["clean", "augmented"])


@pytest.mark.parametrize("strategy", ["group_by_length", "batch_rebalance"])
def test_lengths_next_to_views_are_for_the_sampler(tmp_path, strategy):
    rows = [
        {view: {k: v.tolist() for k, v in inputs.items()} for view, inputs in item.items()} for item in ToyViews(12)
    ]
    table = Dataset.from_list([{**row, "length": index} for index, row in enumerate(rows)])
    arguments = make_arguments(tmp_path, train_sampling_strategy=strategy, per_device_train_batch_size=3, max_steps=4)
    trainer = GradientAlignmentTrainer(make_model(), arguments, train_dataset=table)
    trainer.train()
    assert trainer.last_update.views == ["clean", "augmented"]
    with pytest.raises(ValueError, match=r"an item has length next to mappings \(clean, augmented\)"):
        GradientAlignmentTrainer(make_model(), make_arguments(tmp_path), train_dataset=table).train()
    # Without views, the model may take them.
    assert trainer.data_collator([{**rows[0]["clean"], "length": 3}])["length"].tolist() == [3]
