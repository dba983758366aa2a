"""Data sets that number the classes differently than the model, and epochs that do not reach loader workers."""

import multiprocessing
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features
from torch.utils.data import ConcatDataset, StackDataset, Subset
from torch.utils.data import Dataset as TorchDataset
from toy import ToyViews, make_arguments, make_model, make_trainer
from transformers import EvalPrediction, Trainer

from hf_gradalign.experiment import CountermeasureMetrics
from hf_gradalign.metrics import equal_error_rate
from hf_gradalign.training.dataset_checks import check_labels, datasets_with_epoch, warn_about_lost_epochs

BONAFIDE_FIRST = {0: "bonafide", 1: "spoof"}


def model_with(names):
    return SimpleNamespace(config=SimpleNamespace(id2label=names))


class Numbered(ToyViews):
    label2id = {"spoof": 0, "bonafide": 1}  # noqa: RUF012


def table(names, view=None):
    features = {"labels": ClassLabel(names=names)}
    features = Features(features if view is None else {view: features})
    return Dataset.from_list([{"labels": 0}] if view is None else [{view: {"labels": 0}}], features=features)


DATASETS = {
    "ours": Numbered(4),
    "subset": Subset(Numbered(4), [0]),
    "one of several": Subset(ConcatDataset([ToyViews(4), Numbered(4)]), [0]),
    "datasets": table(["Spoof", "bona-fide"]),
    "views of datasets": table(["fake", "real"], "clean"),
}


@pytest.mark.parametrize("name", DATASETS)
def test_reversed_label_order_is_refused(name):
    dataset = DATASETS[name]
    with pytest.raises(
        ValueError, match=r"\(0: spoof, 1: bonafide\) differently than the model \(0: bonafide, 1: spoof\)"
    ):
        check_labels(model_with(BONAFIDE_FIRST), dataset)
    for names in ({0: "spoof", 1: "bonafide"}, {0: "fake", 1: "real"}, {0: "LABEL_0", 1: "LABEL_1"}, {0: "bonafide"}):
        check_labels(model_with(names), dataset)


def test_data_without_label_names_is_accepted():
    for dataset in (ToyViews(4), None, [{}], table(["a", "b"]), DATASETS["datasets"].with_transform(lambda rows: rows)):
        check_labels(model_with(BONAFIDE_FIRST), dataset)
    check_labels(SimpleNamespace(), DATASETS["ours"])
    with pytest.raises(
        ValueError, match=r"\(0: b, 1: a\) differently than the model \(0: a, 1: b\), so the model would learn"
    ):
        check_labels(model_with({0: "a", 1: "b"}), table(["b", "a"]))


def test_the_trainer_checks_before_it_trains_or_evaluates(tmp_path):
    model = make_model()
    model.config.id2label = BONAFIDE_FIRST
    items = Numbered(4, views=("clean",))
    for options in ({"dataset": items}, {"eval_dataset": {"la": items}}):
        trainer = make_trainer(tmp_path, model=model, **options)
        with pytest.raises(ValueError, match=r"make the data set with label2id=model\.config"):
            trainer.train()
        assert trainer.state.global_step == 0
    with pytest.raises(ValueError, match=r"make the data set with label2id=model\.config"):
        make_trainer(tmp_path, model=model).evaluate(items)


def test_metrics_know_the_order_of_the_model():
    metrics, logits, labels = CountermeasureMetrics(), np.array([[3.0, 0.0], [0.0, 1.0]]), np.array([0, 1])
    model, thresholds = make_model(), []
    for names in (BONAFIDE_FIRST, {0: "x", 1: "fake"}, {0: "spoof", 1: "bonafide"}, {0: "x", 1: "y"}):
        model.config.id2label = names
        metrics.use_model(model)
        thresholds.append(metrics(EvalPrediction(predictions=logits, label_ids=labels))["eer_threshold"])
    expected = [equal_error_rate(scores, labels)["threshold"] for scores in ([-1.0, 3.0], [-3.0, 1.0])]
    assert thresholds == [expected[0], expected[0], expected[1], expected[1]]


PERSISTENT = {"dataloader_num_workers": 1, "dataloader_persistent_workers": True}


class Epochs(TorchDataset):
    def __init__(self, epoch):
        self.epoch = epoch

    def set_epoch(self, epoch):
        raise NotImplementedError


def shared():
    return torch.zeros((), dtype=torch.int64).share_memory_()


@pytest.mark.parametrize(
    ("dataset", "options", "is_told"),
    [
        (Epochs(0), PERSISTENT, True),
        (Epochs(torch.zeros(())), PERSISTENT, True),
        (Epochs(0), {"dataloader_num_workers": 1}, False),
        (Epochs(shared()), PERSISTENT, False),
        (Epochs(Epochs(shared())), PERSISTENT, False),
        (Epochs(multiprocessing.Value("i", 0)), PERSISTENT, False),
        (Epochs(multiprocessing.RawValue("i", 0)), PERSISTENT, False),
        (Dataset.from_dict({"x": [1]}).to_iterable_dataset(), PERSISTENT, False),
        (Subset(Epochs(0), [0]), PERSISTENT, True),
        (Subset(Epochs(shared()), [0]), PERSISTENT, False),
        ([1, 2], PERSISTENT, False),
    ],
)
def test_unreachable_epochs_warn(tmp_path, caplog, dataset, options, is_told):
    warn_about_lost_epochs(dataset, make_arguments(tmp_path, **options))
    assert ("does not reach running workers" in caplog.text) == is_told


def test_warning_appears_when_training_starts(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(Trainer, "_inner_training_loop", lambda *args, **kwargs: None)
    make_trainer(tmp_path, Epochs(0), **PERSISTENT).train()
    assert "does not reach running workers" in caplog.text


def test_the_epochs_of_data_sets_within_wrappers():
    first, second = ToyViews(), ToyViews()
    assert datasets_with_epoch(Subset(ConcatDataset([first, second]), range(3))) == [first, second]
    assert datasets_with_epoch(StackDataset(x=first, y=[1] * len(first))) == [first]
    assert datasets_with_epoch(StackDataset(first, second)) == [first, second]
    plain = SimpleNamespace(set_epoch=print)  # torch does not ask for a base class
    assert datasets_with_epoch(Subset(plain, [0])) == [plain]
    assert datasets_with_epoch(Subset([1, 2], [0])) == datasets_with_epoch([1, 2]) == []


def test_a_subset_is_told_the_epoch(tmp_path):
    views = ToyViews()
    make_trainer(tmp_path, Subset(views, range(24)), max_steps=4).train()
    assert views.epochs == [0, 1]
